//! `cargo xtask gen`: files that the code writes. A check fails when one is stale.

use std::fs;
use std::path::Path;

use anyhow::bail;
use kld_host::atomic_write;
use kld_ui::Printer;

/// Writes the files, or says which are stale.
pub(crate) fn run(printer: &Printer, root: &Path, check: bool) -> anyhow::Result<()> {
    let schema = serde_json::to_string_pretty(&kld_manifest::schema())? + "\n";
    let files = [
        ("docs/manifest.md", kld_manifest::reference()),
        ("docs/manifest.schema.json", schema),
        ("docs/hardening.md", kld_system::preset_page()),
    ];
    let stale: Vec<&str> = files
        .iter()
        .filter(|(path, text)| fs::read_to_string(root.join(path)).is_ok_and(|now| now == *text).eq(&false))
        .map(|(path, _)| *path)
        .collect();
    if stale.is_empty() {
        return Ok(());
    }
    if check {
        bail!("generated files are stale: {}; run `cargo xtask gen`", stale.join(", "));
    }
    for (path, text) in &files {
        atomic_write(&root.join(path), text.as_bytes(), 0o644)?;
        printer.note(&format!("wrote {path}"));
    }
    Ok(())
}
