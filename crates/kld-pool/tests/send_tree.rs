//! Streams straight from trees: the bytes that the pool of the same trees would give.

#[path = "support/receiver.rs"]
mod receiver;
mod support;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;

use kld_pool::read::Pool;
use kld_pool::send::{SendError, SendOptions, StreamReader, check};
use kld_pool::tree::{Data, Kind, Tree};
use kld_pool::{Content, DatasetSpec, PoolSpec, SnapshotSpec, Volume, WriteError};
use proptest::prelude::*;
use receiver::Objects;
use support::{Random, changed, copy, dataset, meta, pool, random_tree, snapshot, write};

const PLAIN: SendOptions = SendOptions { compressed: false, large_blocks: false, embedded: false };
const AS_STORED: SendOptions = SendOptions { compressed: true, large_blocks: true, embedded: true };

/// All letters and none, each alone.
fn every_form() -> impl Iterator<Item = SendOptions> {
    (0..8).map(|bits| SendOptions {
        compressed: bits & 1 != 0,
        large_blocks: bits & 2 != 0,
        embedded: bits & 4 != 0,
    })
}

fn with_states(properties: &[(&str, &str)], trees: &[Tree]) -> DatasetSpec {
    let mut root = dataset("fz/root", properties, trees.last().cloned());
    root.snapshots = trees.iter().enumerate().map(|(i, tree)| snapshot(&format!("s{i}"), tree)).collect();
    root
}

fn direct(spec: &PoolSpec, to: &str, from: Option<&str>, options: SendOptions) -> Vec<u8> {
    let mut bytes = Vec::new();
    let len = spec.send(to, from, options).unwrap().write_to(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, len);
    bytes
}

/// The first record in which two streams differ.
fn difference(a: &[u8], b: &[u8]) -> String {
    let records = |stream: &[u8]| StreamReader::new(stream).collect::<Result<Vec<_>, _>>();
    let (Ok(a_records), Ok(b_records)) = (records(a), records(b)) else {
        return "one of them is no stream".to_owned();
    };
    let short = |text: String| text.chars().take(400).collect::<String>();
    for (i, pair) in a_records.iter().zip(&b_records).enumerate() {
        if pair.0 != pair.1 {
            return format!(
                "record {i}: {}\nof the pool: {}",
                short(format!("{:?}", pair.0)),
                short(format!("{:?}", pair.1))
            );
        }
    }
    format!("{} and {} records, all alike in what they say", a_records.len(), b_records.len())
}

/// The streams of these snapshots are those of the pool.
fn assert_as_from_the_pool(spec: &PoolSpec, steps: &[(&str, Option<&str>)], options: &[SendOptions]) {
    let image = write(spec);
    let file = image.device();
    let pool = Pool::open(&[&file]).unwrap();
    for (to, from) in steps {
        for options in options {
            let mut theirs = Vec::new();
            pool.send(to, *from, *options).unwrap().write_to(&mut theirs).unwrap();
            let ours = direct(spec, to, *from, *options);
            assert!(ours == theirs, "{to} from {from:?} {options:?}: {}", difference(&ours, &theirs));
            check(&ours[..]).unwrap();
        }
    }
}

const STEPS: [(&str, Option<&str>); 3] =
    [("fz/root@s0", None), ("fz/root@s1", None), ("fz/root@s1", Some("fz/root@s0"))];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_tree_gives_the_bytes_of_its_pool(
        seed: u64,
        count in 1usize..150,
        compression in prop::sample::select(vec!["off", "lz4", "zstd-3", "gzip-1", "zle"]),
        records in prop::sample::select(vec!["512", "4k", "16k", "128k", "1M"]),
        checksum in prop::sample::select(vec!["on", "off", "sha256", "sha512", "blake3"]),
        dnodes in prop::sample::select(vec!["legacy", "auto"]),
        ashift in 9u8..14,
        compressed: bool,
        large_blocks: bool,
        embedded: bool,
    ) {
        let random = &mut Random(seed);
        let first = random_tree(random, count);
        // Also what did not change is known to be the same only by reading it.
        let second = if seed % 2 == 0 { copy(&changed(&first, random)) } else { changed(&first, random) };
        let mut spec = pool(700);
        spec.ashift = ashift;
        spec.properties.set("compatibility", "openzfs-2.2").unwrap();
        let properties =
            [("compression", compression), ("recordsize", records), ("checksum", checksum), ("dnodesize", dnodes)];
        spec.datasets = vec![with_states(&properties, &[first, second])];
        assert_as_from_the_pool(&spec, &STEPS, &[SendOptions { compressed, large_blocks, embedded }]);
    }

    /// Files of several levels of pointers, of which large parts come and go.
    #[test]
    fn holes_of_every_size_are_where_the_pool_has_them(
        first in runs(), second in runs(), cut in 0usize..3, compression in prop::sample::select(vec!["off", "lz4"])
    ) {
        let tree = |runs: &[(bool, usize)], cut: usize| {
            let mut tree = Tree::new();
            let mut content = laid(runs);
            content.truncate(content.len() - cut.min(content.len()));
            tree.insert("f", meta(), Kind::File(Data::bytes(content.clone()))).unwrap();
            // The same with holes that the host knows of.
            let file = tempfile::NamedTempFile::new().unwrap();
            let mut at = 0;
            for (is_hole, blocks) in runs {
                if !is_hole {
                    let end = (at + blocks * 512).min(content.len());
                    file.as_file().write_all_at(&content[at.min(end)..end], at as u64).unwrap();
                }
                at += blocks * 512;
            }
            file.as_file().set_len(content.len() as u64).unwrap();
            let data = Data::from_file(file.path()).unwrap();
            tree.insert("sparse", meta(), Kind::File(data)).unwrap();
            (tree, file)
        };
        let (first, second) = (tree(&first, 0), tree(&second, cut * 700));
        let mut spec = pool(200);
        spec.datasets = vec![with_states(
            &[("recordsize", "512"), ("compression", compression)],
            &[first.0, second.0],
        )];
        assert_as_from_the_pool(&spec, &STEPS, &[PLAIN]);
    }
}

