//! Devices, mailboxes and AAA rows out: claims jobs, acts through backends, confirms what is really applied.
