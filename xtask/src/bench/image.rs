//! `cargo xtask bench image`: writing a root tree, our pool beside every other format.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use kld_ui::Printer;

use super::contender::{Measured, measure};
use super::peers::Place;
use super::table::{Markdown, mib, ratio, seconds};
use super::{Args, compile, memory, scratch, tree};

pub(super) fn run(printer: &Printer, root: &Path, args: &Args) -> anyhow::Result<()> {
    let place = prepare(root, args, &["--package", "kld-pool", "--example", "mkpool"])?;
    let mut contenders =
        vec![place.mkpool("pool lz4", "lz4", None), place.mkpool("pool zstd-3", "zstd-3", None)];
    contenders.extend(place.peers());
    let results = measure(printer, &contenders, args.runs)?;
    printer.data(&writers(&results).to_string())?;
    Ok(())
}

/// Compiles, and brings the tree into the page cache.
pub(super) fn prepare(root: &Path, args: &Args, what: &[&str]) -> anyhow::Result<Place> {
    let target = compile(root, what)?;
    let scratch = scratch()?;
    let tree = tree(args, &scratch)?;
    let content = size_of(&tree)?;
    // Half as much again, and room for tables; ext4 wants it, a pool would need less.
    let pool_mib = (content >> 20) * 3 / 2 + 1024;
    let memory = memory()?;
    Ok(Place { target, tree, scratch, memory, pool_mib })
}

/// Bytes of the files below a directory. A file with several names counts each time.
pub(super) fn size_of(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot list `{}`", dir.display()))? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                open.push(entry.path());
            } else if meta.is_file() {
                bytes += meta.len();
            }
        }
    }
    Ok(bytes)
}

/// Times as multiples of the first one's.
pub(super) fn writers(results: &[Measured]) -> Markdown {
    let mut table =
        Markdown::new(&["writer", "seconds", "ratio", "processor seconds", "peak memory", "output"]);
    for r in results {
        table.row([
            r.name.replace('|', "\\|"),
            seconds(r.seconds),
            ratio(r.seconds / results[0].seconds),
            seconds(r.cpu_seconds),
            mib(r.peak_kib << 10),
            mib(r.bytes),
        ]);
    }
    table
}
