//! `kldload check`.

use std::path::PathBuf;

use kld_manifest::Severity;
use kld_ui::{ExitStatus, Printer};

use crate::manifest::ManifestFile;

/// Check a manifest: every mistake with its line, a caret and a hint
///
/// Exits with 0 when the manifest is good (warnings do not count), with 1 when it is not.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload check recipes/webapp/appliance.manifest\n  kldload check --json appliance.manifest | jq .items\n  kldload check - < appliance.manifest"
)]
pub(crate) struct Args {
    /// The manifest; `-` reads standard input
    file: PathBuf,
    /// Print the diagnostics as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Checks it.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let file = ManifestFile::read(&args.file)?;
    let (errors, warnings, open) =
        (file.count(Severity::Error), file.count(Severity::Warning), file.count(Severity::Placeholder));
    let status = if errors + open == 0 { ExitStatus::Done } else { ExitStatus::Failed };
    if args.json {
        printer.envelope("diagnostics", &file.checked.diagnostics)?;
        return Ok(status);
    }
    file.show(printer, |_| true);
    let said = [
        (errors, "error", "errors"),
        (open, "placeholder to fill in", "placeholders to fill in"),
        (warnings, "warning", "warnings"),
    ];
    let said = said.into_iter().filter(|(count, ..)| *count > 0).map(counted);
    let parts: Vec<String> = match (&file.checked.appliance, status) {
        (Some(appliance), ExitStatus::Done) => {
            let services = appliance.services.len() + appliance.containers.len();
            let has = [
                (appliance.datasets.len(), "dataset", "datasets"),
                (appliance.planes.len(), "plane", "planes"),
                (services, "service", "services"),
            ];
            std::iter::once("good: ".to_owned() + &has.map(counted).join(", ")).chain(said).collect()
        }
        _ => said.collect(),
    };
    printer.note(&format!("{}: {}", file.name, parts.join(", ")));
    Ok(status)
}

fn counted((count, one, many): (usize, &str, &str)) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
