//! Streams straight from trees: what [`Pool::send`](crate::read::Pool::send) makes of a pool that
//! [`write_pool`](crate::write_pool) would write, without that pool.
//!
//! A stream says nothing of where blocks lie. All it needs the writer knows before it has written anything: numbers of
//! objects, attributes and tables ([`state`] takes them from the writer). Blocks are read, compared with those of the
//! older tree and encoded by threads ([`work`]), and go out at once, so that memory grows with the number of files and not
//! with their size. Which blocks a receiver has already is found by reading both trees, where a pool would know it from
//! the births of its blocks; [`spans`](super::spans) tells what a walk over those would have met.

mod emit;
mod state;
mod work;

use std::io::Write;

use super::begin::Begin;
use super::output::Output;
use super::{BUFFER, Form, SendError, SendOptions, StreamFeature, from_byte};
use crate::features::Feature;
use crate::name::DatasetName;
use crate::read::ReadError;
use crate::spec::{Content, PoolSpec};
use crate::tree::Tree;
use crate::write::contents::{empty_tree, layout};
use crate::write::error::WriteError;
use crate::write::fs::{self, OLD_MAX_BLOCK, Whole};
use crate::write::plan::{Planned, plan};
use crate::write::seed::Seed;
use emit::Emit;
use state::State;
use work::{Encoding, Older};

/// A stream that can be written, of a snapshot that is in no pool.
#[derive(Debug)]
pub struct TreeStream<'s> {
    spec: &'s PoolSpec,
    dataset: DatasetName,
    name: String,
    /// Place of the snapshot among those of its dataset, and of the older one.
    to: usize,
    from: Option<usize>,
    options: SendOptions,
}

impl PoolSpec {
    /// The stream of the snapshot `to`: all of it, or what changed since `from`, an earlier snapshot of the same dataset. Both
    /// are full names.
    ///
    /// It is the stream that the pool would give, byte for byte, where `to` and `from` are among the oldest two different
    /// contents of the dataset, or `from` is none. After a longer history it says the same in other records: which ranges
    /// were free before does not show in the content. Clones cannot be sent so.
    ///
    /// ```no_run
    /// use kld_pool::send::SendOptions;
    /// use kld_pool::tree::Tree;
    /// use kld_pool::{DatasetSpec, PoolSpec};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut home = DatasetSpec::new("tank/home".parse()?);
    /// home.content = Tree::from_dir("/srv/home")?.into();
    /// home.snapshots.push("monday".into());
    /// let mut spec = PoolSpec::new("tank".parse()?, 1 << 30, [7; 32]);
    /// spec.datasets.push(home);
    ///
    /// let stream = spec.send("tank/home@monday", None, SendOptions::default())?;
    /// stream.write_to(&mut std::fs::File::create("monday.zstream")?)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send(
        &self,
        to: &str,
        from: Option<&str>,
        options: SendOptions,
    ) -> Result<TreeStream<'_>, SendError> {
        const ASHIFTS: std::ops::RangeInclusive<u8> = 9..=16;
        if !ASHIFTS.contains(&self.ashift) {
            return Err(WriteError::BadAshift(self.ashift).into());
        }
        let plan = plan(self)?;
        let (planned, index) = find(&plan, to)?;
        let from = from.map(|from| find(&plan, from).map(|found| (from, found))).transpose()?;
        if planned.origin.is_some() {
            return Err(SendError::NotSupported {
                name: to.to_owned(),
                what: "sending a clone without its pool",
            });
        }
        if let Some((from, (older, before))) = from
            && (older.name != planned.name || before >= index)
        {
            return Err(SendError::NotEarlier { from: from.to_owned(), to: to.to_owned() });
        }
        Ok(TreeStream {
            spec: self,
            dataset: planned.name.clone(),
            name: to.to_owned(),
            to: index,
            from: from.map(|(_, (_, before))| before),
            options,
        })
    }
}

/// A snapshot by its full name: its dataset, and its place there.
fn find<'p, 's>(plan: &'p [Planned<'s>], name: &str) -> Result<(&'p Planned<'s>, usize), SendError> {
    let missing = || ReadError::NoDataset { name: name.to_owned() };
    let (dataset, snapshot) = match name.split_once('@') {
        Some((dataset, snapshot)) => (dataset, Some(snapshot)),
        None => (name, None),
    };
    let planned = plan.iter().find(|planned| planned.name.as_str() == dataset).ok_or_else(missing)?;
    let Some(snapshot) = snapshot else { return Err(SendError::NotASnapshot { name: name.to_owned() }) };
    let index = planned.snapshots.iter().position(|known| known.name == snapshot).ok_or_else(missing)?;
    Ok((planned, index))
}

