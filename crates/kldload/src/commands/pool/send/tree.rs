//! `kldload pool send --tree`: a stream of content that is in no pool.

use std::path::Path;

use anyhow::Context as _;
use kld_pool::send::TreeStream;
use kld_pool::{DatasetName, DatasetSpec, PoolSpec, SnapshotSpec};
use kld_ui::Hinted;

use super::Args;
use crate::commands::pool::write::request::{DatasetRequest, property};
use crate::commands::pool::write::{created, seed, set, source};

/// Properties that decide what blocks are like. All others are no part of a stream.
const OF_BLOCKS: [&str; 6] =
    ["checksum", "compression", "dnodesize", "recordsize", "volblocksize", "volsize"];

/// A pool of one dataset, whose snapshots are the trees, oldest first; `name` is that of the last.
pub(super) fn spec(name: &str, newest: &Path, args: &Args) -> anyhow::Result<PoolSpec> {
    /// Nothing but a pool has a size.
    const ANY: u64 = 1 << 30;
    let (dataset, snapshot) = name.split_once('@').ok_or_else(|| {
        let hint = "say what the snapshot is called: `kldload pool send --tree /home tank/home@monday`";
        Hinted::new(format!("`{name}` is not a snapshot"), hint)
    })?;
    let dataset: DatasetName =
        dataset.parse().with_context(|| format!("`{dataset}` cannot be the name of a dataset"))?;
    let properties = args.property.iter().map(|text| property(text)).collect::<Result<_, _>>()?;
    let request = DatasetRequest::of(dataset.to_string(), properties);

    let mut spec = PoolSpec::new(dataset.pool().parse()?, ANY, seed(args.seed.as_deref())?);
    spec.ashift = args.ashift.unwrap_or(spec.ashift);
    spec.created = created()?;
    // Whoever receives it decides what can be received.
    spec.properties.set("compatibility", "openzfs-2.4")?;
    let mut only = DatasetSpec::new(dataset);
    for (name, value) in &request.properties {
        if !OF_BLOCKS.contains(&name.as_str()) {
            let hint = format!("set it where the stream arrives: `zfs receive -o {name}={value}`");
            return Err(Hinted::new(format!("property `{name}` is no part of a stream"), hint).into());
        }
        if !source::is_of_volumes(name) {
            set(&mut only, name, value)?;
        }
    }
    let scratch = std::env::temp_dir();
    // The names of older snapshots are not in the stream.
    let names = (0..).map(|n: u32| n.to_string()).filter(|name| name != snapshot);
    for (content, name) in args.from_tree.iter().zip(names) {
        let content = Some(source::open(&request, content, &scratch)?);
        only.snapshots.push(SnapshotSpec { content, ..name.into() });
    }
    only.content = source::open(&request, newest, &scratch)?;
    only.snapshots.push(snapshot.into());
    spec.datasets.push(only);
    Ok(spec)
}

/// The stream of the last snapshot: what it has more than the one before it, if there is one.
pub(super) fn stream<'s>(spec: &'s PoolSpec, name: &str, args: &Args) -> anyhow::Result<TreeStream<'s>> {
    let snapshots = &spec.datasets[0].snapshots;
    let before = snapshots.len().checked_sub(2).map(|at| super::below(name, &snapshots[at].name));
    Ok(spec.send(name, before.as_deref(), args.options())?)
}
