//! How fast a machine could make the blocks of a pool at best: what the writer is measured against.
//!
//! Every file below a directory is read, cut into records, compressed, checksummed and written, by all threads, each on its
//! own: no names, no attributes, no pointers, no order. The codec is the writer's own. Nobody can read the output.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::codec::{Allow, Compression, Encoder, Form, Output};
use crate::device::WriteAt;
use crate::format::hasher::{Algorithm, Hasher};

const RECORD: u64 = 128 << 10;
const ASHIFT: u8 = 12;
/// Files are handed out in parts of this size, and output is written so.
const PART: u64 = 1 << 20;

/// What is left to do.
enum Work {
    List(PathBuf),
    Part { path: Arc<PathBuf>, start: u64, len: u64 },
}

/// What the threads share.
struct Shared<'a> {
    open: Mutex<Vec<Work>>,
    /// Work in `open` or in a thread's hands.
    left: AtomicUsize,
    out: &'a dyn WriteAt,
    /// Bytes read, and bytes of the output that are taken.
    read: AtomicU64,
    end: AtomicU64,
}

/// Does it; gives the bytes read and written.
pub fn write(
    dir: &Path,
    compression: Compression,
    out: &dyn WriteAt,
    threads: usize,
) -> io::Result<(u64, u64)> {
    let shared = Shared {
        open: Mutex::new(vec![Work::List(dir.to_owned())]),
        left: AtomicUsize::new(1),
        out,
        read: AtomicU64::new(0),
        end: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..threads.max(1)).map(|_| scope.spawn(|| work(&shared, compression))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| io::Error::other("a thread failed"))?)
    })?;
    Ok((shared.read.into_inner(), shared.end.into_inner()))
}

fn work(shared: &Shared, compression: Compression) -> io::Result<()> {
    let mut encoder = Encoder::new(compression, Hasher::new(Algorithm::Fletcher4, [0; 32]), ASHIFT)?;
    let (mut input, mut output) = (Vec::new(), Output::default());
    while shared.left.load(Ordering::Acquire) > 0 {
        let next = shared.open.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let done = match next {
            None => {
                std::thread::yield_now();
                continue;
            }
            Some(Work::List(dir)) => list(shared, &dir),
            Some(Work::Part { path, start, len }) => {
                encode(shared, &mut encoder, (&path, start, len), &mut input, &mut output)
            }
        };
        shared.left.fetch_sub(1, Ordering::AcqRel);
        done?;
    }
    flush(shared, &mut output)
}

fn list(shared: &Shared, dir: &Path) -> io::Result<()> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.push(Work::List(entry.path()));
        } else if kind.is_file() {
            let len = entry.metadata()?.len();
            let path = Arc::new(entry.path());
            let part = |start| Work::Part { path: Arc::clone(&path), start, len: PART.min(len - start) };
            found.extend((0..len.div_ceil(PART)).map(|n| part(n * PART)));
        }
    }
    shared.left.fetch_add(found.len(), Ordering::AcqRel);
    shared.open.lock().unwrap_or_else(PoisonError::into_inner).append(&mut found);
    Ok(())
}

fn encode(
    shared: &Shared,
    encoder: &mut Encoder,
    (path, start, len): (&Path, u64, u64),
    input: &mut Vec<u8>,
    output: &mut Output,
) -> io::Result<()> {
    const ALLOW: Allow = Allow { embedded: true, holes: true };
    use std::os::unix::fs::FileExt;
    input.resize(len.next_multiple_of(512) as usize, 0);
    input[len as usize..].fill(0);
    std::fs::File::open(path)?.read_exact_at(&mut input[..len as usize], start)?;
    shared.read.fetch_add(len, Ordering::Relaxed);
    for record in input.chunks(RECORD as usize) {
        // The sum goes into a pointer: here it is only made.
        if let Form::Stored(extent) = encoder.encode(record, ALLOW, output)?.form {
            std::hint::black_box(extent.checksum);
        }
    }
    if output.bytes().len() as u64 >= PART { flush(shared, output) } else { Ok(()) }
}

fn flush(shared: &Shared, output: &mut Output) -> io::Result<()> {
    let at = shared.end.fetch_add(output.bytes().len() as u64, Ordering::Relaxed);
    shared.out.write_all_at(output.bytes(), at)?;
    output.clear();
    Ok(())
}
