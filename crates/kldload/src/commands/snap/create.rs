//! `ksnap DATASET… NAME`.

use anyhow::Context as _;
use clap_complete::engine::ArgValueCompleter;
use kld_snap::{NameError, ShortName, snapshot_cmd, stamp};
use kld_ui::{ExitStatus, Printer};

use super::hooks::Hooks;
use super::{dataset, now, word};
use crate::candidates;

/// What is snapshotted, and under which name.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Datasets, or paths that lie on them
    #[arg(required = true, value_name = "DATASET|PATH", add = ArgValueCompleter::new(candidates::datasets_and_paths))]
    datasets: Vec<String>,
    /// The short name; the time is put behind it
    #[arg(required = true, value_parser = word::<ShortName>(NameError::hint))]
    name: Option<ShortName>,
    /// All datasets below, too
    #[arg(long, short)]
    recursive: bool,
    #[command(flatten)]
    hooks: Hooks,
    /// Only say what would be made; exits with 3
    #[arg(long)]
    dry_run: bool,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Makes them, all or none.
pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let name = args.name.as_ref().context("a name is required")?;
    let stamp = stamp(now());
    let (mut datasets, mut names) = (Vec::new(), Vec::new());
    for word in &args.datasets {
        let dataset = dataset(word)?;
        // Two paths may lie on one dataset.
        if !datasets.contains(&dataset) {
            names.push(name.of(&dataset, &stamp)?);
            datasets.push(dataset);
        }
    }
    let ready = args.hooks.ready(&datasets, args.recursive)?;
    if args.dry_run {
        ready.lines().iter().for_each(|line| printer.note(line));
    }
    let after = match args.dry_run {
        true => Ok(()),
        false => ready.around(printer, || Ok(snapshot_cmd(&names, args.recursive).run()?))?,
    };
    if args.json {
        printer.envelope("snapshot", &names)?;
    } else {
        printer.data(&names.join("\n"))?;
    }
    // The snapshots are there, and said; what came after them has failed all the same.
    after?;
    Ok(if args.dry_run { ExitStatus::Pending } else { ExitStatus::Done })
}
