//! See `kld_pool::fuzz::stream`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kld_pool::fuzz::stream(bytes));
