//! `kldload pool write`.

pub(super) mod request;
pub(super) mod source;
mod target;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use kld_pool::{
    BookmarkSpec, DatasetSpec, Parity, PoolSpec, Redundancy, SnapshotSpec, Summary, Vdev, VdevType, WriteAt,
    write_pool,
};
use kld_ui::{ByteSize, Elapsed, ExitStatus, Hinted, Phases, Printer};
use sha2::{Digest as _, Sha256};

use self::request::{DatasetRequest, Layout, Request};
use self::target::Target;
use super::Bar;

/// Write a pool into image files or onto disks
///
/// An image appears whole or not at all. With `--seed` and SOURCE_DATE_EPOCH the same content gives the same bytes; pools
/// with the same seed must never meet on one machine. Files must not change while they are read: one that does ends it.
///
/// CONTENT is a directory or a tar (as it is, or packed with gzip or zstd; `-` is standard input). With `volsize` or
/// `volblocksize` the dataset is a volume, and CONTENT an image. Several snapshots with content of their own are written
/// oldest first; what they have in common is stored once.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Image file or disk; several, separated by commas, with `--vdev`
    #[arg(long, short, value_name = "FILE[,FILE…]", value_delimiter = ',', required = true)]
    output: Vec<PathBuf>,
    /// What several outputs are to one another
    #[arg(long, value_name = "LAYOUT")]
    vdev: Option<Layout>,
    /// A YAML file that says what is in the pool, instead of the options for that
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vdev", "size", "name", "dataset", "root_property", "ashift", "compatibility", "pool_property", "bootfs", "snapshot", "seed", "file"])]
    spec: Option<PathBuf>,
    /// Size of each output: the size of the disk the pool will live on. Needed for files
    #[arg(long)]
    size: Option<ByteSize>,
    /// Name of the pool
    #[arg(long, value_name = "POOL", required_unless_present = "spec")]
    name: Option<String>,
    /// A dataset below the pool: its content, its snapshots, its properties
    #[arg(long, value_name = "NAME[=CONTENT][,origin=SNAPSHOT][,@SNAPSHOT[=CONTENT]…][,PROPERTY=VALUE…]")]
    dataset: Vec<String>,
    /// Properties of the pool's own dataset, which the others inherit
    #[arg(long, short = 'O', value_name = "PROPERTY=VALUE")]
    root_property: Vec<String>,
    /// log2 of the smallest write, 9 to 16; 12 by default
    #[arg(long)]
    ashift: Option<u8>,
    /// The releases or loaders that must understand the pool, as in zpool-features(7)
    #[arg(long, value_name = "SET")]
    compatibility: Option<String>,
    /// Properties of the pool, as in zpoolprops(7)
    #[arg(long, value_name = "PROPERTY=VALUE")]
    pool_property: Vec<String>,
    /// The dataset to boot from
    #[arg(long, value_name = "NAME")]
    bootfs: Option<String>,
    /// Take a snapshot of every dataset with content
    #[arg(long, value_name = "NAME")]
    snapshot: Option<String>,
    /// GUIDs are made from this text; by default they are random
    #[arg(long)]
    seed: Option<String>,
    /// The pool will be used as files, not on disks
    #[arg(long)]
    file: bool,
    /// Replace files that hold a pool, write over disks that are not empty
    #[arg(long)]
    force: bool,
    /// Threads that read and compress; 0 is one per core
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

const HELP: &str = "Examples:
  kldload pool write --name tank --size 20G --output tank.img \\
    --dataset home=/home,compression=zstd-3
  kldload pool write --name tank --output /dev/sdb,/dev/sdc --vdev mirror \\
    --dataset data=/srv/data,recordsize=1M --snapshot first
  kldload pool write --name rpool --size 8G --output root.img --bootfs ROOT/debian \\
    --dataset ROOT/debian=debian.tar.zst,mountpoint=/,canmount=noauto
  kldload pool write --name tank --size 20G --output tank.img \\
    --dataset home=/home,@monday=/backup/mon,@tuesday=/backup/tue
  kldload pool write --name tank --size 20G --output tank.img \\
    --dataset vm/web=web.raw,volblocksize=16k,volsize=10G
  kldload pool write --name tank --size 20G --output tank.img \\
    --dataset a=/srv/a,@one --dataset b,origin=a@one
  kldload pool write --spec tank.yaml --output tank.img

