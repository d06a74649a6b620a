//! See `ashlar_nvmeof_fuzz::connection`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ashlar_nvmeof_fuzz::connection::run(data));
