//! Closes periods, previews them, keeps batches.
