//! `kldload adopt`.

use std::path::{Path, PathBuf};

use kld_engine::{Adopter, Adoption, Difference, Mended, Prospect, RealHost, Stage, Watch, Wish};
use kld_ui::{ByteSize, ExitStatus, Hinted, Printer, Table};
use serde::Serialize;

use super::apply::{self, who};
use super::asked::asked;
use super::history::utc;
use super::lock;
use crate::manifest::ManifestFile;
use crate::signals;

/// Make a dataset of a directory that is there, with everything in it
///
/// Copies it into a new dataset, compares every name and every byte, lets the two change places in one instant, and keeps the
/// directory beside it, as `.NAME.before-adopt-000001`, until `--confirm` removes it or `--undo` brings it back. Nobody may use
/// the directory meanwhile; what is changed in it all the same is found, and everything is as it was. So it is after Ctrl-C; a
/// terminal that goes away ends nothing. Killed or without power at any moment, the next start, the next `kldload adopt` or
/// `kldload recover` finishes it or goes back.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload adopt --dry-run /srv/app\n  kldload adopt /srv/app -o recordsize=16k -o compression=zstd\n  kldload adopt --stop-services --manifest appliance.manifest /srv/app\n  kldload adopt --dataset rpool/data/photos /home/photos\n  kldload adopt --list\n  kldload adopt --confirm /srv/app\n  kldload adopt --undo /srv/app"
)]
#[command(group(clap::ArgGroup::new("verb").args(["confirm", "undo", "list"])))]
pub(crate) struct Args {
    /// The directory
    #[arg(required_unless_present = "list", conflicts_with = "list")]
    path: Option<PathBuf>,
    /// The dataset to make; without it, the one below the dataset of the directory above
    #[arg(long, value_name = "NAME", conflicts_with = "verb")]
    dataset: Option<String>,
    /// A property of the dataset; may be given several times
    #[arg(short = 'o', value_name = "PROPERTY=VALUE", value_parser = property, conflicts_with = "verb")]
    property: Vec<(String, String)>,
    /// Take the dataset and its properties from this manifest
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dataset", "property", "verb"])]
    manifest: Option<PathBuf>,
    /// Stop the services that use the directory, and start them again
    #[arg(long, conflicts_with_all = ["confirm", "list"])]
    stop_services: bool,
    /// Remove the directory that was kept
    #[arg(long)]
    confirm: bool,
    /// Bring the directory back; what was written since stays in the dataset, under another name
    #[arg(long)]
    undo: bool,
    /// Show what was adopted, and what waits to be confirmed
    #[arg(long)]
    list: bool,
    /// Print JSON on standard output
    #[arg(long, requires = "list")]
    json: bool,
    /// Only show what would be done; exits with 3 when it could be
    #[arg(long, conflicts_with = "list")]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// `recordsize=16k`.
pub(crate) fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as `recordsize=16k`".to_owned()),
    }
}

/// Does what was asked for.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let adopter = Adopter::new(&RealHost);
    if args.list {
        return list(printer, adopter, args.json);
    }
    let _lock = lock::lock("kldload adopt")?;
    if !args.dry_run {
        apply::recover(printer, apply::engine(), adopter)?;
    }
    let path = absolute(args.path.as_deref().unwrap_or(Path::new("")))?;
    if args.confirm {
        confirm(printer, adopter, &path, args)
    } else if args.undo {
        take_back(printer, adopter, &path, args)
    } else {
        let wish = match &args.manifest {
            Some(file) => from_manifest(printer, file, path)?,
            None => Wish { path, dataset: args.dataset.clone(), properties: args.property.clone() },
        };
        let how =
            How { stop_services: args.stop_services, dry_run: args.dry_run, yes: args.yes, json: false };
        adopt(printer, adopter, &wish, how)
    }
}

/// How a directory is adopted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    pub(crate) stop_services: bool,
    pub(crate) dry_run: bool,
    pub(crate) yes: bool,
    /// Standard output is for whoever calls it.
    pub(crate) json: bool,
}

/// As a person writes it: relative, or with a `/` at its end.
pub(crate) fn absolute(path: &Path) -> anyhow::Result<String> {
    let path = std::path::absolute(path)?;
    let path: PathBuf = path.components().collect();
    let text = path.into_os_string().into_string().map_err(|path| {
        let hint = "a mount point is text; rename the directory first";
        Hinted::new(format!("`{}` is not text", path.display()), hint)
    })?;
    Ok(text)
}