impl TreeStream<'_> {
    /// The full name of the snapshot it is made of.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes the stream from byte `offset` on, for whoever has what comes before it; gives the length of the whole stream.
    ///
    /// All of it is made again, as every record has the checksum of those before it.
    pub fn write_from(&self, offset: u64, out: &mut dyn Write) -> Result<u64, SendError> {
        from_byte(offset, out, &self.name, |out| self.write_to(out))
    }

    /// Writes the stream; gives its length in bytes. The same trees give the same bytes every time, if nobody changes them:
    /// a file that changes meanwhile ends it.
    pub fn write_to(&self, out: &mut dyn Write) -> Result<u64, SendError> {
        let plan = plan(self.spec)?;
        let (planned, _) = find(&plan, &self.name)?;
        let empty = empty_tree(self.spec);
        let (newest, oldest) = (planned.states[self.to], self.from.map(|from| planned.states[from]));
        let contents = &planned.versions[..=newest];
        let wholes: Vec<Whole<'_>> =
            contents.iter().map(|content| Whole::of(files(content, &empty))).collect();
        let mut source = Source::new(self.spec, planned);

        let (mut older, mut newer) = (None, None);
        for (version, content) in contents.iter().enumerate() {
            let state = source.next(planned.birth(version), content, &wholes[version])?;
            source.note(&state, self.options)?;
            if oldest == Some(version) {
                older = Some(state);
            } else if version == newest {
                newer = Some(state);
            }
        }
        let (form, features) = source.form(self.options);
        let encoding = Encoding { settings: source.layout.settings, form };

        let mut out = std::io::BufWriter::with_capacity(BUFFER, out);
        let seed = Seed::new(self.spec.seed).part("$MOS").part(self.dataset.as_str());
        let guid = |snapshot: usize| seed.number("guid", snapshot as u64);
        let mut output = Output::new(&mut out, form, guid(self.to));
        let begin = Begin {
            name: &self.name,
            guid: guid(self.to),
            from_guid: self.from.map_or(0, guid),
            created: self.spec.created,
            is_volume: planned.is_volume(),
            is_clone: false,
            case_insensitive: false,
            features,
            resume: None,
        };
        begin.write(&mut output).map_err(SendError::Write)?;
        // When both are the same there is nothing to say.
        if let Some(newer) = &newer {
            let older = Older(older.as_ref());
            let fates = older.fates(newer, &encoding)?;
            Emit::new(&mut output, newer, older, &fates).all(&encoding)?;
        }
        output.end().map_err(SendError::Write)
    }
}

/// The tree of a content; of a volume an empty one.
fn files<'t>(content: &'t Content, empty: &'t Tree) -> &'t Tree {
    match content {
        Content::Files(tree) => tree,
        Content::Empty | Content::Volume(_) => empty,
    }
}

/// Makes one state after the other, and notes what a receiver must know of them.
struct Source<'s> {
    dataset: &'s str,
    seed: Seed,
    layout: fs::Layout,
    writer: fs::Writer<'s>,
    keep_paths: bool,
    is_volume: bool,
    large_blocks: bool,
    zstd: bool,
    always: Always,
}

/// Features that every pool of its kind has in use.
struct Always {
    embedded: bool,
    lz4: bool,
}

impl<'s> Source<'s> {
    fn new(spec: &PoolSpec, planned: &'s Planned<'_>) -> Source<'s> {
        let enabled = spec.properties.features();
        let pool = Seed::new(spec.seed);
        let (layout, dataset) = (layout(spec, planned, pool), planned.name.as_str());
        let seed = pool.part(dataset);
        Source {
            dataset,
            seed,
            layout,
            writer: fs::Writer::new(dataset, seed, layout),
            keep_paths: planned.remembers,
            is_volume: planned.is_volume(),
            large_blocks: false,
            zstd: false,
            always: Always {
                embedded: enabled.always_uses("com.delphix:embedded_data"),
                lz4: enabled.always_uses("org.illumos:lz4_compress"),
            },
        }
    }

    fn next<'t>(
        &mut self,
        birth: u64,
        content: &'t Content,
        whole: &'t Whole<'t>,
    ) -> Result<State<'t>, WriteError>
    where
        's: 't,
    {
        if let Content::Volume(volume) = content {
            return Ok(State::of_volume(volume, self.seed, self.dataset));
        }
        let laid_out = self.writer.lay_out(whole, birth, self.keep_paths)?;
        let (state, objects) = State::of_files(laid_out, self.layout.record_size, self.seed, self.dataset);
        self.writer.pass(objects);
        Ok(state)
    }

    /// Features that a state uses are used by all younger ones.
    fn note(&mut self, state: &State<'_>, options: SendOptions) -> Result<(), SendError> {
        self.large_blocks |= state.largest_block() > OLD_MAX_BLOCK;
        if options.compressed && !self.zstd && self.layout.settings.compression.zstd_level().is_some() {
            self.zstd = work::compresses(state, self.layout.settings)?;
        }
        Ok(())
    }

    /// How blocks are sent, and the features of the stream.
    fn form(&self, options: SendOptions) -> (Form, u64) {
        let embedded = options.embedded && self.always.embedded;
        let form = Form {
            compressed: options.compressed,
            large_blocks: options.large_blocks && self.large_blocks,
            embedded,
            lz4: (embedded || options.compressed) && self.always.lz4,
            zstd: options.compressed && self.zstd,
        };
        let features = [
            (StreamFeature::Spill, !self.is_volume),
            (StreamFeature::LargeBlocks, form.large_blocks),
            (StreamFeature::Embedded, form.embedded),
            (StreamFeature::Compressed, form.compressed),
            (StreamFeature::Lz4, form.lz4),
            (StreamFeature::Zstd, form.zstd),
            (StreamFeature::LargeDnodes, self.writer.features().contains(&Feature::LargeDnode)),
        ];
        (form, features.iter().filter(|(_, used)| *used).map(|(feature, _)| feature.bit()).sum())
    }
}
