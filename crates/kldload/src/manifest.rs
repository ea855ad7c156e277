//! Reading a manifest and showing what is wrong with it.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kld_manifest::{Appliance, Checked, Diagnostic, Severity, check, render};
use kld_system::{System, render as render_system};
use kld_ui::{Hinted, Printer};

use crate::digests;

/// More than this is no manifest.
const MAX_BYTES: u64 = 1 << 20;

/// A manifest that was read, good or not.
#[derive(Debug)]
pub(crate) struct ManifestFile {
    /// As given on the command line; `-` is standard input.
    pub(crate) name: String,
    /// The directory that its relative paths belong to.
    pub(crate) dir: PathBuf,
    /// Its text.
    pub(crate) text: String,
    /// What it means, and what is wrong.
    pub(crate) checked: Checked,
}

impl ManifestFile {
    /// Reads and checks a file, or standard input for `-`.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        let source: Box<dyn std::io::Read> = if name == "-" {
            Box::new(std::io::stdin())
        } else {
            Box::new(fs::File::open(path).with_context(|| format!("cannot read the manifest `{name}`"))?)
        };
        source
            .take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read the manifest `{name}`"))?;
        if bytes.len() as u64 > MAX_BYTES {
            let hint = "a manifest has at most 1 MiB; put large content into files beside it";
            return Err(Hinted::new(format!("`{name}` is too large for a manifest"), hint).into());
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            Hinted::new(
                format!("`{name}` is not text: byte {} is not UTF-8", error.utf8_error().valid_up_to()),
                "is it really a manifest?",
            )
        })?;
        let mut checked = check(&text);
        let dir =
            path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        digests::compare(&dir, &mut checked);
        Ok(Self { name, dir, text, checked })
    }

    /// Shows every diagnostic that `shown` picks, as the compiler would.
    pub(crate) fn show(&self, printer: &Printer, shown: impl Fn(&Diagnostic) -> bool) {
        for diagnostic in self.checked.diagnostics.iter().filter(|d| shown(d)) {
            printer.problem(&render(&self.name, &self.text, diagnostic));
        }
    }

    /// How many diagnostics have this severity.
    pub(crate) fn count(&self, severity: Severity) -> usize {
        self.checked.diagnostics.iter().filter(|d| d.severity == severity).count()
    }

    /// The model, or an error after the diagnostics were shown.
    pub(crate) fn appliance(&self, printer: &Printer) -> anyhow::Result<&Appliance> {
        let errors = self.count(Severity::Error) + self.count(Severity::Placeholder);
        match &self.checked.appliance {
            Some(appliance) if errors == 0 => Ok(appliance),
            _ => {
                self.show(printer, |d| d.severity != Severity::Warning);
                let what = if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") };
                Err(Hinted::new(
                    format!("the manifest `{}` has {what}", self.name),
                    "every key is described in docs/manifest.md, and by `kldload manifest reference`",
                )
                .into())
            }
        }
    }

    /// The whole machine.
    pub(crate) fn system(&self, printer: &Printer) -> anyhow::Result<System> {
        let appliance = self.appliance(printer)?;
        render_system(appliance).with_context(|| format!("cannot make a machine of `{}`", self.name))
    }
}
