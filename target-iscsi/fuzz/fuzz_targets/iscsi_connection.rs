//! See `ashlar_iscsi_fuzz::connection`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ashlar_iscsi_fuzz::connection::run(data));
