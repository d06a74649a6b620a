//! See `ashlar_iscsi_fuzz::scsi`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ashlar_iscsi_fuzz::scsi::run(data));
