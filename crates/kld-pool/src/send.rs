//! Send streams: a snapshot, or what changed from one to another, as `zfs send` writes it and `zfs receive` takes it.
//!
//! A stream is made from a pool that is open for reading, ours or a kernel's, byte for byte as the kernel's `zfs send`
//! makes it with the same options.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use kld_pool::read::Pool;
//! use kld_pool::send::{SendOptions, check};
//!
//! let image = std::fs::File::open("tank.img")?;
//! let pool = Pool::open(&[&image])?;
//! let options = SendOptions { compressed: true, ..SendOptions::default() };
//! let stream = pool.send("tank/home@monday", Some("tank/home@sunday"), options)?;
//! stream.write_to(&mut std::fs::File::create("monday.zstream")?)?;
//!
//! // Everything arrived as it was sent.
//! check(std::fs::File::open("monday.zstream")?)?;
//! # Ok(())
//! # }
//! ```
//!
//! [`PoolSpec::send`](crate::PoolSpec::send) makes the same bytes of directories and tars, without a pool in between.
//!
//! The order of things: `walk` goes over the snapshot by the births of its blocks, `output` reads the blocks and makes
//! records of them, `record` is their form. [`StreamReader`] takes a stream apart again and trusts nothing in it.
//!
//! Limits: snapshots only; no encrypted and no redacted datasets; no packages of several streams (`zfs send -R`), no
//! properties (`-p`).

mod begin;
mod error;
mod ordered;
mod output;
mod reader;
mod record;
mod spans;
mod stream;
mod token;
mod tree;
mod walk;

use std::io::{self, Write};

pub use error::SendError;
#[cfg(any(test, fuzzing))]
pub(crate) use reader::check_unverified;
pub use reader::{StreamReader, check};
pub use stream::{Record, StreamBlock, StreamError, StreamFeature, StreamInfo};
pub use token::{ResumeToken, TokenError};
pub use tree::TreeStream;

use crate::read::dataset::{Dataset, DatasetKind};
use crate::read::objset::{ObjectSet, SetKind};
use crate::read::zap::Zap;
use crate::read::{Pool, ReadError};
use begin::Begin;
use output::Output;
use walk::{Start, Walk};

/// What a receiver must be able to take; `zfs send` has the same letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// `-c`: compressed blocks stay compressed.
    pub compressed: bool,
    /// `-L`: blocks larger than 128 KiB stay whole.
    pub large_blocks: bool,
    /// `-e`: blocks that are embedded in their pointers stay so.
    pub embedded: bool,
}

/// A stream that can be written.
#[derive(Debug)]
pub struct Stream<'a> {
    set: ObjectSet<'a>,
    to: Dataset,
    from: Option<Base>,
    form: Form,
    features: u64,
    start: Option<ResumePoint>,
}

/// The older snapshot of a difference.
#[derive(Clone, Copy, Debug)]
struct Base {
    guid: u64,
    created_txg: u64,
    /// It belongs to the dataset that the newer one is a clone of.
    origin: bool,
}

/// Where a receiver wants to go on.
#[derive(Clone, Copy, Debug)]
struct ResumePoint {
    start: Start,
    /// Byte in the object, as the receiver said it.
    offset: u64,
}

/// How blocks are sent.
#[derive(Clone, Copy, Debug)]
struct Form {
    compressed: bool,
    large_blocks: bool,
    embedded: bool,
    lz4: bool,
    zstd: bool,
}

/// Objects that every file system and every volume has.
const MASTER_NODE: u64 = 1;
/// `DS_FLAG_CI_DATASET` of a dataset.
const DATASET_CASE_INSENSITIVE: u64 = 1 << 16;

