//! `kbe mount` and `kbe umount`.

use clap_complete::engine::ArgValueCompleter;
use kld_boot::{RealMachine, carry_out, plan_mount, plan_umount};
use kld_ui::{ExitStatus, Hinted, Printer};
use serde::Serialize;

use super::change::Shown;
use crate::candidates;
use crate::commands::lock::take_lock;

/// Mount a boot environment to look into it or change it, and print where
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kbe mount before-upgrade\n  diff -r /etc \"$(kbe mount before-upgrade)/etc\"\n  kbe mount before-upgrade /mnt"
)]
pub(crate) struct MountArgs {
    /// Its name
    #[arg(add = ArgValueCompleter::new(candidates::environments))]
    name: String,
    /// An empty directory; /run/kbe/NAME when none is named
    directory: Option<String>,
    #[command(flatten)]
    shown: Shown,
}

/// Where one is mounted, as `--json` has it.
#[derive(Debug, Serialize)]
struct Mounted<'a> {
    environment: &'a str,
    mountpoint: String,
}

/// Unmount a boot environment
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kbe umount before-upgrade")]
pub(crate) struct UmountArgs {
    /// Its name
    #[arg(add = ArgValueCompleter::new(candidates::environments))]
    name: String,
    #[command(flatten)]
    shown: Shown,
}

pub(super) fn run(printer: &Printer, args: &MountArgs) -> anyhow::Result<ExitStatus> {
    let _lock = take_lock("kbe mount")?;
    if let Some(directory) = args.directory.as_ref().filter(|of| !of.starts_with('/')) {
        let hint = "name it from `/` on";
        return Err(Hinted::new(format!("`{directory}` is no absolute path"), hint).into());
    }
    let (plan, mountpoint) = plan_mount(&RealMachine, &args.name, args.directory.as_deref())?;
    if args.shown.dry_run {
        return args.shown.plan(printer, &args.name, &plan);
    }
    carry_out(&RealMachine, &plan, &mut |action| printer.detail(&action.to_string()))?;
    if args.shown.output.json {
        printer.envelope("mount", &[Mounted { environment: &args.name, mountpoint }])?;
    } else {
        printer.data(&mountpoint)?;
    }
    Ok(ExitStatus::Done)
}

pub(super) fn run_umount(printer: &Printer, args: &UmountArgs) -> anyhow::Result<ExitStatus> {
    let _lock = take_lock("kbe umount")?;
    let plan = plan_umount(&RealMachine, &args.name)?;
    if args.shown.dry_run {
        return args.shown.plan(printer, &args.name, &plan);
    }
    args.shown.perform(printer, &args.name, &plan)?;
    printer.note(&format!("`{}` is unmounted", args.name));
    Ok(ExitStatus::Done)
}
