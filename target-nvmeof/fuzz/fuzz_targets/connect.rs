//! See `ashlar_nvmeof_fuzz::hub`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ashlar_nvmeof_fuzz::hub::connect(data));
