//! Desired state of a subscriber: the pushed document becomes an account, or every fault with its pointer.
