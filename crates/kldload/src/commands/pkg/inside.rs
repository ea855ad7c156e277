//! `kpkg inside`: the process that changes a clone. Its words are on stderr, its report is on stdout.

use std::io::Read as _;

use anyhow::Context as _;
use kld_packages::{Request, change};
use kld_ui::{ExitStatus, Hinted, Printer};

/// The process that changes a clone; not needed by people
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The clone's dataset
    dataset: String,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    // What it mounts must be seen by nobody else, and end with it.
    if std::process::id() != 1 {
        let hint = "`kpkg upgrade` and `kpkg install` run it";
        return Err(Hinted::new("this is not the first process of a namespace", hint).into());
    }
    let mut json = String::new();
    std::io::stdin().read_to_string(&mut json).context("cannot read the request")?;
    let request: Request = serde_json::from_str(&json).context("cannot understand the request")?;
    let report = change(&args.dataset, &request, &mut |line| printer.detail(line))?;
    printer.data(&serde_json::to_string(&report).context("cannot write the report")?)?;
    Ok(ExitStatus::Done)
}
