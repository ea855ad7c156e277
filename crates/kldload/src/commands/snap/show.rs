//! `ksnap show`.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kld_host::AtomicFile;
use kld_snap::find;
use kld_ui::{ByteSize, ExitStatus, Hinted, Printer, Table};
use rustix::io::Errno;
use serde::Serialize;

use super::{place, snapshots};
use crate::commands::history::utc;

/// Show the versions of one file through time, and bring one of them back
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ksnap show /etc/fstab\n  ksnap show /etc/fstab --restore pre-upgrade\n  ksnap show /srv/app/conf --restore monday --to /tmp/conf.monday"
)]
pub(crate) struct Args {
    /// The file; it need not be there any more, its directory must
    file: PathBuf,
    /// Bring the version of this snapshot back
    #[arg(long, value_name = "NAME")]
    restore: Option<String>,
    /// Put it here, and leave the file as it is
    #[arg(long, requires = "restore", value_name = "PATH")]
    to: Option<PathBuf>,
    /// Only show what would be written where; exits with 3
    #[arg(long, requires = "restore")]
    dry_run: bool,
    /// Do not ask before the file is replaced
    #[arg(long, short)]
    yes: bool,
    /// Print JSON on standard output
    #[arg(long, conflicts_with = "restore")]
    json: bool,
}

/// One version of a file.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Version {
    /// The oldest snapshot that holds it; `None` is the file as it is now.
    snapshot: Option<String>,
    /// How many snapshots in a row hold it.
    snapshots: usize,
    /// When it was written, in seconds since 1970; `None` where there is no such file.
    modified: Option<i64>,
    size: Option<u64>,
}

/// Shows them, or brings one back.
pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let name = args.file.file_name().with_context(|| format!("`{}` is not a file", args.file.display()))?;
    let parent = args.file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = place(parent)?;
    // A link in its last component is a version of its own, and is not followed.
    let file = parent.canonicalize()?.join(name);
    let Some(root) = &place.root else {
        let message =
            format!("`{}` itself is mounted nowhere, and only there its snapshots are seen", place.dataset);
        return Err(Hinted::new(message, format!("`zfs mount {}`", place.dataset)).into());
    };
    let within = place.within.join(name);
    let all = snapshots(std::slice::from_ref(&place.dataset), false)?;
    let old = |snapshot: &str| root.join(".zfs/snapshot").join(snapshot).join(&within);
    if let Some(name) = &args.restore {
        let snapshot = find(&place.dataset, &all, name)?;
        return restore(printer, args, &old(&snapshot.name), &file);
    }
    let (mut versions, mut last_seen) = (Vec::<Version>::new(), None);
    let looks = all.iter().map(|snapshot| (Some(snapshot.name.as_str()), old(&snapshot.name)));
    for (snapshot, path) in looks.chain([(None, file.clone())]) {
        let found = look(&path)?;
        let (modified, size) = (found.map(|found| found.modified.0), found.map(|found| found.size));
        let is_same = last_seen.replace(found) == Some(found);
        match versions.last_mut() {
            Some(last) if is_same && snapshot.is_some() => last.snapshots += 1,
            _ => {
                let (snapshot, snapshots) = (snapshot.map(str::to_owned), usize::from(snapshot.is_some()));
                versions.push(Version { snapshot, snapshots, modified, size });
            }
        }
    }
    if versions.iter().all(|version| version.size.is_none()) {
        let hint = format!("`ksnap list {}` lists the snapshots that were looked at", place.dataset);
        return Err(Hinted::new(format!("no snapshot holds `{}`", file.display()), hint).into());
    }
    if args.json {
        printer.envelope("version", &versions)?;
    } else {
        printer.data(&page(&versions))?;
    }
    Ok(ExitStatus::Done)
}

/// What tells one version from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// Seconds since 1970 and nanoseconds.
    modified: (i64, i64),
    size: u64,
    /// One that was written anew and renamed into place has another number.
    number: u64,
}

/// A file; `None` where there is none.
fn look(path: &Path) -> anyhow::Result<Option<Seen>> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(Seen {
            modified: (meta.mtime(), meta.mtime_nsec()),
            size: meta.len(),
            number: meta.ino(),
        })),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("cannot look at `{}`", path.display())),
    }
}

fn page(versions: &[Version]) -> String {
    let mut table = Table::new().left("SINCE").right("SNAPSHOTS").left("MODIFIED").right("SIZE");
    for version in versions {
        table.row([
            version.snapshot.as_ref().map_or_else(|| "now".to_owned(), |name| format!("@{name}")),
            if version.snapshots == 0 { String::new() } else { version.snapshots.to_string() },
            version.modified.map_or_else(|| "not there".to_owned(), |at| utc(u64::try_from(at).unwrap_or(0))),
            version.size.map(|size| ByteSize(size).to_string()).unwrap_or_default(),
        ]);
    }
    table.to_string()
}

fn restore(printer: &Printer, args: &Args, from: &Path, file: &Path) -> anyhow::Result<ExitStatus> {
    let cannot = || format!("cannot read `{}`", from.display());
    let meta = fs::symlink_metadata(from).with_context(cannot)?;
    if !meta.is_file() {
        let hint = format!("copy it yourself: `cp -a {} …`", from.display());
        return Err(Hinted::new(format!("`{}` is not a regular file", from.display()), hint).into());
    }
    let to = args.to.as_deref().unwrap_or(file);
    if args.dry_run {
        printer.data(&format!("{} → {}", from.display(), to.display()))?;
        return Ok(ExitStatus::Pending);
    }
    if fs::symlink_metadata(to).is_ok() && !printer.confirm(&format!("replace `{}`?", to.display()), args.yes)
    {
        return Err(Hinted::new(
            "nothing was changed: not confirmed",
            "`--yes` does not ask, `--to` puts it elsewhere",
        )
        .into());
    }
    let mut source = fs::File::open(from).with_context(cannot)?;
    let mut new = AtomicFile::create(to, 0o600)?;
    let written = || format!("cannot write `{}`", to.display());
    io::copy(&mut source, new.file()).with_context(written)?;
    fchown(new.file(), Some(meta.uid()), Some(meta.gid())).with_context(written)?;
    copy_attributes(&source, new.file()).with_context(written)?;
    // Giving a file away takes its set-user-id bit.
    new.file().set_permissions(fs::Permissions::from_mode(meta.mode() & 0o7777)).with_context(written)?;
    new.file().set_modified(meta.modified()?).with_context(written)?;
    new.commit()?;
    printer.note(&format!("`{}` is as it was in `{}`", to.display(), from.display()));
    Ok(ExitStatus::Done)
}

/// Extended attributes: access control lists, capabilities, and what people have put there.
fn copy_attributes(from: &fs::File, to: &fs::File) -> io::Result<()> {
    let mut names = Vec::with_capacity(1 << 16);
    // What the file system has none of, there is none of.
    match rustix::fs::flistxattr(from, rustix::buffer::spare_capacity(&mut names)) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        done => done?,
    };
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = Vec::with_capacity(1 << 16);
        rustix::fs::fgetxattr(from, name, rustix::buffer::spare_capacity(&mut value))?;
        rustix::fs::fsetxattr(to, name, &value, rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}
