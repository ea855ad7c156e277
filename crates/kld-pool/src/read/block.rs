//! Reading blocks: every copy on every device is tried until one has the right checksum.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::checksum::{Outcome, check, check_gang};
use super::decompress::{Failure, decompress};
use super::error::ReadError;
use super::pointer::{BlockPointer, Body, Dva, POINTER, Stored};
use super::vdev::{DATA_START, Device, Form, Top};

/// Bytes of decoded metadata that are kept.
const CACHE_BYTES: usize = 64 << 20;
/// Least bytes of the list that stands in for a block in parts.
const GANG_MIN: usize = 512;
/// Parts of parts that are followed; a pool that is nearly full needs two or three.
pub(crate) const MAX_GANG_DEPTH: u32 = 5;

/// The vdevs, and what is remembered of blocks read from them.
#[derive(Debug)]
pub(crate) struct Blocks<'a> {
    pub(crate) devices: Vec<Device<'a>>,
    tops: OnceLock<Vec<Option<Top>>>,
    first_tops: Vec<Option<Top>>,
    salt: OnceLock<[u8; 32]>,
    cache: Mutex<Cache>,
    healed: AtomicU64,
}

/// Decoded blocks, oldest out first.
#[derive(Debug, Default)]
struct Cache {
    blocks: HashMap<Key, Arc<[u8]>>,
    order: VecDeque<Key>,
    bytes: usize,
}

/// First copy and birth of a block.
type Key = (u32, u64, u64);

/// What is wrong with one copy of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CopyProblem {
    /// The vdev is not part of the pool's configuration.
    NoVdev,
    /// The device is not among those given.
    Missing,
    /// Of a kind that cannot be read.
    Vdev(String),
    /// The copy lies past the end of its device, or the device failed.
    Io(String),
    Checksum,
    NotSupported(&'static str),
    UnknownChecksum(u8),
    /// A list of parts that contradicts the block.
    Gang(&'static str),
}

impl std::fmt::Display for CopyProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CopyProblem::NoVdev => f.write_str("there is no such vdev"),
            CopyProblem::Missing => f.write_str("its device is missing"),
            CopyProblem::Vdev(kind) => write!(f, "vdevs of type `{kind}` are not supported"),
            CopyProblem::Io(error) => write!(f, "{error}"),
            CopyProblem::Checksum => f.write_str("wrong checksum"),
            CopyProblem::NotSupported(name) => write!(f, "checksum `{name}` is not supported"),
            CopyProblem::UnknownChecksum(code) => write!(f, "unknown checksum {code}"),
            CopyProblem::Gang(problem) => write!(f, "bad list of parts: {problem}"),
        }
    }
}

/// `vdev:offset` as zdb writes it.
pub(crate) fn place(dva: &Dva) -> String {
    format!("{}:{:x}", dva.vdev, dva.offset)
}

