//! See `kld_pool::fuzz::labels`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kld_pool::fuzz::labels(bytes));
