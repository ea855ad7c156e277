//! Datasets: the system's own, the manifest's, the parents between them, and the cache that mount units are made from.
//!
//! The layout keeps what a rollback of the system must take back (`/usr`, `/etc`, `/boot`, the package database) in the
//! boot environment and everything else out of it. The cache follows zfs-mount-generator(8) of OpenZFS 2.3.

use std::collections::BTreeMap;

use kld_manifest::Span;
use kld_manifest::model::{Dataset, Encryption, Service};
use kld_manifest::names::{DatasetName, PoolName};

use crate::context::Context;
use crate::distro::DistroSpec;
use crate::draft::Draft;
use crate::system::{Because, Created, Item, Layer, MountOwner, SystemDataset, SystemFile};

/// Where zfs-mount-generator(8) reads the datasets of each pool.
pub const MOUNT_CACHE: &str = "/etc/zfs/zfs-list.cache";

/// Columns of a line in `/etc/zfs/zfs-list.cache/POOL` after name, mountpoint and canmount, with the value `zfs list -H`
/// prints when nobody set it; that of `relatime` is the release's. The order is that of zfs-mount-generator(8).
const CACHE_COLUMNS: &[(&str, &str)] = &[
    ("atime", "on"),
    ("relatime", "-"),
    ("devices", "on"),
    ("exec", "on"),
    ("readonly", "off"),
    ("setuid", "on"),
    ("nbmand", "off"),
    ("encroot", "-"),
    ("keylocation", "none"),
    ("org.openzfs.systemd:requires", "-"),
    ("org.openzfs.systemd:requires-mounts-for", "-"),
    ("org.openzfs.systemd:before", "-"),
    ("org.openzfs.systemd:after", "-"),
    ("org.openzfs.systemd:wanted-by", "-"),
    ("org.openzfs.systemd:required-by", "-"),
    ("org.openzfs.systemd:nofail", "-"),
    ("org.openzfs.systemd:ignore", "-"),
];

/// Columns that a dataset does not take over from its parent.
const NOT_INHERITED: &[&str] = &["canmount"];

/// The dataset of the first boot environment.
pub(crate) fn boot_dataset(pool: &PoolName, distro: &DistroSpec) -> DatasetName {
    name(&format!("{pool}/ROOT/{}", distro.id))
}

/// Properties of datasets that hold data and nothing else.
const NO_PROGRAMS: [(&str, &str, &str); 3] = [
    ("devices", "off", "nobody needs a device node here"),
    ("exec", "off", "nothing here is a program"),
    ("setuid", "off", "nothing here may change who runs it"),
];

/// The dataset of kldload's own memory, on every machine that carries kldload.
pub(crate) fn add_memory(pool: &PoolName, draft: &mut Draft) {
    let reason = "what kldload has done is remembered across rollbacks";
    add_fixed(pool, draft, "var/lib/kldload", "/var/lib/kldload", "on", &NO_PROGRAMS, reason);
}

fn add_fixed(
    pool: &PoolName,
    draft: &mut Draft,
    path: &str,
    mount: &str,
    canmount: &str,
    more: &[(&str, &str, &str)],
    reason: &str,
) {
    let full = if path.is_empty() { pool.to_string() } else { format!("{pool}/{path}") };
    let because = Because::always(Layer::Datasets, reason);
    let mut dataset = empty(name(&full), because.clone());
    set(&mut dataset, "mountpoint", mount, because.clone());
    set(&mut dataset, "canmount", canmount, because);
    for (property, value, why) in more {
        set(&mut dataset, property, value, Because::always(Layer::Datasets, *why));
    }
    draft.datasets.insert(dataset.name.clone(), dataset);
}

