//! What is to be written, said by options or by a YAML file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use kld_ui::{ByteSize, Hinted};
use serde::Deserialize;

use super::Args;

/// More than this describes no pool.
const MAX_BYTES: u64 = 16 << 20;

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    pub(super) name: String,
    /// None for a device: its own.
    #[serde(default)]
    pub(super) size: Option<String>,
    #[serde(default)]
    pub(super) vdev: Option<Layout>,
    #[serde(default)]
    pub(super) ashift: Option<u8>,
    #[serde(default)]
    pub(super) compatibility: Option<String>,
    /// Of the pool itself.
    #[serde(default)]
    pub(super) pool_properties: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) bootfs: Option<String>,
    #[serde(default)]
    pub(super) seed: Option<String>,
    #[serde(default)]
    pub(super) file: bool,
    /// Of the pool's own dataset.
    #[serde(default)]
    pub(super) properties: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) datasets: Vec<DatasetRequest>,
}

/// How several devices make up a pool; the words of `zpool create`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Layout {
    /// Their space adds up, and none may fail
    Stripe,
    /// Each holds everything
    Mirror,
    /// One may fail
    #[value(alias = "raidz")]
    #[serde(alias = "raidz")]
    Raidz1,
    /// Two may fail
    Raidz2,
    /// Three may fail
    Raidz3,
}

/// A dataset of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::commands::pool) struct DatasetRequest {
    pub(super) name: String,
    #[serde(default)]
    pub(super) content: Option<PathBuf>,
    /// The snapshot it is a clone of: `ROOT/old@install`.
    #[serde(default)]
    pub(super) origin: Option<String>,
    /// `volsize` and `volblocksize` among them make it a volume.
    #[serde(default)]
    pub(in crate::commands::pool) properties: BTreeMap<String, String>,
    /// Oldest first.
    #[serde(default)]
    pub(super) snapshots: Vec<SnapshotRequest>,
    #[serde(default)]
    pub(super) bookmarks: Vec<BookmarkRequest>,
}

/// A bookmark of it: what it is called, and the snapshot it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BookmarkRequest {
    pub(super) name: String,
    pub(super) snapshot: String,
}

/// A snapshot of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SnapshotRequest {
    pub(super) name: String,
    /// None is what the next younger one has.
    #[serde(default)]
    pub(super) content: Option<PathBuf>,
    /// Tags that keep it from being destroyed.
    #[serde(default)]
    pub(super) holds: Vec<String>,
}

impl DatasetRequest {
    /// A dataset with nothing but properties.
    pub(in crate::commands::pool) fn of(
        name: String,
        properties: BTreeMap<String, String>,
    ) -> DatasetRequest {
        DatasetRequest { name, properties, ..DatasetRequest::default() }
    }
}

