//! `kldload pool ls`.

use kld_disk::esp::civil_from_days;
use kld_pool::read::{Filesystem, Metadata, Node, NodeKind};
use kld_ui::{ExitStatus, Printer, Table};
use serde::Serialize;

use super::image::Image;
use super::shown;

/// List a directory of a file system or snapshot
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload pool ls webapp.img rpool/ROOT/debian /etc\n  kldload pool ls -l webapp.img rpool/ROOT/debian@install /usr/bin/sudo\n  kldload pool ls --recursive webapp.img rpool/srv/webapp"
)]
pub(crate) struct Args {
    /// File or device; sides of a mirror are separated by commas
    image: String,
    /// File system or snapshot, as `zfs list` names it
    dataset: String,
    /// Path in it
    #[arg(default_value = "/")]
    path: String,
    /// Mode, owner, size and time too
    #[arg(short, long)]
    long: bool,
    /// Everything below, too
    #[arg(short, long)]
    recursive: bool,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

/// A name that is listed.
struct Entry {
    name: String,
    node: Node,
    target: Option<String>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    mode: String,
    uid: u64,
    gid: u64,
    size: u64,
    links: u64,
    modified: i64,
    target: Option<&'a str>,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let entries = Image::open(&args.image)?.with_pool(|pool| {
        let filesystem = pool.filesystem(&args.dataset)?;
        let mut entries = Vec::new();
        list(&filesystem, args, &mut entries)?;
        Ok(entries)
    })?;
    if args.json {
        let rows: Vec<Row<'_>> = entries.iter().map(row).collect();
        printer.envelope("files", &rows)?;
    } else if args.long {
        let mut table =
            Table::new().left("MODE").right("UID").right("GID").right("SIZE").left("MODIFIED").left("NAME");
        for entry in &entries {
            let meta = entry.node.metadata();
            let name = match &entry.target {
                Some(target) => format!("{} -> {target}", entry.name),
                None => entry.name.clone(),
            };
            table.row([mode(meta), meta.uid.to_string(), meta.gid.to_string(), size(meta), time(meta), name]);
        }
        printer.data(&table.to_string())?;
    } else if !entries.is_empty() {
        let names: String = entries.iter().map(|entry| format!("{}\n", entry.name)).collect();
        printer.data(&names)?;
    }
    Ok(ExitStatus::Done)
}

fn list(filesystem: &Filesystem<'_>, args: &Args, entries: &mut Vec<Entry>) -> anyhow::Result<()> {
    let entry = |name: &[u8], node: Node| -> anyhow::Result<Entry> {
        let is_link = node.metadata().kind == NodeKind::Symlink;
        let target = if is_link { Some(shown(&filesystem.read_link(&node)?)) } else { None };
        Ok(Entry { name: shown(name), node, target })
    };
    let top = filesystem.lookup(args.path.as_bytes())?;
    if !top.is_dir() {
        entries.push(entry(args.path.as_bytes(), top)?);
        return Ok(());
    }
    // Directories that are still to be listed, with the path of each below the first.
    let mut open = vec![(Vec::new(), top)];
    while let Some((path, directory)) = open.pop() {
        let mut names = filesystem.read_dir(&directory)?;
        names.sort_by(|a, b| a.name.cmp(&b.name));
        let mut below = Vec::new();
        for found in names {
            let node = filesystem.node(found.object)?;
            let mut name: Vec<u8> = path.clone();
            name.extend_from_slice(&found.name);
            if args.recursive && node.is_dir() {
                let mut path = name.clone();
                path.push(b'/');
                below.push((path, node.clone()));
            }
            entries.push(entry(&name, node)?);
        }
        open.extend(below.into_iter().rev());
    }
    Ok(())
}

fn row(entry: &Entry) -> Row<'_> {
    let meta = entry.node.metadata();
    Row {
        name: &entry.name,
        mode: mode(meta),
        uid: meta.uid,
        gid: meta.gid,
        size: meta.size,
        links: meta.links,
        modified: meta.modified.sec,
        target: entry.target.as_deref(),
    }
}

/// As `ls -l` writes it: `-rwsr-xr-x`.
fn mode(meta: &Metadata) -> String {
    let kind = match meta.kind {
        NodeKind::Directory => 'd',
        NodeKind::File => '-',
        NodeKind::Symlink => 'l',
        NodeKind::CharDevice { .. } => 'c',
        NodeKind::BlockDevice { .. } => 'b',
        NodeKind::Fifo => 'p',
        NodeKind::Socket => 's',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = meta.mode >> shift;
        text.push(if bits & 4 > 0 { 'r' } else { '-' });
        text.push(if bits & 2 > 0 { 'w' } else { '-' });
        text.push(match (meta.mode & special > 0, bits & 1 > 0) {
            (false, true) => 'x',
            (false, false) => '-',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    text
}

/// Bytes, or the numbers of a device.
fn size(meta: &Metadata) -> String {
    match meta.kind {
        NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor } => {
            format!("{major},{minor}")
        }
        _ => meta.size.to_string(),
    }
}

/// In UTC: an image has no time zone.
fn time(meta: &Metadata) -> String {
    let Ok(seconds) = u64::try_from(meta.modified.sec) else { return meta.modified.sec.to_string() };
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let minutes = seconds % 86_400 / 60;
    format!("{year}-{month:02}-{day:02} {:02}:{:02}", minutes / 60, minutes % 60)
}
