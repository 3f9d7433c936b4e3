#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hot_backup::fuzzing::run("saves", bytes));
