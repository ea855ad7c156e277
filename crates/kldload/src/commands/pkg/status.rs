//! `kpkg status`.

use kld_boot::{Environment, Looked, RealMachine, Trial};
use kld_ui::{ExitStatus, Printer, Table};
use serde::Serialize;

use crate::commands::history::utc;

/// Show what became of changed systems: which one starts next, which one was not well, and why
///
/// Exits with 1 when one was not well and is still there: `kbe mount` shows its files, `kbe destroy` ends the matter.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kpkg status\n  kpkg status --json | jq -r '.items[] | select(.state == \"failed\") | .reason'"
)]
pub(super) struct Args {
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

/// A changed system.
#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    created: u64,
    state: &'static str,
    reason: String,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let looked = Looked::at(&RealMachine)?;
    let rows: Vec<Row<'_>> = looked.environments.iter().filter_map(|of| row(&looked, of)).collect();
    if args.json {
        printer.envelope("trial", &rows)?;
    } else if rows.is_empty() {
        printer.note("no changed system has still to prove itself");
    } else {
        printer.data(&table(&rows))?;
    }
    let is_bad = rows.iter().any(|row| row.state == "failed");
    Ok(if is_bad { ExitStatus::Failed } else { ExitStatus::Done })
}

fn row<'a>(looked: &'a Looked, environment: &'a Environment) -> Option<Row<'a>> {
    let (state, reason) = said(looked, environment)?;
    Some(Row { name: environment.name(), created: environment.created, state, reason })
}

/// What became of a changed system, in a word and in a sentence; nothing of one that has passed or was never changed.
pub(crate) fn said(looked: &Looked, environment: &Environment) -> Option<(&'static str, String)> {
    let is_once = looked.once().is_some_and(|once| once.dataset == environment.dataset);
    Some(match environment.trial.as_ref()? {
        Trial::Failed(reason) => ("failed", reason.clone()),
        Trial::Waiting if environment.unfinished.is_some() => {
            ("changing", "its packages are being changed".to_owned())
        }
        Trial::Waiting if environment.is_running() => {
            ("running", "it has not yet said that it is well".to_owned())
        }
        Trial::Waiting if is_once => ("next", "it starts next, once".to_owned()),
        Trial::Waiting if looked.was_tried(environment) => (
            "failed",
            "it was started and never said a word: its kernel, its initial RAM file system, or the power"
                .to_owned(),
        ),
        Trial::Waiting => {
            let name = environment.name();
            ("waiting", format!("it was not started yet: `kbe activate --once {name}`"))
        }
    })
}

fn table(rows: &[Row<'_>]) -> String {
    let mut table = Table::new().left("NAME").left("CREATED").left("STATE").left("WHY");
    for row in rows {
        table.row([row.name.to_owned(), utc(row.created), row.state.to_owned(), row.reason.clone()]);
    }
    table.to_string()
}
