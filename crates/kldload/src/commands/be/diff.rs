//! `kbe diff`.

use std::path::Path;

use anyhow::Context as _;
use clap_complete::engine::ArgValueCompleter;
use kld_boot::{BootError, Looked, RealMachine, common_snapshot, file_changes, look_into};
use kld_host::zfs::{Change, ChangeKind};
use kld_packages::{PackageChange, Packages};
use kld_ui::{ExitStatus, Printer};
use serde::Serialize;

use crate::candidates;
use crate::commands::lock::take_lock;

/// Show what two boot environments differ in: packages, and the files that each has changed since they parted
///
/// Files are compared where both come from one snapshot. Exits with 0 whether there is a difference or not.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kbe diff debian august\n  kbe diff --packages debian august\n  kbe diff --json debian august | jq -r '.items[] | select(.kind == \"package\") | .name'"
)]
pub(crate) struct Args {
    /// The first, as a rule the older one
    #[arg(add = ArgValueCompleter::new(candidates::environments))]
    a: String,
    /// The second
    #[arg(add = ArgValueCompleter::new(candidates::environments))]
    b: String,
    /// Only packages
    #[arg(long)]
    packages: bool,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

/// A difference.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Row<'a> {
    Package {
        #[serde(flatten)]
        change: &'a PackageChange,
    },
    File {
        environment: &'a str,
        path: &'a str,
        change: ChangeKind,
        to: Option<&'a str>,
    },
}

/// What one environment has, and what it has changed.
struct Side {
    packages: Option<Packages>,
    files: Vec<Change>,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let _lock = take_lock("kbe diff")?;
    let looked = Looked::before_change(&RealMachine)?;
    let common = common_snapshot(&looked, &args.a, &args.b)?.map(|snapshot| snapshot.name.as_str());
    let since = common.filter(|_| !args.packages);
    let (a, b) = (side(&args.a, since)?, side(&args.b, since)?);
    let changes = match (&a.packages, &b.packages) {
        (Some(a), Some(b)) => a.changes(b),
        _ => Vec::new(),
    };
    let sides = [(args.a.as_str(), &a.files), (args.b.as_str(), &b.files)];
    if args.json {
        let packages = changes.iter().map(|change| Row::Package { change });
        let files =
            sides.iter().flat_map(|(environment, files)| files.iter().map(|file| row(environment, file)));
        printer.envelope("difference", &packages.chain(files).collect::<Vec<_>>())?;
    } else {
        let mut lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
        for (name, files) in sides.iter().filter(|(_, files)| !files.is_empty()) {
            lines.push(format!("changed in {name} since they parted:"));
            lines.extend(files.iter().map(line));
        }
        printer.data(&lines.join("\n"))?;
    }
    if a.packages.is_none() || b.packages.is_none() {
        printer.warning("packages are not compared: only dpkg's database is known");
    }
    if common.is_none() && !args.packages {
        printer.warning("files are not compared: the two come from no common snapshot");
    }
    Ok(ExitStatus::Done)
}

fn side(name: &str, since: Option<&str>) -> anyhow::Result<Side> {
    look_into(&RealMachine, name, |environment, at| -> Result<anyhow::Result<Side>, BootError> {
        let place = if at.is_empty() { "/" } else { at };
        let packages = Packages::of(Path::new(place));
        let packages = packages.with_context(|| format!("cannot read the package database of `{name}`"));
        let files = since.map(|since| file_changes(&RealMachine, since, &environment.dataset, at));
        let files = files.transpose()?.unwrap_or_default();
        Ok(packages.map(|packages| Side { packages, files }))
    })?
}

fn row<'a>(environment: &'a str, file: &'a Change) -> Row<'a> {
    Row::File { environment, path: &file.path, change: file.kind, to: file.to.as_deref() }
}

fn line(file: &Change) -> String {
    let to = file.to.iter().map(|to| format!(" -> {to}"));
    format!("  {} {}{}", file.kind.letter(), file.path, to.collect::<String>())
}
