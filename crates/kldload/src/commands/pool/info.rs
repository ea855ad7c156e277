//! `kldload pool info`.

use std::collections::BTreeMap;

use kld_pool::read::{Dataset, DatasetKind, Pool, PropertyValue};
use kld_ui::{ByteSize, ExitStatus, Printer, Table};
use serde::Serialize;

use super::image::Image;

/// Show a pool, its features, its datasets and snapshots
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload pool info webapp.img\n  kldload pool info disk-a.img,disk-b.img --json"
)]
pub(crate) struct Args {
    /// File or device; sides of a mirror are separated by commas
    image: String,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Info {
    name: String,
    guid: String,
    txg: u64,
    missing_devices: usize,
    features: BTreeMap<String, u64>,
    datasets: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    kind: &'static str,
    used: u64,
    referenced: u64,
    created: u64,
    origin: Option<String>,
    encrypted: bool,
    mountpoint: Option<String>,
}

pub(super) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let info = Image::open(&args.image)?.with_pool(look)?;
    if args.json {
        printer.envelope("pool", &[info])?;
        return Ok(ExitStatus::Done);
    }
    let used: Vec<String> = info
        .features
        .iter()
        .filter(|(_, references)| **references > 0)
        .map(|(name, _)| name.split(':').next_back().unwrap_or_default().to_owned())
        .collect();
    let mut text = format!("pool      {}\nguid      {}\ntxg       {}\n", info.name, info.guid, info.txg);
    text.push_str(&format!("features  {} enabled, in use: {}\n\n", info.features.len(), used.join(", ")));
    let mut table = Table::new().left("NAME").left("KIND").right("USED").right("REFER").left("MOUNTPOINT");
    for row in info.datasets {
        let kind = if row.encrypted { format!("{}, encrypted", row.kind) } else { row.kind.to_owned() };
        let (used, referenced) = (ByteSize(row.used).to_string(), ByteSize(row.referenced).to_string());
        table.row([row.name, kind, used, referenced, row.mountpoint.unwrap_or_default()]);
    }
    text.push_str(&table.to_string());
    printer.data(&text)?;
    if info.missing_devices > 0 {
        printer.warning(&format!("the pool has {} more devices, which were not given", info.missing_devices));
    }
    Ok(ExitStatus::Done)
}

fn look(pool: &Pool<'_>) -> anyhow::Result<Info> {
    let row = |dataset: &Dataset| -> anyhow::Result<Row> {
        let properties = pool.dataset_properties(dataset)?;
        let text = |name: &str| match &properties.get(name)?.value {
            PropertyValue::Text(text) => Some(text.clone()),
            PropertyValue::Number(_) => None,
        };
        Ok(Row {
            name: dataset.name.clone(),
            kind: match dataset.kind {
                DatasetKind::Filesystem => "filesystem",
                DatasetKind::Volume => "volume",
                DatasetKind::Snapshot => "snapshot",
                _ => "other",
            },
            used: dataset.space.used,
            referenced: dataset.space.referenced,
            created: dataset.created,
            origin: dataset.origin.clone(),
            encrypted: dataset.encrypted,
            // What is inherited is the ancestor's, for a name below it.
            mountpoint: (dataset.kind == DatasetKind::Filesystem).then(|| text("mountpoint")).flatten(),
        })
    };
    Ok(Info {
        name: pool.name().to_owned(),
        guid: pool.guid().to_string(),
        txg: pool.txg(),
        missing_devices: pool.missing_devices(),
        features: pool.features()?.into_iter().map(|feature| (feature.guid, feature.references)).collect(),
        datasets: pool.datasets()?.iter().map(row).collect::<anyhow::Result<_>>()?,
    })
}