/// The datasets every machine has.
pub(crate) fn add_system_datasets(pool: &PoolName, distro: &DistroSpec, draft: &mut Draft) {
    let mut add = |path: &str, mount: &str, canmount: &str, more: &[(&str, &str, &str)], reason: &str| {
        add_fixed(pool, draft, path, mount, canmount, more, reason);
    };
    add(
        "",
        "none",
        "off",
        &[
            ("compression", "lz4", "costs less time than it saves in input and output"),
            ("atime", "off", "reading must not cause writing"),
            ("xattr", "sa", "extended attributes in the inode: one read instead of three"),
            ("acltype", "posix", "journald and people use POSIX ACLs"),
            ("dnodesize", "auto", "room in the inode for the attributes"),
        ],
        "the pool itself holds no files, only what its datasets inherit",
    );
    add("ROOT", "none", "off", &[], "boot environments live below it");
    let root = format!("ROOT/{}", distro.id);
    add(
        &root,
        "/",
        "noauto",
        &[],
        "the boot environment: the system and its package database, rolled back as one",
    );
    add("home", "/home", "on", &NO_PROGRAMS[..1], "what people keep survives a rollback of the system");
    add("root", "/root", "on", &[], "root's own files survive a rollback of the system");
    add("srv", "/srv", "off", &[], "each service has a dataset of its own below it");
    add("var", "/var", "off", &[], "only its children leave the boot environment");
    add("var/lib", "/var/lib", "off", &[], "the package database stays in the boot environment");
    add("var/log", "/var/log", "on", &NO_PROGRAMS, "the log of a system that was rolled back is still there");
}

/// The manifest's datasets, and the parents they need.
pub(crate) fn add_manifest_datasets(context: &Context<'_>, draft: &mut Draft) {
    let mut sorted: Vec<_> = context.appliance.datasets.iter().collect();
    sorted.sort_by_key(|d| &d.name.value);
    for wanted in sorted {
        add_parents(&wanted.name.value, wanted.name.span, draft);
        let dataset = manifest_dataset(wanted, context, draft.datasets.get(&wanted.name.value));
        draft.datasets.insert(dataset.name.clone(), dataset);
    }
}

/// Makes the parents that are missing; they hold nothing themselves.
pub(crate) fn add_parents(child: &DatasetName, span: Span, draft: &mut Draft) {
    let mut next = child.parent();
    while let Some(parent) = next {
        next = parent.parent();
        if draft.datasets.contains_key(&parent) {
            continue;
        }
        let because =
            Because::new(Layer::Datasets, span, format!("parent of `{child}`, holds nothing itself"));
        let mut dataset = empty(parent.clone(), because.clone());
        set(&mut dataset, "mountpoint", &format!("/{}", parent.path_in_pool()), because.clone());
        set(&mut dataset, "canmount", "off", because);
        draft.datasets.insert(parent, dataset);
    }
}

fn manifest_dataset(
    wanted: &Dataset,
    context: &Context<'_>,
    existing: Option<&SystemDataset>,
) -> SystemDataset {
    let user =
        context.services.iter().copied().find(|s| s.datasets.iter().any(|d| d.value == wanted.name.value));
    let reason = match user {
        Some(service) => format!("data of {}, apart from everything else", service.unit.value),
        None => "asked for in the manifest".to_owned(),
    };
    let because = Because::new(Layer::Datasets, wanted.name.span, reason);
    // A parent made for a dataset further down is replaced; one of the system's keeps what the manifest does not say.
    let mut dataset = existing
        .filter(|d| !d.because.span.is_written())
        .cloned()
        .unwrap_or_else(|| empty(wanted.name.value.clone(), because.clone()));
    dataset.because = because.clone();
    let (mount, canmount, span) = match &wanted.mountpoint {
        Some(path) => (path.value.as_str(), "on", path.span),
        None => ("none", "off", wanted.name.span),
    };
    let mount_reason = if wanted.mountpoint.is_some() { "where its files are" } else { "it is not mounted" };
    let because_mount = Because::new(Layer::Datasets, span, mount_reason);
    set(&mut dataset, "mountpoint", mount, because_mount.clone());
    set(&mut dataset, "canmount", canmount, because_mount);
    for property in &wanted.properties {
        let because = Because::new(Layer::Datasets, property.span, property_reason(&property.name));
        set(&mut dataset, &property.name, &property.value, because);
    }
    if let Some(encryption) = &wanted.encryption {
        dataset.created = Created::OnNode(algorithm(encryption.value));
    }
    dataset.owner = user.and_then(mount_owner);
    dataset
}

/// The name ZFS has for the algorithm.
pub(crate) fn algorithm(encryption: Encryption) -> &'static str {
    match encryption {
        Encryption::Aes256Gcm => "aes-256-gcm",
        Encryption::Aes128Gcm => "aes-128-gcm",
    }
}

/// A service of the manifest owns its dataset; one that a package brings has its directories made by the package.
fn mount_owner(service: &Service) -> Option<MountOwner> {
    service.command.as_ref()?;
    let (user, _) = super::services::account(service)?;
    Some(MountOwner { group: user.clone(), user, mode: 0o750 })
}