impl<'a> Blocks<'a> {
    /// Blocks of vdevs as the labels describe them.
    pub(crate) fn new(devices: Vec<Device<'a>>, tops: Vec<Option<Top>>) -> Blocks<'a> {
        Blocks {
            devices,
            tops: OnceLock::new(),
            first_tops: tops,
            salt: OnceLock::new(),
            cache: Mutex::default(),
            healed: AtomicU64::new(0),
        }
    }

    /// Replaces what the labels say about vdevs by what the pool's configuration says.
    pub(crate) fn settle(&self, tops: Vec<Option<Top>>) {
        self.tops.get_or_init(|| tops);
    }

    pub(crate) fn set_salt(&self, salt: [u8; 32]) {
        self.salt.get_or_init(|| salt);
    }

    pub(crate) fn tops(&self) -> &[Option<Top>] {
        self.tops.get().unwrap_or(&self.first_tops)
    }

    /// Copies that were bad while another one was good.
    pub(crate) fn healed(&self) -> u64 {
        self.healed.load(Ordering::Relaxed)
    }

    /// The block, decoded: `lsize` bytes. A hole reads as zeros.
    pub(crate) fn read(&self, pointer: &BlockPointer) -> Result<Vec<u8>, ReadError> {
        match &pointer.body {
            Body::Hole => Ok(vec![0; pointer.lsize]),
            Body::Redacted => Err(ReadError::NotSupported { what: "a redacted block".to_owned() }),
            Body::Embedded { payload, len, compression } => {
                self.decode(pointer, *compression, payload[..*len].to_vec(), "inline".to_owned())
            }
            Body::Stored(stored) if stored.encrypted => {
                Err(ReadError::NotSupported { what: "an encrypted block".to_owned() })
            }
            Body::Stored(stored) => {
                let raw = self.read_raw(stored, pointer.physical_birth, 0)?;
                let at = stored.dvas().next().map(|dva| place(&dva)).unwrap_or_default();
                self.decode(pointer, stored.compression, raw, at)
            }
        }
    }

    /// Like [`Blocks::read`], for metadata: kept for the next time.
    pub(crate) fn read_cached(&self, pointer: &BlockPointer) -> Result<Arc<[u8]>, ReadError> {
        let dva = match &pointer.body {
            Body::Stored(stored) => stored.dvas().next(),
            _ => None,
        };
        let Some(dva) = dva else { return Ok(self.read(pointer)?.into()) };
        let key = (dva.vdev, dva.offset, pointer.physical_birth);
        if let Ok(cache) = self.cache.lock()
            && let Some(block) = cache.blocks.get(&key)
            && block.len() == pointer.lsize
        {
            return Ok(Arc::clone(block));
        }
        let block: Arc<[u8]> = self.read(pointer)?.into();
        if let Ok(mut cache) = self.cache.lock() {
            cache.insert(key, Arc::clone(&block));
        }
        Ok(block)
    }

    /// Decodes the bytes of a copy that is good.
    pub(crate) fn decode_stored(
        &self,
        pointer: &BlockPointer,
        compression: u8,
        raw: Vec<u8>,
        dva: &Dva,
    ) -> Result<Vec<u8>, ReadError> {
        self.decode(pointer, compression, raw, place(dva))
    }

    fn decode(
        &self,
        pointer: &BlockPointer,
        compression: u8,
        raw: Vec<u8>,
        at: String,
    ) -> Result<Vec<u8>, ReadError> {
        decompress(compression, raw, pointer.lsize).map_err(|failure| ReadError::Block {
            at,
            problem: match failure {
                Failure::Unknown(code) => format!("unknown compression {code}"),
                Failure::Corrupt => format!("compression {compression} cannot be undone"),
            },
        })
    }

    /// The bytes of the first copy that is good.
    fn read_raw(&self, stored: &Stored, birth: u64, depth: u32) -> Result<Vec<u8>, ReadError> {
        let mut last = None;
        let mut bad = 0;
        for dva in stored.dvas() {
            for child in 0..self.children(&dva) {
                match self.read_copy_at(stored, &dva, child, birth, depth) {
                    Ok(raw) => {
                        self.healed.fetch_add(bad, Ordering::Relaxed);
                        return Ok(raw);
                    }
                    Err(problem) => {
                        // A device that is not there is no damage, and explains none.
                        let is_damage = problem != CopyProblem::Missing;
                        bad += u64::from(is_damage);
                        if is_damage || last.is_none() {
                            last = Some((dva, problem));
                        }
                    }
                }
            }
        }
        Err(match last {
            Some((dva, problem)) => ReadError::Block { at: place(&dva), problem: problem.to_string() },
            None => ReadError::damaged("a block pointer", "it has no address"),
        })
    }

    /// Copies of what lies at `dva`: one per child of a mirror; at least 1, so that what is wrong is said.
    pub(crate) fn children(&self, dva: &Dva) -> usize {
        match self.top(dva) {
            Ok(children) => children.len().max(1),
            Err(_) => 1,
        }
    }

    fn top(&self, dva: &Dva) -> Result<&[Option<usize>], CopyProblem> {
        let top = self.tops().get(dva.vdev as usize).and_then(Option::as_ref);
        match top.map(|top| &top.form) {
            None | Some(Form::Absent) => Err(CopyProblem::NoVdev),
            Some(Form::NotSupported(kind)) => Err(CopyProblem::Vdev(kind.clone())),
            Some(Form::Copies(children)) => Ok(children),
        }
    }

    /// `len` bytes at `dva` of one child.
    pub(crate) fn read_device(&self, dva: &Dva, child: usize, len: usize) -> Result<Vec<u8>, CopyProblem> {
        let children = self.top(dva)?;
        let index = children.get(child).copied().flatten().ok_or(CopyProblem::Missing)?;
        let device = self.devices.get(index).ok_or(CopyProblem::Missing)?;
        let at = dva
            .offset
            .checked_add(DATA_START)
            .filter(|at| at.checked_add(len as u64).is_some_and(|end| end <= device.size))
            .ok_or_else(|| CopyProblem::Io("it lies past the end of its device".to_owned()))?;
        let mut raw = vec![0; len];
        device.io.read_at(&mut raw, at).map_err(|error| CopyProblem::Io(error.to_string()))?;
        Ok(raw)
    }

    /// The stored bytes of one copy, checked.
    pub(crate) fn read_copy(
        &self,
        stored: &Stored,
        dva: &Dva,
        child: usize,
        birth: u64,
    ) -> Result<Vec<u8>, CopyProblem> {
        self.read_copy_at(stored, dva, child, birth, 0)
    }

    fn read_copy_at(
        &self,
        stored: &Stored,
        dva: &Dva,
        child: usize,
        birth: u64,
        depth: u32,
    ) -> Result<Vec<u8>, CopyProblem> {
        if dva.gang {
            if depth == MAX_GANG_DEPTH {
                return Err(CopyProblem::Gang("it has too many levels"));
            }
            let parts = self.read_gang(stored, dva, child, birth)?;
            return self.assemble(stored, &parts, depth + 1);
        }
        let raw = self.read_device(dva, child, stored.psize)?;
        self.check(stored, &raw)?;
        Ok(raw)
    }

    fn check(&self, stored: &Stored, raw: &[u8]) -> Result<(), CopyProblem> {
        match check(stored.checksum_kind, raw, &stored.checksum, self.salt.get(), stored.authenticated) {
            Outcome::Good => Ok(()),
            Outcome::Bad => Err(CopyProblem::Checksum),
            Outcome::NotSupported(name) => Err(CopyProblem::NotSupported(name)),
            Outcome::Unknown => Err(CopyProblem::UnknownChecksum(stored.checksum_kind)),
        }
    }

    /// The list of parts at `dva`, one of the copies of `stored`.
    pub(crate) fn read_gang(
        &self,
        stored: &Stored,
        dva: &Dva,
        child: usize,
        birth: u64,
    ) -> Result<Vec<BlockPointer>, CopyProblem> {
        let ashift = self.tops().get(dva.vdev as usize).and_then(Option::as_ref).map_or(9, |top| top.ashift);
        // All copies of the list are marked with the place of the first one.
        let first = stored.dvas().next().unwrap_or(*dva);
        let verifier = [u64::from(first.vdev), first.offset, birth, 0];
        // Since OpenZFS 2.4 the list may be as long as a sector.
        let mut sizes = vec![1usize << ashift, GANG_MIN];
        sizes.dedup();
        for size in sizes {
            let header = self.read_device(dva, child, size)?;
            if check_gang(&header, verifier, stored.authenticated) {
                let count = (size - super::checksum::TRAILER) / POINTER;
                return header
                    .chunks_exact(POINTER)
                    .take(count)
                    .map(|bytes| BlockPointer::decode(bytes).map_err(|bad| CopyProblem::Gang(bad.text())))
                    .filter(|part| !matches!(part, Ok(part) if part.is_hole()))
                    .collect();
            }
        }
        Err(CopyProblem::Checksum)
    }

    /// Puts a block together from its parts, which must add up to it.
    fn assemble(&self, stored: &Stored, parts: &[BlockPointer], depth: u32) -> Result<Vec<u8>, CopyProblem> {
        let mut raw = Vec::with_capacity(stored.psize);
        for part in parts {
            let Body::Stored(part_stored) = &part.body else {
                return Err(CopyProblem::Gang("a part is embedded"));
            };
            if part_stored.psize >= stored.psize || raw.len() + part_stored.psize > stored.psize {
                return Err(CopyProblem::Gang("the parts are longer than the block"));
            }
            let bytes = self
                .read_raw(part_stored, part.physical_birth, depth)
                .map_err(|error| CopyProblem::Io(error.to_string()))?;
            raw.extend(bytes);
        }
        if raw.len() == stored.psize {
            Ok(raw)
        } else {
            Err(CopyProblem::Gang("the parts are shorter than the block"))
        }
    }
}

impl Cache {
    fn insert(&mut self, key: Key, block: Arc<[u8]>) {
        self.bytes += block.len();
        if let Some(old) = self.blocks.insert(key, block) {
            self.bytes -= old.len();
        } else {
            self.order.push_back(key);
        }
        while self.bytes > CACHE_BYTES
            && let Some(key) = self.order.pop_front()
        {
            if let Some(old) = self.blocks.remove(&key) {
                self.bytes -= old.len();
            }
        }
    }
}