/// Who has become root, by sudo(8) or pkexec(1).
fn person() -> Option<u32> {
    ["SUDO_UID", "PKEXEC_UID"].iter().find_map(|name| std::env::var(name).ok()?.parse().ok())
}

/// Shows, asks, adopts; whoever calls it has the machine's lock.
pub(crate) fn adopt(
    printer: &Printer,
    adopter: Adopter<'_>,
    wish: &Wish,
    how: How,
) -> anyhow::Result<ExitStatus> {
    let adopter = adopter.on_behalf_of(person());
    let prospect = adopter.look(wish)?;
    let said = describe(&prospect, how.stop_services);
    if how.json {
        printer.note(said.trim_end());
    } else {
        printer.data(&said)?;
    }
    if how.dry_run {
        return Ok(ExitStatus::Pending);
    }
    asked(printer, "adopt it?", how.yes)?;
    let stop = signals::stop(printer)?;
    let adoption =
        adopter.unless(&stop).adopt(&prospect, &who(), how.stop_services, &mut Said { printer })?;
    let Adoption { path, dataset, aside, .. } = &adoption;
    printer.note(&format!("`{path}` is the dataset `{dataset}` now; the directory is kept as `{aside}`"));
    printer.note(&format!(
        "`kldload adopt --confirm {path}` removes it, `kldload adopt --undo {path}` brings it back"
    ));
    Ok(ExitStatus::Done)
}

/// The manifest's dataset with this mount point.
fn from_manifest(printer: &Printer, file: &Path, path: String) -> anyhow::Result<Wish> {
    let system = ManifestFile::read(file)?.system(printer)?;
    let Some(dataset) = system.datasets.iter().find(|dataset| dataset.mounted_at() == Some(&path)) else {
        let message = format!("no dataset of `{}` is mounted on `{path}`", file.display());
        return Err(Hinted::new(message, "`zfs_layout:` names datasets and their mount points").into());
    };
    if dataset.created != kld_system::Created::InImage {
        let message = format!("`{}` is encrypted, and its key is born on the machine", dataset.name);
        let hint =
            format!("`mv {path} {path}.old`, `kldload apply` the manifest, and copy them into the dataset");
        return Err(Hinted::new(message, hint).into());
    }
    let properties = dataset.properties.iter().map(|item| item.value.clone());
    let properties = properties.filter(|(name, _)| name != "mountpoint" && name != "canmount").collect();
    Ok(Wish { path, dataset: Some(dataset.name.to_string()), properties })
}

fn describe(prospect: &Prospect, stop: bool) -> String {
    let Prospect { path, dataset, survey, available, users, properties } = prospect;
    let mut lines = vec![
        format!("{path} becomes the dataset {dataset}"),
        format!(
            "  copied     {} files and directories, {}; {} are free",
            survey.entries,
            ByteSize(survey.bytes),
            ByteSize(*available)
        ),
    ];
    if !properties.is_empty() {
        let shown: Vec<String> = properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
        lines.push(format!("  with       {}", shown.join(" ")));
    }
    lines.push("  kept       the directory, beside it, until `kldload adopt --confirm`".to_owned());
    for user in users {
        let then = if stop && user.unit.is_some() { ": stopped meanwhile" } else { ": in the way" };
        lines.push(format!("  in use     {user}{then}"));
    }
    lines.join("\n")
}

fn confirm(printer: &Printer, adopter: Adopter<'_>, path: &str, args: &Args) -> anyhow::Result<ExitStatus> {
    let (adoption, survey) = adopter.look_at_kept(path)?;
    printer.data(&format!(
        "{} is removed: {} files and directories, {} (less what snapshots hold)\n{path} stays the dataset {}",
        adoption.aside,
        survey.entries,
        ByteSize(survey.bytes),
        adoption.dataset
    ))?;
    if args.dry_run {
        return Ok(ExitStatus::Pending);
    }
    asked(printer, "remove it?", args.yes)?;
    adopter.confirm(path)?;
    printer.note(&format!("`{}` is removed", adoption.aside));
    Ok(ExitStatus::Done)
}

