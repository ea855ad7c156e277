//! `ksnap hold` and `ksnap release`.

use std::time::Duration;

use kld_host::Cmd;
use kld_snap::find;
use kld_ui::{ExitStatus, Printer};

use super::{dataset, snapshots};

/// Keep a snapshot from being destroyed, or let it go again
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ksnap hold rpool/srv/webapp-db pre-upgrade\n  ksnap release rpool/srv/webapp-db pre-upgrade"
)]
pub(crate) struct Args {
    /// The dataset, or a path that lies on it
    #[arg(value_name = "DATASET|PATH")]
    dataset: String,
    /// The snapshot
    name: String,
    /// Who holds it
    #[arg(long, default_value = "ksnap")]
    tag: String,
}

/// Which of both.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Hold,
    Release,
}

/// Holds or lets go.
pub(super) fn run(printer: &Printer, args: &Args, what: What) -> anyhow::Result<ExitStatus> {
    let dataset = dataset(&args.dataset)?;
    let full = find(&dataset, &snapshots(std::slice::from_ref(&dataset), false)?, &args.name)?.full();
    let (verb, done) = match what {
        What::Hold => ("hold", "is held"),
        What::Release => ("release", "is released"),
    };
    Cmd::new("zfs").args([verb, &args.tag, &full]).timeout(Duration::from_secs(60)).run()?;
    printer.note(&format!("`{full}` {done}"));
    Ok(ExitStatus::Done)
}