tank.yaml (paths are relative to it):
  name: tank
  size: 20G
  pool_properties: {autotrim: on}
  properties: {compression: zstd-3}
  datasets:
    - name: home
      content: /home
      properties: {recordsize: 1M}
      snapshots:
        - {name: monday, content: /backup/mon}
        - {name: tuesday, holds: [backup]}
      bookmarks:
        - {name: sent, snapshot: monday}
    - name: vm/web
      content: web.raw
      properties: {volsize: 10G, volblocksize: 16k}";

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let started = Instant::now();
    let request = Request::of(args)?;
    let mut targets: Vec<Target> =
        args.output.iter().map(|path| Target::open(path, args.force)).collect::<Result<_, _>>()?;
    let size = size(&request, &targets)?;

    let phases = Phases::new(printer, 2);
    let phase = phases.start("look at the content");
    let spec = spec(args, &request, size, &targets)?;
    phase.finish();

    let bar = Bar(phases.start_bytes("write the pool"));
    targets.iter_mut().try_for_each(|target| target.prepare(spec.vdevs[0].size))?;
    let summary = {
        let outs: Vec<&dyn WriteAt> = targets.iter_mut().map(Target::out).collect();
        write_pool(&spec, &outs, &bar).with_context(|| format!("cannot write pool `{}`", spec.name))?
    };
    bar.0.finish();
    targets.into_iter().try_for_each(Target::commit)?;
    let outputs: Vec<String> = args.output.iter().map(|path| path.display().to_string()).collect();
    drop(phases);
    printer.note(&format!("{}: pool {}, {}", outputs.join(","), spec.name, figures(&summary, started)));
    Ok(ExitStatus::Done)
}

/// What was written, and how fast.
fn figures(summary: &Summary, started: Instant) -> String {
    let logical: u64 = summary.datasets.iter().map(|dataset| dataset.logical).sum();
    let compressed: u64 = summary.datasets.iter().map(|dataset| dataset.compressed).sum();
    let ratio = logical as f64 / compressed.max(1) as f64;
    let elapsed = started.elapsed();
    format!(
        "{} datasets, {} of files in {} ({ratio:.2}x), {} allocated, {} written in {} ({}/s), guid {}",
        summary.datasets.len(),
        ByteSize(logical),
        ByteSize(compressed),
        ByteSize(summary.allocated),
        ByteSize(summary.written),
        Elapsed(elapsed),
        ByteSize((logical as f64 / elapsed.as_secs_f64().max(0.001)) as u64),
        summary.guid
    )
}

/// What was asked for; by default what every device has.
fn size(request: &Request, targets: &[Target]) -> anyhow::Result<u64> {
    if let Some(size) = request.bytes()? {
        return Ok(size);
    }
    let sizes: Option<Vec<u64>> = targets.iter().map(Target::device_size).collect();
    sizes.and_then(|sizes| sizes.into_iter().min()).ok_or_else(|| {
        let hint = "say how large the disk is that the pool will live on: `--size 20G`";
        Hinted::new("the pool has no size", hint).into()
    })
}

fn spec(args: &Args, request: &Request, size: u64, targets: &[Target]) -> anyhow::Result<PoolSpec> {
    let name = &request.name;
    let pool = name.parse().with_context(|| format!("`{name}` cannot be the name of a pool"))?;
    let mut spec = PoolSpec::new(pool, size, seed(request.seed.as_deref())?);
    spec.ashift = request.ashift.unwrap_or(spec.ashift);
    spec.threads = args.threads;
    spec.created = created()?;
    let compatibility = request.compatibility.iter().map(|set| ("compatibility", set));
    for (name, value) in
        compatibility.chain(request.pool_properties.iter().map(|(name, value)| (name.as_str(), value)))
    {
        spec.properties
            .set(name, value)
            .with_context(|| format!("cannot set a property of pool `{}`", spec.name))?;
    }
    let are_devices = targets.iter().all(|target| target.device_size().is_some());
    if request.file && !are_devices {
        spec.vdev_type = VdevType::File;
    }
    let paths: Vec<String> = if request.file || are_devices {
        let path = |path: &PathBuf| Ok(std::path::absolute(path)?.to_string_lossy().into_owned());
        args.output.iter().map(path).collect::<std::io::Result<_>>()?
    } else if args.output.len() > 1 {
        (1..=args.output.len()).map(|n| format!("/dev/disk/by-partlabel/{name}-{n}")).collect()
    } else {
        spec.vdevs[0].paths.clone()
    };
    spec.vdevs = vdevs(request.vdev, size, paths)?;
    let mut root = DatasetSpec::new(spec.name.root_dataset());
    request.properties.iter().try_for_each(|(name, value)| set(&mut root, name, value))?;
    spec.datasets.push(root);
    let scratch =
        args.output[0].parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.starts_with("/dev"));
    let scratch = scratch.map_or_else(std::env::temp_dir, Path::to_owned);
    for dataset in &request.datasets {
        spec.datasets.push(dataset_spec(name, dataset, &scratch)?);
    }
    if let Some(bootfs) = &request.bootfs {
        spec.bootfs = Some(below(name, bootfs)?);
    }
    Ok(spec)
}