impl<'a> Pool<'a> {
    /// The stream of the snapshot `to`: all of it, or what changed since `from`, an earlier snapshot of the same dataset or
    /// of one it is a clone of. Both are full names.
    pub fn send(&self, to: &str, from: Option<&str>, options: SendOptions) -> Result<Stream<'a>, SendError> {
        let datasets = self.datasets()?;
        let find = |name: &str| {
            let found = datasets.iter().find(|dataset| dataset.name == name).cloned();
            found.ok_or_else(|| ReadError::NoDataset { name: name.to_owned() })
        };
        self.stream(find(to)?, from.map(find).transpose()?, options)
    }

    /// The rest of a stream that was not received to its end, as the receiver's token asks for it.
    pub fn resume(&self, token: &ResumeToken) -> Result<Stream<'a>, SendError> {
        let datasets = self.datasets()?;
        // A snapshot that was received in the same pool has the same GUID: the name decides, then the dataset.
        let find = |guid: u64, dataset: &str| {
            let found = datasets
                .iter()
                .filter(|found| found.kind == DatasetKind::Snapshot && found.guid == guid)
                .max_by_key(|found| (found.name == token.name, dataset_of(&found.name) == dataset));
            found.cloned().ok_or_else(|| SendError::NoSuchGuid { guid, name: token.name.clone() })
        };
        let to = find(token.to_guid, dataset_of(&token.name))?;
        let from = token.from_guid.map(|guid| find(guid, dataset_of(&to.name))).transpose()?;
        let mut stream = self.stream(to, from, token.options)?;
        let missing = || SendError::NoSuchObject { object: token.object, name: stream.to.name.clone() };
        let dnode = stream.set.find(token.object)?.ok_or_else(missing)?;
        let start = Start { object: token.object, block: token.offset / dnode.block_size };
        stream.start = Some(ResumePoint { start, offset: token.offset });
        stream.features |= StreamFeature::Resuming.bit();
        Ok(stream)
    }

    fn stream(
        &self,
        to: Dataset,
        from: Option<Dataset>,
        options: SendOptions,
    ) -> Result<Stream<'a>, SendError> {
        for snapshot in [Some(&to), from.as_ref()].into_iter().flatten() {
            if snapshot.kind != DatasetKind::Snapshot {
                return Err(SendError::NotASnapshot { name: snapshot.name.clone() });
            }
        }
        if to.encrypted {
            return Err(ReadError::Encrypted { dataset: to.name }.into());
        }
        let from = from.map(|from| self.earlier(&from, &to)).transpose()?;
        let missing = || ReadError::damaged(format!("`{}`", to.name), "it has no objects");
        let set = ObjectSet::open(self.blocks.clone(), &to.phys.pointer()?)?.ok_or_else(missing)?;
        if !matches!(set.kind, SetKind::Filesystem | SetKind::Volume) {
            return Err(SendError::NotSupported { name: to.name, what: "its kind" });
        }
        let (form, features) = self.form(&to, &set, options)?;
        Ok(Stream { set, to, from, form, features, start: None })
    }

    /// `from` as a place to start from, if `to` descends from it.
    fn earlier(&self, from: &Dataset, to: &Dataset) -> Result<Base, SendError> {
        let mut older = to.phys;
        // Each one is older than the one before, so that this ends.
        while older.previous != from.object {
            let before = match older.previous {
                0 => None,
                previous => Some(self.dataset_phys(previous)?),
            };
            older = match before {
                Some(before) if before.created_txg < older.created_txg => before,
                _ => return Err(SendError::NotEarlier { from: from.name.clone(), to: to.name.clone() }),
            };
        }
        Ok(Base { guid: from.guid, created_txg: from.created_txg, origin: from.phys.dir != to.phys.dir })
    }

    /// How blocks of a snapshot are sent, and the features of its stream.
    fn form(&self, to: &Dataset, set: &ObjectSet, options: SendOptions) -> Result<(Form, u64), SendError> {
        /// Version of a file system that has system attributes.
        const VERSION_SA: u64 = 5;
        let dnode = self.mos.dnode(to.object)?;
        let own = self.table_of(&dnode, to.object)?;
        let uses = |feature: &str| match &own {
            Some(table) => table.get(feature.as_bytes()).map(|entry| entry.is_some()),
            None => Ok(false),
        };
        let all = self.features()?;
        let active = |guid: &str| all.iter().any(|feature| feature.guid == guid && feature.references > 0);
        if uses("com.delphix:redacted_datasets")? {
            return Err(SendError::NotSupported { name: to.name.clone(), what: "redaction" });
        }
        let has_attributes = set.kind == SetKind::Filesystem
            && set.zap(MASTER_NODE)?.number("VERSION")?.is_some_and(|version| version >= VERSION_SA);
        let large_blocks = options.large_blocks && uses("org.open-zfs:large_blocks")?;
        let embedded = options.embedded && active("com.delphix:embedded_data");
        let compressed = options.compressed;
        let lz4 = (embedded || compressed) && active("org.illumos:lz4_compress");
        let zstd = compressed && uses("org.freebsd:zstd_compress")?;
        let large_tables = uses("com.klarasystems:large_microzap")?;
        if large_tables && !large_blocks {
            return Err(SendError::LargeTables { name: to.name.clone() });
        }
        let features = [
            (StreamFeature::Spill, has_attributes),
            (StreamFeature::LargeBlocks, large_blocks),
            (StreamFeature::Embedded, embedded),
            (StreamFeature::Compressed, compressed),
            (StreamFeature::Lz4, lz4),
            (StreamFeature::Zstd, zstd),
            (StreamFeature::LargeDnodes, uses("org.zfsonlinux:large_dnode")?),
            (StreamFeature::LongNames, uses("org.zfsonlinux:longname")?),
            (StreamFeature::LargeTables, large_tables),
        ];
        let features = features.iter().filter(|(_, used)| *used).map(|(feature, _)| feature.bit());
        Ok((Form { compressed, large_blocks, embedded, lz4, zstd }, features.sum()))
    }

    /// The table that an object of the pool carries when it has more to say than its bonus.
    fn table_of(
        &self,
        dnode: &crate::read::dnode::Dnode,
        object: u64,
    ) -> Result<Option<Zap<'_, 'a>>, ReadError> {
        const TABLE: u8 = 0xc4;
        if dnode.object_type == TABLE {
            Zap::open(&self.blocks, dnode.clone(), object).map(Some)
        } else {
            Ok(None)
        }
    }
}

