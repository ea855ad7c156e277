//! Any bytes get an answer, and every finding can be shown.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    for diagnostic in &kld_manifest::check(&text).diagnostics {
        let _ = kld_manifest::render("fuzz", &text, diagnostic);
    }
});
