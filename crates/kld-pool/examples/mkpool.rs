//! Writes a pool image from directories and tars: `mkpool --output F --size N --name POOL DATASET=DIR_OR_TAR…`

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use kld_pool::tree::Tree;
use kld_pool::{DatasetSpec, PoolSpec, SnapshotSpec, VdevType, write_pool};

/// Writes a ZFS pool image from directories and uncompressed tars.
#[derive(Parser)]
struct Args {
    /// The image to make; replaced if it exists.
    #[arg(long)]
    output: PathBuf,
    /// Size of the pool in MiB.
    #[arg(long)]
    size: u64,
    /// Name of the pool.
    #[arg(long)]
    name: String,
    /// Compression of the pool's root dataset, inherited by the others.
    #[arg(long, default_value = "lz4")]
    compression: String,
    /// Further properties of the pool's root dataset, inherited by the others.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// A snapshot to take of every dataset given.
    #[arg(long)]
    snapshot: Option<String>,
    /// Threads that read and compress; 0 is one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// The pool will be used as a file, not on a disk.
    #[arg(long)]
    file: bool,
    /// Datasets with their content.
    #[arg(value_name = "DATASET=DIR_OR_TAR")]
    datasets: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let start = std::time::Instant::now();
    let mut spec = PoolSpec::new(args.name.parse()?, args.size << 20, [42; 32]);
    spec.threads = args.threads;
    if args.file {
        spec.vdev_type = VdevType::File;
        spec.vdevs[0].paths = vec![std::path::absolute(&args.output)?.to_string_lossy().into_owned()];
    }
    let mut root = DatasetSpec::new(spec.name.root_dataset());
    root.properties.set("mountpoint", "none")?;
    root.properties.set("dnodesize", "auto")?;
    root.properties.set("xattr", "sa")?;
    root.properties.set("acltype", "posix")?;
    root.properties.set("compression", &args.compression)?;
    for property in &args.set {
        let (name, value) = property.split_once('=').context("a property is NAME=VALUE")?;
        root.properties.set(name, value)?;
    }
    for dataset in &args.datasets {
        let (name, source) = dataset.split_once('=').context("a dataset is NAME=DIR_OR_TAR")?;
        let tree = if std::path::Path::new(source).is_dir() {
            Tree::from_dir(source)?
        } else {
            Tree::from_tar(source)?
        };
        let mut dataset = if name == args.name { root.clone() } else { DatasetSpec::new(name.parse()?) };
        dataset.content = tree.into();
        dataset.snapshots.extend(args.snapshot.clone().map(SnapshotSpec::from));
        spec.datasets.push(dataset);
    }
    if !spec.datasets.iter().any(|dataset| dataset.name == root.name) {
        spec.datasets.push(root);
    }
    let scanned = start.elapsed();
    let out = std::fs::File::create(&args.output)?;
    out.set_len(args.size << 20)?;
    let summary = write_pool(&spec, &[&out], &())?;
    let total = start.elapsed();
    let mut stdout = std::io::stdout().lock();
    for dataset in &summary.datasets {
        writeln!(
            stdout,
            "{}: {} objects, {} MiB, {} MiB referenced",
            dataset.name,
            dataset.objects,
            dataset.logical >> 20,
            dataset.referenced >> 20
        )?;
    }
    let logical: u64 = summary.datasets.iter().map(|dataset| dataset.logical).sum();
    writeln!(
        stdout,
        "{} MiB of {} allocated, scan {:.2} s, total {:.2} s, {:.0} MiB/s",
        summary.allocated >> 20,
        summary.capacity >> 20,
        scanned.as_secs_f64(),
        total.as_secs_f64(),
        (logical >> 20) as f64 / total.as_secs_f64()
    )?;
    Ok(())
}
