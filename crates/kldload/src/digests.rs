//! Files beside a manifest that must be what the manifest says they are.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use kld_manifest::model::FileSource;
use kld_manifest::{Checked, Diagnostic, Severity, Sha256};
use sha2::Digest as _;

/// Compares each file that has a `sha256:` with it, and adds what is wrong to what was found: every command that reads a
/// manifest refuses it, with its line.
pub(crate) fn compare(dir: &Path, checked: &mut Checked) {
    let files = checked.appliance.iter().flat_map(|appliance| &appliance.files);
    let wrong = files.filter_map(|file| {
        let FileSource::Path { path, sha256: Some(wanted) } = &file.source else { return None };
        let at = dir.join(&path.value);
        let message = match digest(&at) {
            Ok(found) if found == wanted.value => return None,
            Ok(found) => format!(
                "`{}` is another file than the manifest's: its SHA-256 is {found}, and {} is wanted",
                path.value, wanted.value
            ),
            Err(error) => format!("cannot compare `{}` with its SHA-256: {error}", path.value),
        };
        Some(Diagnostic {
            severity: Severity::Error,
            code: "another-file",
            message,
            span: wanted.span,
            hint: Some(format!(
                "`sha256sum {}` prints it; write it here when the file is the right one",
                at.display()
            )),
            related: Vec::new(),
        })
    });
    let wrong: Vec<Diagnostic> = wrong.collect();
    checked.diagnostics.extend(wrong);
    checked.diagnostics.sort_by_key(|diagnostic| diagnostic.span);
}

fn digest(path: &Path) -> io::Result<Sha256> {
    let mut file = File::open(path)?;
    let (mut hash, mut bytes) = (sha2::Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(Sha256::new(hash.finalize().into())),
            length => hash.update(&bytes[..length]),
        }
    }
}