impl Request {
    /// What the options say, `--spec` among them.
    pub(super) fn of(args: &Args) -> anyhow::Result<Request> {
        if let Some(path) = &args.spec {
            return read(path);
        }
        Ok(Request {
            name: args.name.clone().unwrap_or_default(),
            size: args.size.map(|size| size.0.to_string()),
            vdev: args.vdev,
            ashift: args.ashift,
            compatibility: args.compatibility.clone(),
            pool_properties: args
                .pool_property
                .iter()
                .map(|text| property(text))
                .collect::<Result<_, _>>()?,
            bootfs: args.bootfs.clone(),
            seed: args.seed.clone(),
            file: args.file,
            properties: args.root_property.iter().map(|text| property(text)).collect::<Result<_, _>>()?,
            datasets: args
                .dataset
                .iter()
                .map(|text| dataset(text, args.snapshot.as_deref()))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Its size in bytes.
    pub(super) fn bytes(&self) -> anyhow::Result<Option<u64>> {
        self.size.as_deref().map(bytes).transpose()
    }
}

/// A number of bytes: `20G`.
pub(super) fn bytes(text: &str) -> anyhow::Result<u64> {
    Ok(text.parse::<ByteSize>()?.0)
}

/// Reads a YAML file; paths in it are relative to it.
fn read(path: &Path) -> anyhow::Result<Request> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{shown}`"))?;
    if text.len() as u64 > MAX_BYTES {
        bail!("`{shown}` is too large to describe a pool");
    }
    let mut request = parse(&text).with_context(|| format!("`{shown}` does not describe a pool"))?;
    let dir = path.parent().unwrap_or(Path::new(""));
    for dataset in &mut request.datasets {
        let snapshots = dataset.snapshots.iter_mut().map(|snapshot| &mut snapshot.content);
        for content in snapshots.chain([&mut dataset.content]).flatten() {
            if content.as_os_str() != "-" {
                *content = dir.join(&*content);
            }
        }
    }
    Ok(request)
}

fn parse(text: &str) -> anyhow::Result<Request> {
    serde_saphyr::from_str(text).map_err(|error| {
        Hinted::new(error.to_string().trim_end().to_owned(), "`kldload pool write --help` shows an example")
            .into()
    })
}

/// `NAME[=CONTENT][,origin=SNAPSHOT][,@SNAPSHOT[=CONTENT]…][,PROPERTY=VALUE…]`.
fn dataset(text: &str, last: Option<&str>) -> anyhow::Result<DatasetRequest> {
    let content = |text: &str| -> (String, Option<PathBuf>) {
        text.split_once('=')
            .map_or((text.to_owned(), None), |(name, path)| (name.to_owned(), Some(path.into())))
    };
    let mut words = text.split(',');
    let (name, source) = content(words.next().unwrap_or_default());
    let mut dataset = DatasetRequest { name, content: source, ..DatasetRequest::default() };
    for word in words {
        match word.strip_prefix('@') {
            Some(snapshot) => {
                let (name, content) = content(snapshot);
                dataset.snapshots.push(SnapshotRequest { name, content, holds: Vec::new() });
            }
            None => match property(word)? {
                (name, value) if name == "origin" => dataset.origin = Some(value),
                property => dataset.properties.extend([property]),
            },
        }
    }
    if let Some(name) = last.filter(|_| dataset.content.is_some()) {
        dataset.snapshots.push(SnapshotRequest { name: name.to_owned(), content: None, holds: Vec::new() });
    }
    Ok(dataset)
}

/// `PROPERTY=VALUE`.
pub(in crate::commands::pool) fn property(text: &str) -> anyhow::Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => bail!("`{text}` is not `property=value`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_yaml_say_the_same() {
        let text = "
name: tank
properties: {compression: zstd-3, atime: off, copies: 2}
datasets:
  - name: home
    content: /home
    properties: {recordsize: 1M, quota: 10G}
    snapshots:
      - {name: monday, content: /mon}
      - name: tuesday
  - name: vm/web
    content: web.raw
    properties: {volsize: 10G, volblocksize: 16k}
  - name: empty
  - name: clone
    origin: home@monday
";
        let yaml = parse(text).unwrap();
        let options = [
            "home=/home,@monday=/mon,@tuesday,recordsize=1M,quota=10G",
            "vm/web=web.raw,volsize=10G,volblocksize=16k",
            "empty",
            "clone,origin=home@monday",
        ];
        let datasets: Vec<_> = options.into_iter().map(|text| dataset(text, None).unwrap()).collect();
        assert_eq!(yaml.datasets, datasets);
        let root: Vec<_> = ["atime=off", "compression=zstd-3", "copies=2"]
            .into_iter()
            .map(|text| property(text).unwrap())
            .collect();
        assert_eq!(yaml.properties.into_iter().collect::<Vec<_>>(), root);
        assert_eq!(dataset("a=/a", Some("last")).unwrap().snapshots[0].name, "last");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, said) in [
            ("name: tank\nsizes: 3", "sizes"),
            ("name: tank\ndatasets: [{name: a, contents: x}]", "contents"),
            ("size: 3G", "name"),
            ("name: [", "name"),
            ("name: tank\nname: tank", "name"),
            ("name: tank\nvdev: raid5", "raid5"),
            ("name: tank\ndatasets: [{name: a, bookmarks: [{name: b}]}]", "snapshot"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(said), "{text}: {error}");
        }
        assert!(dataset("a,compression", None).unwrap_err().to_string().contains("`compression` is not"));
    }
}