/// The dataset of a snapshot.
fn dataset_of(name: &str) -> &str {
    name.split('@').next().unwrap_or_default()
}

/// Writes all but the first bytes.
struct Skip<'w> {
    left: u64,
    out: &'w mut dyn Write,
}

impl Write for Skip<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = self.left.min(bytes.len() as u64);
        self.left -= skipped;
        self.out.write_all(&bytes[skipped as usize..])?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes what `write` makes from byte `offset` on; gives the length of all of it.
fn from_byte(
    offset: u64,
    out: &mut dyn Write,
    name: &str,
    write: impl FnOnce(&mut dyn Write) -> Result<u64, SendError>,
) -> Result<u64, SendError> {
    let len = write(&mut Skip { left: offset, out })?;
    if offset > len {
        return Err(SendError::PastTheEnd { offset, len, name: name.to_owned() });
    }
    Ok(len)
}

/// Records are small: they are gathered before they are written.
const BUFFER: usize = 256 << 10;

impl Stream<'_> {
    /// Writes the stream from byte `offset` on, for whoever has what comes before it; gives the length of the whole stream.
    ///
    /// All of it is made again, as every record has the checksum of those before it.
    pub fn write_from(&self, offset: u64, out: &mut dyn Write) -> Result<u64, SendError> {
        from_byte(offset, out, &self.to.name, |out| self.write_to(out))
    }

    /// Writes the stream; gives its length in bytes. The same pool gives the same bytes every time.
    pub fn write_to(&self, out: &mut dyn Write) -> Result<u64, SendError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut out = io::BufWriter::with_capacity(BUFFER, out);
        let mut output = Output::new(&mut out, self.form, self.to.guid);
        let begin = Begin {
            name: &self.to.name,
            guid: self.to.guid,
            from_guid: self.from.map_or(0, |from| from.guid),
            created: self.to.created,
            is_volume: self.set.kind == SetKind::Volume,
            is_clone: self.from.is_some_and(|from| from.origin),
            case_insensitive: self.to.phys.flags & DATASET_CASE_INSENSITIVE != 0,
            features: self.features,
            resume: self.start,
        };
        begin.write(&mut output).map_err(SendError::Write)?;
        let walk = Walk {
            set: &self.set,
            since: self.from.map_or(0, |from| from.created_txg),
            start: self.start.map_or(Start { object: 0, block: 0 }, |point| point.start),
        };
        output.items(&self.set.blocks, threads, |each| walk.run(each))?;
        output.end().map_err(SendError::Write)
    }

    /// The full name of the snapshot it is made of.
    pub fn name(&self) -> &str {
        &self.to.name
    }
}
