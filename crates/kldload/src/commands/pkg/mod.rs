//! `kldload pkg`, also called `kpkg`; `kupgrade` is `kpkg upgrade`. One file per verb.

mod clone;
mod inside;
mod install;
mod judge;
mod remove;
mod status;
mod upgrade;
mod watch;

pub(crate) use judge::pass;
use kld_ui::{ExitStatus, Printer};
pub(crate) use status::said;

/// Change packages in a clone of the system, start the clone once, and keep it when it is well
///
/// The running system stays as it is. A clone of it is changed and checked, gets an entry in the boot menu, and is started at the next
/// start, once. When it says that it is well, it stays; otherwise the start after it is the old one, by itself, and `kpkg status` says why.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kupgrade --dry-run\n  kupgrade && reboot\n  kpkg install --reboot nginx\n  kpkg remove nginx\n  kpkg status"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Upgrade(upgrade::Args),
    Install(install::Args),
    Remove(remove::Args),
    Status(status::Args),
    #[command(hide = true)]
    Judge(judge::Args),
    #[command(hide = true)]
    Inside(inside::Args),
}

pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    match &args.verb {
        Verb::Upgrade(args) => upgrade::run(printer, args),
        Verb::Install(args) => install::run(printer, args),
        Verb::Remove(args) => remove::run(printer, args),
        Verb::Status(args) => status::run(printer, args),
        Verb::Judge(args) => judge::run(printer, args),
        Verb::Inside(args) => inside::run(printer, args),
    }
}