/// Runs of blocks of 512 bytes, holes or not, about the width of a block of pointers.
fn runs() -> impl Strategy<Value = Vec<(bool, usize)>> {
    let length = prop::sample::select(vec![0usize, 1, 2, 500, 1022, 1023, 1024, 1025, 2048, 3000]);
    prop::collection::vec((any::<bool>(), length), 0..6)
}

fn laid(runs: &[(bool, usize)]) -> Vec<u8> {
    let mut content = Vec::new();
    for (is_hole, blocks) in runs {
        let start = content.len();
        content.resize(start + blocks * 512, 0);
        if !is_hole {
            let numbers = (start / 512..).map(|number| (number % 251) as u8 + 1);
            content[start..]
                .chunks_exact_mut(512)
                .zip(numbers)
                .for_each(|(block, byte)| block[..300].fill(byte));
        }
    }
    content
}

#[test]
fn every_combination_of_letters_gives_the_bytes_of_the_pool() {
    let random = &mut Random(7);
    let first = random_tree(random, 300);
    let second = changed(&first, random);
    for properties in [
        &[("compression", "zstd-3"), ("recordsize", "1M"), ("dnodesize", "auto")][..],
        &[("compression", "lz4"), ("recordsize", "4k"), ("checksum", "sha512")],
        &[("compression", "off"), ("recordsize", "256k")],
    ] {
        let mut spec = pool(400);
        spec.datasets = vec![with_states(properties, &[first.clone(), second.clone()])];
        let options: Vec<SendOptions> = every_form().collect();
        assert_as_from_the_pool(&spec, &STEPS, &options);
    }
}

/// More dnodes than one block of pointers leads to, of which some blocks do not change, some vanish and some appear.
#[test]
fn many_files_of_which_few_change() {
    let mut first = Tree::new();
    for n in 0..36_000 {
        let path = format!("d{}/file {n}", n / 9000);
        if n % 9000 == 0 {
            first.insert(format!("d{}", n / 9000), meta(), Kind::Directory).unwrap();
        }
        first.insert(path, meta(), Kind::File(Data::bytes(vec![n as u8; n % 700]))).unwrap();
    }
    let mut second = first.clone();
    (500..700).chain(33_500..33_900).for_each(|n| drop(second.remove(format!("d{}/file {n}", n / 9000))));
    second.insert("d1/file 10000", meta(), Kind::File(Data::bytes(*b"new"))).unwrap();
    second.insert("d3/one more", meta(), Kind::Fifo).unwrap();
    let mut spec = pool(400);
    spec.datasets = vec![with_states(&[], &[first, second])];
    assert_as_from_the_pool(&spec, &STEPS, &[PLAIN, AS_STORED]);
}

#[test]
fn what_zstd_cannot_shrink_is_not_announced_as_zstd() {
    let mut first = Tree::new();
    first.insert("noise", meta(), Kind::File(Data::bytes(Random(3).bytes(400_000)))).unwrap();
    let mut second = first.clone();
    second.insert("text", meta(), Kind::File(Data::bytes(b"again ".repeat(9000)))).unwrap();
    let mut spec = pool(64);
    spec.datasets = vec![with_states(&[("compression", "zstd-3")], &[first, second])];
    assert_as_from_the_pool(&spec, &STEPS, &[PLAIN, AS_STORED]);
}

#[test]
fn a_dataset_without_content_and_a_volume_are_as_from_the_pool() {
    let volume = |data: Vec<u8>| {
        Content::Volume(Volume { size: 40 << 20, block_size: 16 << 10, data: Data::bytes(data) })
    };
    let old = Random(91).bytes(2 << 20);
    let mut new = old.clone();
    new[100_000..900_000].fill(0);
    new.extend(vec![5; 70_000]);
    let mut disk = dataset("fz/disk", &[], None);
    disk.content = volume(new.clone());
    disk.snapshots = [("nothing", vec![]), ("old", old)]
        .map(|(name, data)| SnapshotSpec { content: Some(volume(data)), ..name.into() })
        .into();
    let mut blank = dataset("fz/blank", &[], None);
    blank.snapshots = vec!["a".into(), "b".into()];
    let mut spec = pool(64);
    spec.datasets = vec![disk, blank];
    let steps = [
        ("fz/disk@nothing", None),
        ("fz/disk@old", None),
        ("fz/disk@old", Some("fz/disk@nothing")),
        ("fz/blank@a", None),
        ("fz/blank@b", Some("fz/blank@a")),
    ];
    assert_as_from_the_pool(&spec, &steps, &[PLAIN, AS_STORED]);
}

