//! `kldload key`: the keys of encrypted datasets.

use kld_node::{RealMachine, keys};
use kld_system::NodeConfig;
use kld_ui::{ExitStatus, Hinted, Printer, Table};

use super::apply;
use super::history::utc;
use super::status::read_config;

/// The keys of encrypted datasets: which there are, and new ones in place of old ones
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kldload key list\n  kldload key rotate rpool/srv/vault")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show which datasets have a key that kldload keeps, and since when
    #[command(after_help = "Examples:\n  kldload key list\n  kldload key list --json | jq '.items[].since'")]
    List {
        /// Print JSON on standard output
        #[arg(long)]
        json: bool,
    },
    /// Give a dataset a new key
    ///
    /// The new key is made on this machine, sealed with systemd-creds, and proven to load the dataset before the old one is
    /// removed. The dataset stays mounted. Killed or without power at any moment, the next start has the key that counts.
    ///
    /// This is `zfs change-key`: it changes the key that the data's own keys are wrapped with. Data that is on the disk is not
    /// encrypted again. Who has had the old key and a copy of the disk, or of a raw stream, from before can still read what
    /// that copy holds, and with the data's keys in it also what the disk holds later. When the old key is known to somebody,
    /// make a new dataset, copy into it, and destroy the old one. Copies that replication made take over the new key with the
    /// next stream.
    #[command(
        after_help = "Examples:\n  kldload key rotate --dry-run rpool/srv/vault\n  kldload key rotate rpool/srv/vault"
    )]
    Rotate {
        /// The dataset
        dataset: String,
        /// Only show what would be done; exits with 3
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Does it.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let Some(config) = read_config()? else {
        let hint = "`kldload build` makes machines that have one";
        return Err(Hinted::new("this machine has no /etc/kldload/node.json", hint).into());
    };
    match &args.verb {
        Verb::List { json } => list(printer, &config, *json),
        Verb::Rotate { dataset, dry_run, yes } => rotate(printer, &config, dataset, *dry_run, *yes),
    }
}

fn list(printer: &Printer, config: &NodeConfig, json: bool) -> anyhow::Result<ExitStatus> {
    let all = keys::list(&RealMachine, config)?;
    if json {
        printer.envelope("key", &all)?;
        return Ok(ExitStatus::Done);
    }
    if all.is_empty() {
        printer.note("no dataset of this machine has a key that kldload keeps");
        return Ok(ExitStatus::Done);
    }
    let mut table = Table::new().left("DATASET").left("ALGORITHM").left("KEY").left("SINCE").left("ROTATION");
    for key in all {
        let since = key.since.map_or_else(|| "not sealed".to_owned(), utc);
        let rotation = if key.interrupted { "interrupted: `kldload recover`" } else { "-" };
        table.row([&key.dataset, &key.algorithm, &key.status, &since, rotation]);
    }
    printer.data(&table.to_string())?;
    Ok(ExitStatus::Done)
}

fn rotate(
    printer: &Printer,
    config: &NodeConfig,
    dataset: &str,
    dry_run: bool,
    yes: bool,
) -> anyhow::Result<ExitStatus> {
    let _lock = apply::lock("kldload key rotate")?;
    keys::check(&RealMachine, config, dataset)?;
    printer.data(&format!(
        "{dataset} gets a new key: its data stays as it is, and the old key loads it no more (`kldload key rotate --help`)"
    ))?;
    if dry_run {
        return Ok(ExitStatus::Pending);
    }
    if !printer.confirm("rotate it?", yes) {
        return Err(Hinted::new("nothing was changed: not confirmed", "`--yes` does not ask").into());
    }
    keys::rotate(&RealMachine, config, dataset, &mut |step| printer.note(step))?;
    printer.note(&format!("`{dataset}` has a new key, sealed for this machine alone"));
    Ok(ExitStatus::Done)
}
