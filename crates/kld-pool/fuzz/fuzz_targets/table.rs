//! See `kld_pool::fuzz::table`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kld_pool::fuzz::table(bytes));
