//! `kldload pool verify`.

use kld_pool::verify::{FindingKind, verify};
use kld_ui::{ByteSize, ExitStatus, Phases, Printer};
use serde::Serialize;

use super::Bar;
use super::image::Image;

/// Read every block of a pool, and compare everything that it says twice
///
/// Checks each copy of each block, what space maps say against what is in use, the accounting of datasets, the counts of
/// features, tables and directories. Exits with 1 when anything is wrong.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload pool verify webapp.img\n  kldload pool verify disk-a.img,disk-b.img --json"
)]
pub(crate) struct Args {
    /// File or device; sides of a mirror are separated by commas
    image: String,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    kind: String,
    place: String,
    problem: String,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let phases = Phases::new(printer, 1);
    let bar = Bar(phases.start_bytes("verify the pool"));
    let (name, report) =
        Image::open(&args.image)?.with_pool(|pool| Ok((pool.name().to_owned(), verify(pool, &bar))))?;
    bar.0.finish();
    drop(phases);
    let status = if report.is_clean() { ExitStatus::Done } else { ExitStatus::Failed };
    if args.json {
        let rows = report.findings.iter().map(|finding| Row {
            kind: kind(finding.kind),
            place: finding.place.to_string(),
            problem: finding.problem.clone(),
        });
        printer.envelope("findings", &rows.collect::<Vec<_>>())?;
        return Ok(status);
    }
    let mut text: String = report.findings.iter().map(|finding| format!("{finding}\n")).collect();
    let verdict = match report.findings.len() {
        0 => "nothing is wrong".to_owned(),
        1 => "1 finding".to_owned(),
        many => format!("{many} findings"),
    };
    text.push_str(&format!(
        "{name}: {verdict}; {} blocks, {} copies, {} read\n",
        report.blocks,
        report.copies,
        ByteSize(report.bytes)
    ));
    printer.data(&text)?;
    for part in &report.not_checked {
        printer.warning(&format!("not checked: {part}"));
    }
    Ok(status)
}

/// `DoubleAllocation` as `double-allocation`.
fn kind(kind: FindingKind) -> String {
    let mut text = String::new();
    for letter in format!("{kind:?}").chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}
