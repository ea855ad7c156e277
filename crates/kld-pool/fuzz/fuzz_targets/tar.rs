//! See `kld_pool::fuzz::tar`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kld_pool::fuzz::tar(bytes));
