//! See `ashlar_fuzz::reservation_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ashlar_fuzz::reservation_record(data));
