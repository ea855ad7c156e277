//! `kldload be`, also called `kbe`: boot environments. One file per verb.

mod activate;
mod change;
mod create;
mod destroy;
mod diff;
mod export;
mod good;
mod health;
mod import;
mod list;
mod mount;
mod prune;
mod rename;
mod snapshots;

pub(crate) use health::{PROBE, probe};
use kld_ui::{ExitStatus, Printer};

/// Keep systems side by side and go back to one that worked
///
/// A boot environment is a clone of the system: kernel, modules, /usr, /etc and the package database together, with an entry
/// of its own in the boot menu. Home directories, logs and the data of services are not part of it, and never go back.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kbe create before-upgrade\n  kbe list\n  kbe activate before-upgrade && reboot\n  kbe activate --once try\n  kbe destroy before-upgrade\n  kbe prune --keep 5"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Create(create::Args),
    List(list::Args),
    Activate(activate::Args),
    Destroy(destroy::Args),
    Rename(rename::Args),
    Diff(diff::Args),
    Snapshots(snapshots::Args),
    Export(export::Args),
    Import(import::Args),
    Mount(mount::MountArgs),
    Umount(mount::UmountArgs),
    Good(good::Args),
    Prune(prune::Args),
}

pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    match &args.verb {
        Verb::Create(args) => create::run(printer, args),
        Verb::List(args) => list::run(printer, args),
        Verb::Activate(args) => activate::run(printer, args),
        Verb::Destroy(args) => destroy::run(printer, args),
        Verb::Rename(args) => rename::run(printer, args),
        Verb::Diff(args) => diff::run(printer, args),
        Verb::Snapshots(args) => snapshots::run(printer, args),
        Verb::Export(args) => export::run(printer, args),
        Verb::Import(args) => import::run(printer, args),
        Verb::Mount(args) => mount::run(printer, args),
        Verb::Umount(args) => mount::run_umount(printer, args),
        Verb::Good(args) => good::run(printer, args),
        Verb::Prune(args) => prune::run(printer, args),
    }
}