fn property_reason(property: &str) -> &'static str {
    match property {
        "recordsize" | "volblocksize" => "the block size fits how the data is read and written",
        "compression" => "the compression fits the kind of data",
        "atime" | "relatime" => "whether reading causes writing",
        "quota" | "refquota" => "one service cannot fill the pool",
        "reservation" | "refreservation" => "the others cannot take its space",
        "logbias" => "latency or throughput for synchronous writes",
        "primarycache" | "secondarycache" => "what is worth memory",
        "copies" => "further copies of each block",
        "exec" | "setuid" | "devices" | "readonly" => "what files on it may do",
        _ => "asked for in the manifest",
    }
}

fn empty(name: DatasetName, because: Because) -> SystemDataset {
    SystemDataset { name, properties: Vec::new(), created: Created::InImage, owner: None, because }
}

/// Sets a property, in name order.
pub(crate) fn set(dataset: &mut SystemDataset, property: &str, value: &str, because: Because) {
    let item = Item::new((property.to_owned(), value.to_owned()), because);
    match dataset.properties.binary_search_by(|p| p.value.0.as_str().cmp(property)) {
        Ok(at) => dataset.properties[at] = item,
        Err(at) => dataset.properties.insert(at, item),
    }
}

/// A dataset name made of valid parts.
pub(crate) fn name(text: &str) -> DatasetName {
    text.parse().expect("a pool name with parts that the layers state is a dataset name")
}

/// The file of a pool's datasets in [`MOUNT_CACHE`].
pub fn mount_cache_path(pool: &str) -> String {
    format!("{MOUNT_CACHE}/{pool}")
}

/// What `zfs list -H -o` is asked for a line of that file.
pub fn mount_cache_columns() -> String {
    let columns = CACHE_COLUMNS.iter().map(|(column, _)| *column);
    ["name", "mountpoint", "canmount"].into_iter().chain(columns).collect::<Vec<_>>().join(",")
}

/// `/etc/zfs/zfs-list.cache/POOL`: the mount generator reads it before the pool can be asked, the event daemon keeps it.
pub(crate) fn mount_cache(
    pool: &PoolName,
    distro: &DistroSpec,
    datasets: &BTreeMap<DatasetName, SystemDataset>,
) -> SystemFile {
    let mut lines: Vec<String> =
        datasets.values().map(|dataset| cache_line(dataset, distro, datasets)).collect();
    lines.sort();
    let because = Because::always(
        Layer::Datasets,
        "every dataset gets a mount unit, so that services can wait for their own",
    );
    SystemFile::text(mount_cache_path(pool.as_str()), lines.concat(), because)
}

fn cache_line(
    dataset: &SystemDataset,
    distro: &DistroSpec,
    all: &BTreeMap<DatasetName, SystemDataset>,
) -> String {
    let own = |property: &str| dataset.property(property).unwrap_or("-");
    let mut columns = vec![dataset.name.as_str(), own("mountpoint"), own("canmount")];
    for (column, default) in CACHE_COLUMNS {
        columns.push(match *column {
            "encroot" => encryption_root(dataset, all).map_or(*default, |root| root.name.as_str()),
            // Only the root of an encrypted tree has a location of its own.
            "keylocation" => dataset.property("keylocation").unwrap_or(default),
            "relatime" => effective(dataset, column, all).unwrap_or(&distro.relatime),
            _ => effective(dataset, column, all).unwrap_or(default),
        });
    }
    columns.join("\t") + "\n"
}

/// The dataset whose key this one uses.
pub(crate) fn encryption_root<'a>(
    dataset: &'a SystemDataset,
    all: &'a BTreeMap<DatasetName, SystemDataset>,
) -> Option<&'a SystemDataset> {
    lineage(dataset, all).find(|d| d.property("keylocation").is_some())
}

fn effective<'a>(
    dataset: &'a SystemDataset,
    property: &str,
    all: &'a BTreeMap<DatasetName, SystemDataset>,
) -> Option<&'a str> {
    let own = dataset.property(property);
    if NOT_INHERITED.contains(&property) {
        own
    } else {
        lineage(dataset, all).find_map(|d| d.property(property))
    }
}

/// A dataset and those it is inside of, nearest first.
pub(crate) fn lineage<'a>(
    dataset: &'a SystemDataset,
    all: &'a BTreeMap<DatasetName, SystemDataset>,
) -> impl Iterator<Item = &'a SystemDataset> {
    std::iter::successors(Some(dataset), |d| d.name.parent().and_then(|parent| all.get(&parent)))
}