/// Whatever came before, a receiver has the same in the end.
#[test]
fn a_long_history_arrives_step_by_step() {
    for seed in 0..6 {
        let random = &mut Random(900 + seed);
        let mut trees = vec![random_tree(random, 80)];
        for _ in 0..3 {
            trees.push(copy(&changed(trees.last().unwrap(), random)));
        }
        let mut spec = pool(500);
        spec.datasets = vec![with_states(&[("recordsize", "4k"), ("compression", "lz4")], &trees)];
        let mut objects = Objects::default();
        let mut before: Option<String> = None;
        for n in 0..trees.len() {
            let name = format!("fz/root@s{n}");
            let apply = |objects: &mut Objects, from: Option<&str>| {
                let stream = direct(&spec, &name, from, AS_STORED);
                StreamReader::new(&stream[..]).for_each(|record| objects.apply(record.unwrap()));
            };
            let mut whole = Objects::default();
            apply(&mut whole, None);
            apply(&mut objects, before.as_deref());
            assert!(objects == whole, "{name} after {before:?}");
            before = Some(name);
        }
    }
}

#[test]
fn threads_and_places_do_not_show_and_any_byte_is_a_beginning() {
    let random = &mut Random(17);
    let first = random_tree(random, 120);
    let second = changed(&first, random);
    let mut spec = pool(64);
    spec.datasets = vec![with_states(&[("compression", "zstd-3")], &[first, second])];
    let (to, from) = ("fz/root@s1", Some("fz/root@s0"));
    let whole = direct(&spec, to, from, AS_STORED);
    for threads in [1, 3, 8] {
        spec.threads = threads;
        assert!(direct(&spec, to, from, AS_STORED) == whole, "{threads}");
    }
    let stream = spec.send(to, from, AS_STORED).unwrap();
    assert_eq!(stream.name(), to);
    for at in [0, 1, 312, whole.len() / 2, whole.len()] {
        let mut rest = Vec::new();
        assert_eq!(stream.write_from(at as u64, &mut rest).unwrap(), whole.len() as u64);
        assert!(rest == whole[at..], "{at}");
    }
    let error = stream.write_from(whole.len() as u64 + 1, &mut io::sink()).unwrap_err();
    assert!(matches!(error, SendError::PastTheEnd { .. }), "{error}");
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let tree = random_tree(&mut Random(111), 5);
    let mut spec = pool(64);
    let mut clone = dataset("fz/clone", &[], None);
    clone.origin = Some("fz/root@s0".parse().unwrap());
    clone.snapshots = vec!["x".into()];
    spec.datasets = vec![with_states(&[], &[tree.clone(), changed(&tree, &mut Random(1))]), clone];
    for (to, from, said) in [
        ("fz/root", None, "`fz/root` is not a snapshot"),
        ("fz/root@s1", Some("fz/root"), "`fz/root` is not a snapshot"),
        ("fz/root@nope", None, "cannot read what is to be sent"),
        (
            "fz/clone@x",
            None,
            "`fz/clone@x` cannot be sent: sending a clone without its pool is not supported",
        ),
        (
            "fz/root@s0",
            Some("fz/root@s1"),
            "`fz/root@s1` is not an earlier snapshot of `fz/root@s0` or of what it is a clone of",
        ),
    ] {
        assert_eq!(spec.send(to, from, PLAIN).unwrap_err().to_string(), said);
    }
    spec.ashift = 17;
    assert!(spec.send("fz/root@s0", None, PLAIN).unwrap_err().to_string().contains("ashift `17`"));
}

#[test]
fn files_that_change_or_vanish_and_full_outputs_end_a_stream() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("grows");
    std::fs::write(&path, vec![7; 300_000]).unwrap();
    let mut spec = pool(64);
    spec.datasets = vec![with_states(&[("compression", "off")], &[Tree::from_dir(dir.path()).unwrap()])];
    let stream = spec.send("fz/root@s0", None, PLAIN).unwrap();
    stream.write_to(&mut io::sink()).unwrap();

    /// Takes 100 kB and no more.
    struct Full(usize);
    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = stream.write_to(&mut Full(100_000)).unwrap_err();
    assert!(matches!(error, SendError::Write(_)), "{error}");

    File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    let error = stream.write_to(&mut io::sink()).unwrap_err();
    assert!(matches!(error, SendError::Content(WriteError::FileChanged { .. })), "{error}");
    assert!(error.to_string().contains("`/grows` of `fz/root`"), "{error}");
    std::fs::remove_file(&path).unwrap();
    let error = stream.write_to(&mut io::sink()).unwrap_err();
    assert!(matches!(error, SendError::Content(WriteError::ReadFile { .. })), "{error}");
}
