//! `kldload key`: the keys of encrypted datasets.

use clap_complete::engine::ArgValueCompleter;
use kld_node::keys::{Holder, Key, MAX_BYTES, Passphrase};
use kld_node::{RealMachine, keys};
use kld_system::NodeConfig;
use kld_ui::{ExitStatus, Hinted, Printer, Table};

use super::asked::asked;
use super::given;
use super::history::utc;
use super::lock;
use super::status::read_config;
use crate::candidates;

/// The keys of encrypted datasets: which there are, new ones in place of old ones, and passphrases in place of keys
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload key list\n  kldload key rotate rpool/srv/vault\n  kldload key passphrase rpool/srv/vault\n  kldload key unlock rpool/srv/vault"
)]
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
    ///
    /// A dataset with a passphrase has a key of the machine again: from then on it is unlocked at every start, without a person.
    #[command(
        after_help = "Examples:\n  kldload key rotate --dry-run rpool/srv/vault\n  kldload key rotate rpool/srv/vault"
    )]
    Rotate {
        /// The dataset
        #[arg(add = ArgValueCompleter::new(candidates::datasets))]
        dataset: String,
        /// Only show what would be done; exits with 3
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Give a dataset a passphrase in place of the machine's key, or another passphrase
    ///
    /// Asks for it twice; where there is no terminal, it is one line on standard input. It has 8 to 512 bytes. This machine keeps
    /// nothing of it, and its own sealed key is removed: from the next start on, the dataset is locked until somebody answers the
    /// question at the console, for which the start waits up to a minute and a half, or says `kldload key unlock` later. The
    /// dataset stays mounted. Who forgets the passphrase has lost the data.
    ///
    /// This is `zfs change-key`, with the same limits as `kldload key rotate`, which also makes it a key of the machine again.
    #[command(
        after_help = "Examples:\n  kldload key passphrase rpool/srv/vault\n  kldload key passphrase --dry-run rpool/srv/vault\n  kldload key passphrase --yes rpool/srv/vault < passphrase.txt"
    )]
    Passphrase {
        /// The dataset
        #[arg(add = ArgValueCompleter::new(candidates::datasets))]
        dataset: String,
        /// Only show what would be done, and ask for nothing; exits with 3
        #[arg(long)]
        dry_run: bool,
        /// Do not ask whether; needed where the passphrase is on standard input
        #[arg(long, short)]
        yes: bool,
    },
    /// Unlock a dataset by its passphrase, mount it, and start the services that have waited for it
    ///
    /// Asks for the passphrase; where there is no terminal, it is one line on standard input. Of a dataset that is unlocked
    /// already, it mounts and starts what is not.
    #[command(
        after_help = "Examples:\n  kldload key unlock rpool/srv/vault\n  ssh -t root@vault kldload key unlock rpool/srv/vault"
    )]
    Unlock {
        /// The dataset
        #[arg(add = ArgValueCompleter::new(candidates::datasets))]
        dataset: String,
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
        Verb::Passphrase { dataset, dry_run, yes } => passphrase(printer, &config, dataset, *dry_run, *yes),
        Verb::Unlock { dataset } => unlock(printer, &config, dataset),
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
    for key in &all {
        table.row(cells(key));
    }
    printer.data(&table.to_string())?;
    Ok(ExitStatus::Done)
}

fn cells(key: &Key) -> [String; 5] {
    let status = match (key.passphrase, &key.status[..]) {
        (false, status) => status,
        (true, "available") => "passphrase",
        (true, _) => "passphrase, locked",
    };
    let since = match key.since {
        Some(since) => utc(since),
        None if key.passphrase => "-".to_owned(),
        None => "not sealed".to_owned(),
    };
    let rotation = if key.interrupted { "interrupted: `kldload recover`" } else { "-" };
    [key.dataset.clone(), key.algorithm.clone(), status.to_owned(), since, rotation.to_owned()]
}

fn rotate(
    printer: &Printer,
    config: &NodeConfig,
    dataset: &str,
    dry_run: bool,
    yes: bool,
) -> anyhow::Result<ExitStatus> {
    let _lock = lock::lock("kldload key rotate")?;
    let holder = keys::check(&RealMachine, config, dataset)?;
    let what = match holder {
        Holder::Machine => "and the old key loads it no more",
        Holder::Person => {
            "this machine unlocks it by itself from then on, and its passphrase loads it no more"
        }
    };
    printer.data(&format!(
        "{dataset} gets a new key: its data stays as it is, {what} (`kldload key rotate --help`)"
    ))?;
    if dry_run {
        return Ok(ExitStatus::Pending);
    }
    asked(printer, "rotate it?", yes)?;
    keys::rotate(&RealMachine, config, dataset, &mut |step| printer.note(step))?;
    printer.note(&format!("`{dataset}` has a new key, sealed for this machine alone"));
    Ok(ExitStatus::Done)
}

fn passphrase(
    printer: &Printer,
    config: &NodeConfig,
    dataset: &str,
    dry_run: bool,
    yes: bool,
) -> anyhow::Result<ExitStatus> {
    let _lock = lock::lock("kldload key passphrase")?;
    let what = match keys::check(&RealMachine, config, dataset)? {
        Holder::Machine => "a passphrase, and the key of this machine is removed",
        Holder::Person => "another passphrase, and the old one loads it no more",
    };
    printer.data(&format!(
        "{dataset} gets {what}: it is locked after every start, until `kldload key unlock {dataset}`; without the passphrase, its data is lost"
    ))?;
    if dry_run {
        return Ok(ExitStatus::Pending);
    }
    asked(printer, "go on?", yes)?;
    let passphrase = match given::standard_input(MAX_BYTES + 1)? {
        Some(line) => Passphrase::new(&line)?,
        None => {
            let first = Passphrase::new(&given::ask(&format!("New passphrase of {dataset}:"))?)?;
            if given::ask("Once more:")? != first.text() {
                let hint = format!("`kldload key passphrase {dataset}` asks again");
                return Err(Hinted::new("nothing was changed: it was typed in two ways", hint).into());
            }
            first
        }
    };
    keys::set_passphrase(&RealMachine, config, dataset, &passphrase, &mut |step| printer.note(step))?;
    printer.note(&format!("`{dataset}` has a passphrase, which this machine does not know"));
    Ok(ExitStatus::Done)
}

fn unlock(printer: &Printer, config: &NodeConfig, dataset: &str) -> anyhow::Result<ExitStatus> {
    // Without the lock: while the machine starts, what undoes an interrupted apply must not find it taken, and what is started here
    // may have to wait for that.
    let passphrase = if keys::asks(&RealMachine, config, dataset)? {
        let line = match given::standard_input(MAX_BYTES + 1)? {
            Some(line) => line,
            None => given::ask(&format!("Passphrase of {dataset}:"))?,
        };
        Some(Passphrase::new(&line)?)
    } else {
        printer.note(&format!("`{dataset}` is unlocked already"));
        None
    };
    let done = keys::unlock(&RealMachine, config, dataset, passphrase.as_ref())?;
    for mounted in &done.mounted {
        printer.note(&format!("`{mounted}` is mounted"));
    }
    for started in &done.started {
        printer.note(&format!("{started} is started"));
    }
    Ok(ExitStatus::Done)
}
