//! The TFTP protocol machine (RFC 1350, 2347, 2348, 2349, 7440): packets and time in, packets and wake-ups out.
