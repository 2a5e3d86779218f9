//! `cargo fuzz run -s none frame`: what must hold for any octets stands in `judges.rs`.
#![no_main]

#[path = "../judges.rs"]
#[expect(dead_code, reason = "each target uses one judge")]
mod judges;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| judges::frame(octets));