/// One vdev of all devices, or one of each.
fn vdevs(layout: Option<Layout>, size: u64, paths: Vec<String>) -> anyhow::Result<Vec<Vdev>> {
    let one = |redundancy, paths| vec![Vdev { size, paths, redundancy }];
    Ok(match layout {
        None if paths.len() > 1 => {
            let hint = "`--vdev mirror`, `--vdev raidz1` to `raidz3`, or `--vdev stripe`";
            return Err(Hinted::new("it is not said what the outputs are to one another", hint).into());
        }
        None | Some(Layout::Stripe) => paths.into_iter().map(|path| Vdev::disk(size, path)).collect(),
        Some(Layout::Mirror) => one(Redundancy::Mirror, paths),
        Some(Layout::Raidz1) => one(Redundancy::Raidz(Parity::Single), paths),
        Some(Layout::Raidz2) => one(Redundancy::Raidz(Parity::Double), paths),
        Some(Layout::Raidz3) => one(Redundancy::Raidz(Parity::Triple), paths),
    })
}

fn dataset_spec(pool: &str, request: &DatasetRequest, scratch: &Path) -> anyhow::Result<DatasetSpec> {
    let mut dataset = DatasetSpec::new(below(pool, &request.name)?);
    for (name, value) in request.properties.iter().filter(|(name, _)| !source::is_of_volumes(name)) {
        set(&mut dataset, name, value)?;
    }
    dataset.content = match &request.content {
        Some(path) => source::open(request, path, scratch)?,
        None => source::empty(request)?,
    };
    for snapshot in &request.snapshots {
        let content = snapshot.content.as_ref().map(|path| source::open(request, path, scratch));
        dataset.snapshots.push(SnapshotSpec {
            name: snapshot.name.clone(),
            content: content.transpose()?,
            holds: snapshot.holds.clone(),
        });
    }
    let bookmarks = request.bookmarks.iter();
    dataset.bookmarks =
        bookmarks.map(|b| BookmarkSpec { name: b.name.clone(), snapshot: b.snapshot.clone() }).collect();
    if let Some(origin) = &request.origin {
        let full = format!("{pool}/{origin}");
        let origin = full.parse().with_context(|| format!("`{full}` cannot be the name of a snapshot"))?;
        dataset.origin = Some(origin);
    }
    Ok(dataset)
}

fn below(pool: &str, name: &str) -> anyhow::Result<kld_pool::DatasetName> {
    let full = format!("{pool}/{name}");
    full.parse().with_context(|| format!("`{full}` cannot be the name of a dataset"))
}

pub(super) fn set(dataset: &mut DatasetSpec, name: &str, value: &str) -> anyhow::Result<()> {
    dataset
        .properties
        .set(name, value)
        .with_context(|| format!("cannot set a property of `{}`", dataset.name))
}

/// What GUIDs are made from: a text, or else chance.
pub(super) fn seed(text: Option<&str>) -> anyhow::Result<[u8; 32]> {
    use std::io::Read as _;
    if let Some(text) = text {
        return Ok(Sha256::digest(text.as_bytes()).into());
    }
    let mut seed = [0; 32];
    let random = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut seed));
    random.context("cannot read `/dev/urandom`")?;
    Ok(seed)
}

/// Seconds since 1970: SOURCE_DATE_EPOCH, else now.
pub(super) fn created() -> anyhow::Result<u64> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().context("cannot read SOURCE_DATE_EPOCH: it must be seconds since 1970"),
        Err(_) => Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs())),
    }
}
