//! Lists what is in a pool image: `lspool IMAGE… [--files DATASET]`; finds the pool in whole disks, too.

use std::fs::File;
use std::io::Write;

use anyhow::Context;
use clap::Parser;
use kld_pool::read::{NodeKind, Piece, Pool, diff};
use kld_pool::{ReadAt, Region};

/// Lists datasets, properties and files of a pool on images of disks or partitions.
#[derive(Parser)]
struct Args {
    /// Images: partitions, or disks with the pool in a partition that starts at a whole mebibyte.
    images: Vec<std::path::PathBuf>,
    /// List the files of this dataset.
    #[arg(long)]
    files: Option<String>,
    /// List what changed since this snapshot; with `--files`.
    #[arg(long)]
    since: Option<String>,
    /// Check everything.
    #[arg(long)]
    verify: bool,
    /// Read the files too.
    #[arg(long)]
    read: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let files: Vec<File> = args.images.iter().map(File::open).collect::<Result<_, _>>()?;
    let regions: Vec<Region> = files.iter().map(find_pool).collect::<anyhow::Result<_>>()?;
    let devices: Vec<&dyn ReadAt> = regions.iter().map(|region| region as &dyn ReadAt).collect();
    let pool = Pool::open(&devices)?;
    writeln!(out, "pool {} guid {} txg {}", pool.name(), pool.guid(), pool.txg())?;
    writeln!(out, "properties {:?}", pool.properties()?)?;
    for feature in pool.features()?.iter().filter(|feature| feature.references > 0) {
        writeln!(out, "  {} {}", feature.guid, feature.references)?;
    }
    for dataset in pool.datasets()? {
        writeln!(out, "{} {:?} {:?} origin {:?}", dataset.name, dataset.kind, dataset.space, dataset.origin)?;
        for (name, property) in pool.dataset_properties(&dataset)? {
            writeln!(out, "  {name} = {:?} ({:?})", property.value, property.source)?;
        }
    }
    if args.verify {
        let start = std::time::Instant::now();
        let report = kld_pool::verify::verify(&pool, &());
        report.findings.iter().try_for_each(|finding| writeln!(out, "{:?}: {finding}", finding.kind))?;
        writeln!(out, "not checked: {:?}", report.not_checked)?;
        let (blocks, copies, mib) = (report.blocks, report.copies, report.bytes >> 20);
        let (used, seconds) = (&report.used, start.elapsed().as_secs_f64());
        writeln!(out, "{blocks} blocks, {copies} copies, {mib} MiB read, used {used:?}, {seconds:.2} s")?;
    }
    if let Some(name) = &args.files {
        let filesystem = pool.filesystem(name)?;
        if let Some(since) = &args.since {
            for difference in diff(&pool.filesystem(since)?, &filesystem)? {
                writeln!(out, "{difference}")?;
            }
            return Ok(());
        }
        let (mut names, mut bytes) = (0u64, 0u64);
        for entry in filesystem.walk() {
            let entry = entry?;
            names += 1;
            let metadata = entry.node.metadata();
            let path = String::from_utf8_lossy(&entry.path);
            if args.read {
                filesystem.xattrs(&entry.node).with_context(|| path.clone().into_owned())?;
                match metadata.kind {
                    NodeKind::File => {
                        bytes += metadata.size;
                        filesystem
                            .read_pieces(&entry.node, 0, &mut |piece| match piece {
                                Piece::Unreadable { error, .. } => Err(error),
                                _ => Ok(()),
                            })
                            .with_context(|| path.clone().into_owned())?;
                    }
                    NodeKind::Symlink => drop(filesystem.read_link(&entry.node)?),
                    _ => {}
                }
            } else {
                let (mode, uid, size) = (metadata.mode, metadata.uid, metadata.size);
                writeln!(out, "{:?} {mode:o} {uid} {size} {path}", metadata.kind)?;
            }
        }
        writeln!(out, "{names} names, {bytes} bytes, {} healed", pool.healed())?;
    }
    Ok(())
}

/// The pool's partition: the first whole mebibyte that starts with a label's configuration, up to the end of the partition
/// that the partition table gives, or else of the image.
fn find_pool(file: &File) -> anyhow::Result<Region<'_>> {
    const MIB: u64 = 1 << 20;
    const ENTRIES_AT: u64 = 1024;
    let size = file.size()?;
    let has_label = |start: u64| {
        let mut head = [0; 4];
        file.read_at(&mut head, start + (16 << 10)).is_ok() && head == [1, 1, 0, 0]
    };
    if has_label(0) {
        return Ok(Region { file, start: 0, len: size });
    }
    for entry in 0..128 {
        let mut bytes = [0; 128];
        file.read_at(&mut bytes, ENTRIES_AT + entry * 128)?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let (start, last) = (word(32).saturating_mul(512), word(40).saturating_add(1).saturating_mul(512));
        if start > 0 && last <= size && start < last && has_label(start) {
            return Ok(Region { file, start, len: last - start });
        }
    }
    let start = (1..size / MIB).map(|mib| mib * MIB).find(|start| has_label(*start));
    let start = start.context("no pool in the image")?;
    Ok(Region { file, start, len: size - start })
}