fn take_back(printer: &Printer, adopter: Adopter<'_>, path: &str, args: &Args) -> anyhow::Result<ExitStatus> {
    let back = adopter.look_back(path)?;
    let Adoption { dataset, aside, number, .. } = &back.adoption;
    let mut lines = vec![format!("{path} becomes the directory again that is kept as {aside}")];
    if back.is_changed {
        lines.push(format!("  written since, and kept in {dataset}.undone-adopt-{number:06}"));
        let mut paths: Vec<&str> =
            back.differences.iter().map(|Difference { path, .. }| path.as_str()).collect();
        paths.dedup();
        lines.extend(paths.iter().map(|path| format!("    {path}")));
    } else {
        lines.push(format!("  nothing was written since: {dataset} is destroyed"));
    }
    for user in &back.users {
        lines.push(format!("  in use     {user}"));
    }
    printer.data(&lines.join("\n"))?;
    if args.dry_run {
        return Ok(ExitStatus::Pending);
    }
    asked(printer, "bring it back?", args.yes)?;
    let stop = signals::stop(printer)?;
    let left = adopter.unless(&stop).take_back(path, args.stop_services, &mut Said { printer })?;
    printer.note(&format!("`{path}` is the directory again"));
    for left in left {
        printer.note(&format!("left: `{left}`"));
    }
    Ok(ExitStatus::Done)
}

/// An adoption as `--list --json` shows it.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    adoption: Adoption,
    stage: Stage,
}

fn list(printer: &Printer, adopter: Adopter<'_>, json: bool) -> anyhow::Result<ExitStatus> {
    let all: Vec<Listed> =
        adopter.all()?.into_iter().map(|(adoption, stage)| Listed { adoption, stage }).collect();
    if json {
        printer.envelope("adoption", &all)?;
        return Ok(ExitStatus::Done);
    }
    if all.is_empty() {
        printer.note("nothing was adopted on this machine yet");
        return Ok(ExitStatus::Done);
    }
    let mut table =
        Table::new().left("PATH").left("DATASET").left("STATE").left("WHEN").left("BY").left("KEPT");
    for Listed { adoption, stage } in all {
        let state = match stage {
            Stage::Interrupted => "interrupted",
            Stage::Unconfirmed => "unconfirmed",
            Stage::Freeing => "being removed",
            Stage::Confirmed => "confirmed",
            Stage::TakenBack => "taken back",
        };
        let is_kept = matches!(stage, Stage::Interrupted | Stage::Unconfirmed | Stage::Freeing);
        let kept = if is_kept { adoption.aside.as_str() } else { "-" };
        let when = utc(adoption.at);
        table.row([&adoption.path, &adoption.dataset, state, &when, &adoption.by, kept]);
    }
    printer.data(&table.to_string())?;
    Ok(ExitStatus::Done)
}

/// Brings interrupted adoptions to an end; whether there was one.
pub(crate) fn recover(printer: &Printer, adopter: Adopter<'_>) -> anyhow::Result<bool> {
    let (mended, all) = adopter.recover(&mut Said { printer });
    for Mended { adoption, forward, left } in &mended {
        let now = if *forward {
            format!(
                "it is the dataset `{}`, and the directory is kept as `{}`",
                adoption.dataset, adoption.aside
            )
        } else {
            "it is as it was before".to_owned()
        };
        printer.note(&format!("the adoption of `{}` was interrupted: {now}", adoption.path));
        for left in left {
            printer.note(&format!("left: `{left}`"));
        }
    }
    all?;
    Ok(!mended.is_empty())
}

struct Said<'a> {
    printer: &'a Printer,
}

impl Watch for Said<'_> {
    fn doing(&mut self, what: &str) {
        self.printer.note(what);
    }

    fn warn(&mut self, what: &str) {
        self.printer.warning(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_as_people_write_them() {
        for (given, want) in [("/srv/app/", "/srv/app"), ("/srv//app/.", "/srv/app"), ("/", "/")] {
            assert_eq!(absolute(Path::new(given)).expect("text"), want);
        }
        assert!(absolute(Path::new("app")).expect("text").ends_with("/app"));
    }

    #[test]
    fn properties_have_a_name_and_a_value() {
        assert_eq!(property("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(property("atime").is_err() && property("=x").is_err());
    }
}
