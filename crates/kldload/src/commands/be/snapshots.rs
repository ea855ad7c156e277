//! `kbe snapshots`.

use kld_boot::{Looked, RealMachine};
use kld_ui::{ByteSize, ExitStatus, Printer, Table};
use serde::Serialize;

/// Show the snapshots of boot environments; `kbe create NAME --from SNAPSHOT` makes an environment of one
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kbe snapshots\n  kbe create fresh --from debian@install")]
pub(crate) struct Args {
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

/// A snapshot.
#[derive(Debug, Serialize)]
struct Row<'a> {
    name: String,
    dataset: &'a str,
    own: u64,
    made_into: Vec<&'a str>,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let looked = Looked::at(&RealMachine)?;
    let of = |environment: &'_ kld_boot::Environment| environment.name().to_owned();
    let mut rows = Vec::new();
    for environment in &looked.environments {
        rows.extend(environment.snapshots.iter().map(|snapshot| Row {
            name: format!("{}@{}", of(environment), snapshot.short()),
            dataset: &environment.dataset,
            own: snapshot.used,
            made_into: snapshot.clones.iter().filter_map(|clone| clone.rsplit('/').next()).collect(),
        }));
    }
    if args.json {
        printer.envelope("snapshot", &rows)?;
        return Ok(ExitStatus::Done);
    }
    let mut table = Table::new().left("NAME").right("OWN").left("MADE INTO");
    for row in &rows {
        table.row([row.name.clone(), ByteSize(row.own).to_string(), row.made_into.join(", ")]);
    }
    printer.data(&table.to_string())?;
    Ok(ExitStatus::Done)
}
