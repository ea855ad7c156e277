//! `kbe import`.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use kld_boot::{BootEnvironmentName, RealMachine, STREAM_HEADER, StreamHeader, import, plan_import};
use kld_ui::{ExitStatus, Hinted, Printer};

use super::change::Shown;
use crate::commands::lock::lock;

/// Make a boot environment of what `kbe export` has written
///
/// ZFS checks every block of the stream against its checksum. The kernel is found in the environment's /boot and copied to the boot
/// partitions. What starts next stays as it is.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kbe import debian.zfs\n  kbe import debian.zfs debian-copy\n  kbe import --dry-run debian.zfs"
)]
pub(crate) struct Args {
    /// The file
    file: PathBuf,
    /// What it is called here; its old name when none is named
    name: Option<BootEnvironmentName>,
    #[command(flatten)]
    shown: Shown,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let shown = args.file.display();
    let mut beginning = Vec::new();
    let file = File::open(&args.file).with_context(|| format!("cannot open `{shown}`"))?;
    file.take(STREAM_HEADER as u64)
        .read_to_end(&mut beginning)
        .with_context(|| format!("cannot read `{shown}`"))?;
    let hint = "`kbe export NAME > FILE` writes one";
    let header = StreamHeader::parse(&beginning)
        .ok_or_else(|| Hinted::new(format!("`{shown}` is no stream of a boot environment"), hint))?;
    if header.is_incremental {
        let what = format!("`{shown}` only holds what has changed since another snapshot");
        return Err(Hinted::new(what, hint).into());
    }
    let name = match &args.name {
        Some(name) => name.clone(),
        None => header.environment().parse()?,
    };
    let _lock = lock("kbe import")?;
    let file = args.file.canonicalize().with_context(|| format!("cannot find `{shown}`"))?;
    let file = file.to_string_lossy();
    if args.shown.dry_run {
        printer.note("its kernel and its boot entry are written when it has come");
        return args.shown.plan(printer, name.as_str(), &plan_import(&RealMachine, &name, &file)?);
    }
    args.shown.output.doing(printer, name.as_str(), |said| Ok(import(&RealMachine, &name, &file, said)?))?;
    printer.note(&format!("made `{name}`; `kbe activate {name}` starts it next"));
    Ok(ExitStatus::Done)
}
