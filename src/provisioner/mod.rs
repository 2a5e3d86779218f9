//! Devices out: brings elements from applied to desired.

pub mod password;
