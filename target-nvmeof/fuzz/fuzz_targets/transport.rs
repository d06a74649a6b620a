//! See `ashlar_nvmeof_fuzz::transport`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ashlar_nvmeof_fuzz::transport::run(data));
