//! `kldload dir`, also called `kdir`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap_complete::engine::ArgValueCompleter;
use kld_engine::{Adopter, Directory, Made, RealHost, Wish};
use kld_system::Purpose;
use kld_ui::{ExitStatus, Hinted, Printer};
use serde::Serialize;

use super::adopt::{self, How, absolute, property};
use super::place::{can_be_asked, dataset_above};
use super::{apply, lock};
use crate::candidates;

/// Make a directory that is a dataset, with the properties that fit what it is for
///
/// It is made below the dataset whose mount point is nearest above, never below a system, which would take it along when it
/// goes back. A directory that is there and empty keeps its owner and its mode; one with files is taken over with --adopt.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kdir /srv/photos --for media\n  kdir --for postgres /var/lib/postgresql\n  kdir -p /srv/team/wiki -o quota=20G\n  kdir --adopt --for mail /var/mail\n  kdir --dry-run --for vm /var/lib/libvirt/images\n  kdir --list"
)]
pub(crate) struct Args {
    /// The directory
    #[arg(required_unless_present = "list")]
    path: Option<PathBuf>,
    /// What it is for
    #[arg(
        long = "for",
        value_name = "PURPOSE",
        default_value = "general",
        value_parser = PossibleValuesParser::new(Purpose::names()).try_map(|name| name.parse::<Purpose>())
    )]
    purpose: Purpose,
    /// A property; may be given several times, and goes before those of the purpose
    #[arg(short = 'o', value_name = "PROPERTY=VALUE", value_parser = property)]
    property: Vec<(String, String)>,
    /// Make the directories above it that are missing
    #[arg(long, short)]
    parents: bool,
    /// The dataset to make, when it is to be another
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(candidates::datasets))]
    dataset: Option<String>,
    /// Take over a directory with files: copied, compared, exchanged, and kept until `kldload adopt --confirm`
    #[arg(long)]
    adopt: bool,
    /// With --adopt: stop the services that use the directory, and start them again
    #[arg(long, requires = "adopt")]
    stop_services: bool,
    /// Only show the commands of ZFS; exits with 3
    #[arg(long)]
    dry_run: bool,
    /// With --adopt: do not ask
    #[arg(long, short)]
    yes: bool,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
    /// Say which properties each purpose has, and why
    #[arg(long, conflicts_with_all = ["path", "property", "parents", "dataset", "adopt", "dry_run"])]
    list: bool,
}

/// What is made, as `--json` shows it.
#[derive(Serialize)]
struct Row {
    path: String,
    dataset: String,
    /// Whether files are taken over.
    adopt: bool,
    /// What ZFS is told, in this order.
    commands: Vec<String>,
}

/// Properties that say where it is, which is what the path does.
const OURS: [&str; 2] = ["mountpoint", "canmount"];

/// Makes it.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    if args.list {
        return list(printer, args.json);
    }
    if let Some((name, value)) = args.property.iter().find(|(name, _)| OURS.contains(&name.as_str())) {
        let message = format!("`{name}={value}` cannot be given: the path says where it is mounted");
        return Err(Hinted::new(message, "`zfs create` makes datasets that are mounted elsewhere").into());
    }
    let lock = if args.dry_run { None } else { Some(lock::lock("kldload dir")?) };
    let path = absolute(args.path.as_deref().unwrap_or(Path::new("")))?;
    dataset_above(&path)?.iter().chain(&args.dataset).try_for_each(|dataset| can_be_asked(dataset))?;
    let properties = properties(args.purpose, &args.property);
    let directory = Directory::look(&RealHost, &path, args.dataset.as_deref(), args.parents, args.adopt)?;
    let own = directory.made(&properties);
    let commands: Vec<String> = directory.place.parents.iter().chain([&own]).map(Made::to_string).collect();
    if !args.json && (args.dry_run || printer.verbosity() >= kld_ui::Verbosity::Verbose) {
        printer.data(&commands.join("\n"))?;
    }
    let (dataset, adopt) = (own.dataset.clone(), directory.is_full);
    let row = Row { path: path.clone(), dataset, adopt, commands };
    let end = |exit| {
        if args.json {
            printer.envelope("directory", &[row])?;
        }
        Ok(exit)
    };
    if args.dry_run {
        return end(ExitStatus::Pending);
    }
    if directory.is_full {
        let adopter = Adopter::new(&RealHost);
        apply::recover(printer, kld_engine::Engine::new(&RealHost), adopter)?;
        directory.make_parents(&RealHost)?;
        let how = How { stop_services: args.stop_services, dry_run: false, yes: args.yes, json: args.json };
        let wish = Wish { path, dataset: Some(own.dataset), properties };
        return end(adopt::adopt(printer, adopter, &wish, how)?);
    }
    directory.make(&RealHost, &properties)?;
    drop(lock);
    printer.note(&format!("`{path}` is the dataset `{}`", own.dataset));
    end(ExitStatus::Done)
}

/// Those of the purpose, but for those that somebody has given.
fn properties(purpose: Purpose, given: &[(String, String)]) -> Vec<(String, String)> {
    let is_given = |name: &str| given.iter().any(|(known, _)| known == name);
    let fits = purpose.properties().iter().filter(|(name, _, _)| !is_given(name));
    let fits = fits.map(|(name, value, _)| ((*name).to_owned(), (*value).to_owned()));
    fits.chain(given.iter().cloned()).collect()
}

/// A property of a purpose.
#[derive(Serialize)]
struct Fits {
    purpose: String,
    property: &'static str,
    value: &'static str,
    why: &'static str,
}

fn list(printer: &Printer, json: bool) -> anyhow::Result<ExitStatus> {
    let rows = Purpose::all().into_iter().flat_map(|purpose| {
        let fits = purpose.properties().iter();
        fits.map(move |&(property, value, why)| Fits { purpose: purpose.to_string(), property, value, why })
    });
    let rows: Vec<Fits> = rows.collect();
    if json {
        printer.envelope("purpose", &rows)?;
        return Ok(ExitStatus::Done);
    }
    let mut text = String::new();
    let mut last = "";
    for Fits { purpose, property, value, why } in &rows {
        let shown = if purpose == last { "" } else { purpose };
        let _ = writeln!(text, "{shown:<9} {:<19} {why}", format!("{property}={value}"));
        last = purpose;
    }
    printer.data(&text)?;
    Ok(ExitStatus::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_goes_before_what_fits() {
        let given = [("recordsize".to_owned(), "32k".to_owned()), ("quota".to_owned(), "1G".to_owned())];
        let said: Vec<String> = properties(Purpose::Postgres, &given)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(said, ["compression=lz4", "atime=off", "recordsize=32k", "quota=1G"]);
    }
}
