//! See `ashlar_nvmeof_fuzz::io_command`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ashlar_nvmeof_fuzz::io_command::run(data));
