//! Streams: what arrives is what was sent, of a difference only what differs, and nothing that changed on the way.

#[path = "support/receiver.rs"]
mod receiver;
mod support;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Output;

use kld_pool::read::{NodeKind, Pool};
use kld_pool::send::{
    Record, ResumeToken, SendOptions, StreamError, StreamFeature, StreamReader, TokenError, check,
};
use kld_pool::tree::{Data, Kind, Tree};
use kld_pool::{Content, DatasetSpec, PoolSpec, SnapshotSpec, Volume};
use proptest::prelude::*;
use receiver::Objects;
use support::{Image, Random, changed, dataset, meta, pool, random_tree, snapshot, write};

const PLAIN: SendOptions = SendOptions { compressed: false, large_blocks: false, embedded: false };
const AS_STORED: SendOptions = SendOptions { compressed: true, large_blocks: true, embedded: true };

/// A dataset with snapshots `s0`, `s1` and so on of these trees.
fn with_states(properties: &[(&str, &str)], trees: &[Tree]) -> DatasetSpec {
    let mut root = dataset("fz/root", properties, trees.last().cloned());
    root.snapshots = trees.iter().enumerate().map(|(i, tree)| snapshot(&format!("s{i}"), tree)).collect();
    root
}

fn sent(pool: &Pool, to: &str, from: Option<&str>, options: SendOptions) -> Vec<u8> {
    let mut bytes = Vec::new();
    let len = pool.send(to, from, options).unwrap().write_to(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, len);
    bytes
}

fn records(stream: &[u8]) -> Vec<Record> {
    StreamReader::new(stream).collect::<Result<_, _>>().unwrap()
}

fn received(onto: &Objects, stream: &[u8]) -> Objects {
    let mut objects = onto.clone();
    records(stream).into_iter().for_each(|record| objects.apply(record));
    objects
}

/// Every file of a snapshot is among the objects that arrived.
fn assert_files(pool: &Pool, snapshot: &str, objects: &Objects) {
    let filesystem = pool.filesystem(snapshot).unwrap();
    for entry in filesystem.walk() {
        let node = entry.unwrap().node;
        let object = &objects.0[&node.object()];
        if node.metadata().kind == NodeKind::File {
            let mut content = vec![0; node.metadata().size as usize];
            filesystem.read(&node, 0, &mut content).unwrap();
            assert!(object.content(node.metadata().size) == content, "{snapshot} {}", node.object());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_is_sent_arrives_in_full_and_in_steps(
        seed: u64,
        count in 1usize..100,
        compression in prop::sample::select(vec!["off", "lz4", "zstd-3", "gzip-1"]),
        records in prop::sample::select(vec!["512", "16k", "128k", "1M"]),
        dnodes in prop::sample::select(vec!["legacy", "auto"]),
        compressed: bool,
        large_blocks: bool,
        embedded: bool,
    ) {
        let random = &mut Random(seed);
        let mut trees = vec![random_tree(random, count)];
        for _ in 0..2 {
            trees.push(changed(trees.last().unwrap(), random));
        }
        let mut spec = pool(300);
        let properties = [("compression", compression), ("recordsize", records), ("dnodesize", dnodes)];
        spec.datasets = vec![with_states(&properties, &trees)];
        let image = write(&spec);
        let file = image.device();
        let pool = Pool::open(&[&file]).unwrap();
        let options = SendOptions { compressed, large_blocks, embedded };

        let full = [0, 1, 2].map(|n| sent(&pool, &format!("fz/root@s{n}"), None, options));
        prop_assert!(sent(&pool, "fz/root@s2", None, options) == full[2]);
        let full = full.map(|stream| received(&Objects::default(), &stream));
        for (n, objects) in full.iter().enumerate() {
            assert_files(&pool, &format!("fz/root@s{n}"), objects);
        }
        for (from, to) in [(0, 1), (1, 2), (0, 2)] {
            let step = sent(&pool, &format!("fz/root@s{to}"), Some(&format!("fz/root@s{from}")), options);
            prop_assert!(received(&full[from], &step) == full[to], "{} to {}", from, to);
        }
    }

    #[test]
    fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(check(&bytes[..]).is_err());
        drop(String::from_utf8_lossy(&bytes).parse::<ResumeToken>());
    }
}

/// One file of 40 records of 128 KiB that cannot be compressed, and what becomes of it.
fn one_file(contents: &[Vec<u8>]) -> Image {
    let tree = |content: &Vec<u8>| {
        let mut tree = Tree::new();
        tree.insert("f", meta(), Kind::File(Data::bytes(content.clone()))).unwrap();
        tree.insert("other", meta(), Kind::File(Data::bytes(vec![9; 300_000]))).unwrap();
        tree
    };
    let mut spec = pool(128);
    let trees: Vec<Tree> = contents.iter().map(tree).collect();
    spec.datasets = vec![with_states(&[("compression", "lz4")], &trees)];
    write(&spec)
}

#[test]
fn a_difference_has_what_differs_and_nothing_else() {
    const RECORD: usize = 128 << 10;
    let whole = Random(81).bytes(40 * RECORD);
    let mut touched = whole.clone();
    [3, 17, 39].into_iter().for_each(|n| touched[n * RECORD + 5] ^= 1);
    let mut holed = touched.clone();
    holed[8 * RECORD..12 * RECORD].fill(0);
    let image = one_file(&[whole, touched, holed.clone(), holed[..20 * RECORD].to_vec()]);
    let file = image.device();
    let pool = Pool::open(&[&file]).unwrap();
    let object = pool.filesystem("fz/root@s0").unwrap().lookup("f").unwrap().object();
    let step = |from: u32, to: u32| {
        let mut found = Vec::new();
        let stream = sent(&pool, &format!("fz/root@s{to}"), Some(&format!("fz/root@s{from}")), AS_STORED);
        for record in records(&stream) {
            match record {
                Record::Write { object: of, offset, .. } if of == object => {
                    found.push(("write", offset as usize / RECORD, 1));
                }
                Record::Free { object: of, offset, length: Some(length) } if of == object => {
                    found.push(("free", offset as usize / RECORD, length as usize / RECORD));
                }
                Record::Free { object: of, offset, length: None } if of == object => {
                    found.push(("end", offset as usize / RECORD, 0));
                }
                _ => {}
            }
        }
        found
    };
    assert_eq!(step(0, 1), [("end", 40, 0), ("write", 3, 1), ("write", 17, 1), ("write", 39, 1)]);
    assert_eq!(step(1, 2), [("end", 40, 0), ("free", 8, 4)]);
    assert_eq!(step(2, 3), [("end", 20, 0)]);
}

#[test]
fn a_volume_arrives() {
    let volume = |data: &[u8]| {
        Content::Volume(Volume { size: 4 << 20, block_size: 16 << 10, data: Data::bytes(data.to_vec()) })
    };
    let old = Random(91).bytes(2 << 20);
    let mut new = old.clone();
    new[100_000..200_000].fill(0);
    let mut spec = pool(64);
    let mut disk = dataset("fz/disk", &[], None);
    disk.content = volume(&new);
    disk.snapshots = vec![
        SnapshotSpec { content: Some(volume(&old)), ..SnapshotSpec::from("a") },
        SnapshotSpec { content: Some(volume(&new)), ..SnapshotSpec::from("b") },
    ];
    spec.datasets = vec![disk];
    let image = write(&spec);
    let file = image.device();
    let pool = Pool::open(&[&file]).unwrap();
    let full = sent(&pool, "fz/disk@a", None, PLAIN);
    let info = check(&full[..]).unwrap();
    assert!(info.is_volume && info.from_guid.is_none() && info.features.is_empty(), "{info:?}");
    assert_eq!(info.name, "fz/disk@a");
    let objects = received(&Objects::default(), &full);
    assert!(objects.0[&1].content(4 << 20)[..2 << 20] == old);
    let step = sent(&pool, "fz/disk@b", Some("fz/disk@a"), AS_STORED);
    assert!(step.len() < 300_000, "{}", step.len());
    assert!(received(&objects, &step).0[&1].content(4 << 20)[..2 << 20] == new);
}

#[test]
fn the_first_record_says_what_a_receiver_must_know() {
    use StreamFeature::{Compressed, Embedded, LargeBlocks, LargeDnodes, Lz4, Spill, Zstd};
    let tree = random_tree(&mut Random(101), 60);
    let large = [("recordsize", "1M"), ("compression", "zstd-3"), ("dnodesize", "auto")];
    for (properties, options, features) in [
        (&[("recordsize", "128k")][..], PLAIN, &[Spill][..]),
        (&[("recordsize", "128k")], AS_STORED, &[Spill, Embedded, Lz4, Compressed]),
        (&large, PLAIN, &[Spill, LargeDnodes]),
        (&large, AS_STORED, &[Spill, Embedded, Lz4, LargeBlocks, Compressed, LargeDnodes, Zstd]),
    ] {
        let mut spec = pool(200);
        spec.datasets = vec![with_states(properties, std::slice::from_ref(&tree))];
        let image = write(&spec);
        let file = image.device();
        let pool = Pool::open(&[&file]).unwrap();
        let info = check(&sent(&pool, "fz/root@s0", None, options)[..]).unwrap();
        assert_eq!(info.features, features, "{properties:?} {options:?}");
        let snapshot = pool.dataset("fz/root@s0").unwrap();
        assert_eq!((info.guid, info.created, info.is_clone), (snapshot.guid, snapshot.created, false));
    }
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let mut spec = pool(64);
    let tree = random_tree(&mut Random(111), 5);
    spec.datasets =
        vec![with_states(&[], &[tree.clone(), changed(&tree, &mut Random(1))]), dataset("fz/x", &[], None)];
    let image = write(&spec);
    let file = image.device();
    let pool = Pool::open(&[&file]).unwrap();
    for (to, from, said) in [
        ("fz/root", None, "`fz/root` is not a snapshot"),
        ("fz/root@s1", Some("fz/x"), "`fz/x` is not a snapshot"),
        ("fz/root@nope", None, "cannot read what is to be sent"),
        (
            "fz/root@s0",
            Some("fz/root@s1"),
            "`fz/root@s1` is not an earlier snapshot of `fz/root@s0` or of what it is a clone of",
        ),
        (
            "fz/root@s0",
            Some("fz/root@s0"),
            "`fz/root@s0` is not an earlier snapshot of `fz/root@s0` or of what it is a clone of",
        ),
    ] {
        assert_eq!(pool.send(to, from, PLAIN).unwrap_err().to_string(), said);
    }
}

/// A token as a receiver in the kernel makes it.
fn token(fields: &[(&str, u64)], name: &str, flags: &[&str]) -> String {
    let string = |text: &str| {
        let mut bytes = (text.len() as u32).to_be_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let pair = |name: &str, kind: u32, count: u32, decoded: usize, value: &[u8]| {
        let body = [&string(name)[..], &kind.to_be_bytes(), &count.to_be_bytes(), value].concat();
        let decoded = (16 + name.len() + 1).next_multiple_of(8) + decoded;
        [&(body.len() as u32 + 8).to_be_bytes()[..], &(decoded as u32).to_be_bytes(), &body].concat()
    };
    let mut packed = vec![1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for (name, value) in fields {
        packed.extend(pair(name, 8, 1, 8, &value.to_be_bytes()));
    }
    packed.extend(pair("toname", 9, 1, (name.len() + 1).next_multiple_of(8), &string(name)));
    flags.iter().for_each(|flag| packed.extend(pair(flag, 1, 0, 0, &[])));
    packed.extend([0; 8]);
    let payload = miniz_oxide::deflate::compress_to_vec_zlib(&packed, 6);
    let sum: u64 =
        payload.chunks_exact(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap()))).sum();
    let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("1-{sum:x}-{:x}-{hex}", packed.len())
}

#[test]
fn an_interrupted_stream_goes_on_where_it_stopped() {
    let random = &mut Random(121);
    let old = random_tree(random, 150);
    let trees = [old.clone(), changed(&old, random)];
    let mut spec = pool(300);
    spec.datasets = vec![with_states(&[("recordsize", "16k"), ("dnodesize", "auto")], &trees)];
    let image = write(&spec);
    let file = image.device();
    let pool = Pool::open(&[&file]).unwrap();
    let [old, new] = ["fz/root@s0", "fz/root@s1"].map(|name| pool.dataset(name).unwrap());
    for from in [None, Some(&old)] {
        let start = match from {
            Some(from) => received(&Objects::default(), &sent(&pool, &from.name, None, AS_STORED)),
            None => Objects::default(),
        };
        let whole = sent(&pool, &new.name, from.map(|from| from.name.as_str()), AS_STORED);
        let wanted = received(&start, &whole);
        let all = records(&whole);
        for _ in 0..25 {
            // The receiver has everything up to a record, and asks for that record again.
            let cut = 1 + random.below(all.len() - 2);
            let Some((object, offset)) = all[..cut].iter().rev().find_map(|record| match record {
                Record::Object { number, .. } => Some((*number, 0)),
                Record::Write { object, offset, .. } => Some((*object, *offset)),
                _ => None,
            }) else {
                continue;
            };
            let text = token(
                &[
                    ("fromguid", from.map_or(0, |from| from.guid)),
                    ("object", object),
                    ("offset", offset),
                    ("bytes", 12_345),
                    ("toguid", new.guid),
                ],
                &new.name,
                &["largeblockok", "embedok", "compressok"],
            );
            let token: ResumeToken = text.parse().unwrap();
            assert_eq!((token.received, token.options), (12_345, AS_STORED));
            let mut rest = Vec::new();
            pool.resume(&token).unwrap().write_to(&mut rest).unwrap();
            let info = check(&rest[..]).unwrap();
            assert_eq!(info.resume, Some((object, offset)));
            let mut objects = start.clone();
            all[..cut].iter().cloned().for_each(|record| objects.apply(record));
            assert!(received(&objects, &rest) == wanted, "{object} {offset}");
            assert!(rest.len() <= whole.len() + 112);
        }
    }
}

#[test]
fn tokens_that_cannot_be_used_are_refused() {
    let fields = [("object", 5), ("offset", 0), ("toguid", 7)];
    let good = token(&fields, "fz/root@s0", &[]);
    assert_eq!(good.parse::<ResumeToken>().unwrap().name, "fz/root@s0");
    let raw = token(&fields, "fz/root@s0", &["rawok"]);
    let cut = &good[..good.len() - 8];
    for (text, error) in [
        ("", TokenError::Form),
        ("1-2-3", TokenError::Form),
        ("1-2-3-xyz", TokenError::Form),
        (good.replacen('1', "2", 1).as_str(), TokenError::Version),
        (cut, TokenError::Checksum),
        (token(&fields[..2], "fz/root@s0", &[]).as_str(), TokenError::Content),
        (raw.as_str(), TokenError::NotSupported("raw")),
    ] {
        assert_eq!(text.parse::<ResumeToken>(), Err(error), "{text}");
    }
    let mut spec = pool(64);
    spec.datasets = vec![with_states(&[], &[random_tree(&mut Random(1), 5)])];
    let image = write(&spec);
    let file = image.device();
    let pool = Pool::open(&[&file]).unwrap();
    let unknown = pool.resume(&good.parse().unwrap()).unwrap_err();
    assert_eq!(unknown.to_string(), "the pool has no snapshot with GUID 7, which was called `fz/root@s0`");
    let guid = pool.dataset("fz/root@s0").unwrap().guid;
    let far = token(&[("object", 99_999), ("offset", 0), ("toguid", guid)], "fz/root@s0", &[]);
    let far = pool.resume(&far.parse().unwrap()).unwrap_err();
    assert_eq!(far.to_string(), "cannot resume at object 99999: `fz/root@s0` has no such object");
}

/// A small stream with every kind of record.
fn small_stream() -> Vec<u8> {
    let mut tree = Tree::new();
    let mut with_attributes = meta();
    with_attributes.xattrs.insert(b"user.k".to_vec(), Random(1).bytes(2000));
    tree.insert("attributes", with_attributes, Kind::Fifo).unwrap();
    let numbers: String = (0..400).map(|n: u32| format!("line number {n}\n")).collect();
    for (name, content) in
        [("embedded", vec![7; 4000]), ("plain", Random(2).bytes(600)), ("numbers", numbers.into_bytes())]
    {
        tree.insert(name, meta(), Kind::File(Data::bytes(content))).unwrap();
    }
    let mut spec: PoolSpec = pool(64);
    spec.ashift = 9;
    spec.datasets = vec![with_states(&[("recordsize", "8k")], &[tree])];
    let image = write(&spec);
    let file = image.device();
    sent(&Pool::open(&[&file]).unwrap(), "fz/root@s0", None, AS_STORED)
}

#[test]
fn no_byte_can_change_on_the_way() {
    let stream = small_stream();
    let kinds: BTreeMap<_, usize> = records(&stream).iter().fold(BTreeMap::new(), |mut kinds, record| {
        let kind = match record {
            Record::Write { block, .. } if block.embedded => "embedded",
            Record::Write { block, .. } if block.compression.is_some() => "compressed",
            Record::Write { .. } => "plain",
            Record::Spill { .. } => "spill",
            Record::Free { .. } => "free",
            Record::FreeObjects { .. } => "free objects",
            _ => "other",
        };
        *kinds.entry(kind).or_default() += 1;
        kinds
    });
    assert_eq!(kinds.len(), 7, "{kinds:?}");
    for at in (0..6000).chain((6000..stream.len()).step_by(11)) {
        let mut damaged = stream.clone();
        damaged[at] ^= 1 << (at % 8);
        assert!(check(&damaged[..]).is_err(), "byte {at} of {}", stream.len());
        if at % 7 == 0 {
            let error = check(&stream[..at]).unwrap_err();
            assert!(matches!(error, StreamError::Truncated { .. } | StreamError::NotAStream), "{error}");
        }
    }
    let mut damaged = stream.clone();
    damaged[stream.len() / 2] ^= 1;
    assert!(check(&damaged[..]).unwrap_err().to_string().contains("the checksum of the record at byte"));
    assert_eq!(check(&b"PK\x03\x04"[..]).unwrap_err().to_string(), "this is no send stream");
}

/// Where the records of a stream begin.
fn starts(stream: &[u8]) -> Vec<usize> {
    // The starts of records: each reads exactly its own bytes.
    let mut starts = Vec::new();
    let mut rest = stream;
    let mut reader = StreamReader::new(&mut rest);
    loop {
        let before = stream.len() - reader.get_ref().len();
        match reader.next() {
            Some(record) => drop(record.unwrap()),
            None => break,
        }
        starts.push(before);
    }
    starts
}

/// Gives every record the checksum that its bytes have now: what is left to find is what makes no sense.
fn reseal(stream: &mut [u8], records: &[usize]) {
    let mut sum = [0u64; 4];
    let add = |sum: &mut [u64; 4], bytes: &[u8]| {
        for word in bytes.chunks_exact(4) {
            sum[0] = sum[0].wrapping_add(u64::from(u32::from_le_bytes(word.try_into().unwrap())));
            (1..4).for_each(|i| sum[i] = sum[i].wrapping_add(sum[i - 1]));
        }
    };
    let bytes_of = |sum: &[u64; 4]| sum.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    for (i, start) in records.iter().enumerate() {
        let end = records.get(i + 1).copied().unwrap_or(stream.len());
        if stream[*start] == 5 {
            stream[start + 8..start + 40].copy_from_slice(&bytes_of(&sum));
        }
        add(&mut sum, &stream[*start..start + 280]);
        if i > 0 {
            stream[start + 280..start + 312].copy_from_slice(&bytes_of(&sum));
        }
        add(&mut sum, &stream[start + 280..end]);
    }
}

#[test]
fn lies_with_the_right_checksums_never_panic() {
    let stream = small_stream();
    let starts = starts(&stream);
    let mut whole = stream.clone();
    reseal(&mut whole, &starts);
    assert!(whole == stream, "checksums made here are those of the stream");
    let random = &mut Random(131);
    let mut refused = 0;
    for _ in 0..4000 {
        let mut lie = stream.clone();
        for _ in 0..=random.below(3) {
            let at = starts[random.below(starts.len())] + random.below(120);
            let at = at.min(lie.len() - 1);
            lie[at] = random.pick(&[0, 1, 2, 16, 127, 128, 255]);
        }
        reseal(&mut lie, &starts);
        refused += usize::from(check(&lie[..]).is_err());
    }
    assert!(refused > 1000, "{refused}");
}

/// OpenZFS' own reader of streams.
fn zstream(args: &[&str], input: &[u8]) -> Output {
    let mut command = match std::env::var_os("KLD_TOOLS_ROOT") {
        Some(root) => {
            let root = std::path::PathBuf::from(root);
            let libraries = root.join("usr/lib/x86_64-linux-gnu");
            #[allow(clippy::disallowed_methods, reason = "a test asks a foreign program, nothing is changed")]
            let mut command = std::process::Command::new(libraries.join("ld-linux-x86-64.so.2"));
            command.arg("--library-path").arg(libraries).arg(root.join("usr/sbin/zstream"));
            command
        }
        #[allow(clippy::disallowed_methods, reason = "a test asks a foreign program, nothing is changed")]
        None => std::process::Command::new("zstream"),
    };
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    command.args(args).stdin(file).output().expect("no zstream: run it through cargo xtask test")
}

#[test]
fn zstream_reads_streams_of_every_format() {
    let random = &mut Random(141);
    let old = random_tree(random, 120);
    let trees = [old.clone(), changed(&old, random)];
    for properties in [
        &[("compression", "zstd-3"), ("recordsize", "1M"), ("dnodesize", "auto")][..],
        &[("compression", "lz4"), ("recordsize", "4k"), ("checksum", "sha512")],
    ] {
        let mut spec = pool(300);
        spec.datasets = vec![with_states(properties, &trees)];
        let image = write(&spec);
        let file = image.device();
        let pool = Pool::open(&[&file]).unwrap();
        for options in [PLAIN, AS_STORED] {
            for from in [None, Some("fz/root@s0")] {
                let stream = sent(&pool, "fz/root@s1", from, options);
                let output = zstream(&["dump", "-v"], &stream);
                let text = String::from_utf8_lossy(&output.stdout);
                let errors = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() && errors.is_empty(), "{errors}\n{text}");
                assert!(!text.contains("Expected checksum"), "{text}");
                let count = |kind: &str| {
                    let line = text.lines().find(|line| line.contains(&format!("Total {kind} records")));
                    let number = line.expect(&text).split(['=', '(']).nth(1).unwrap().trim();
                    number.parse::<usize>().expect(&text)
                };
                let (mut writes, mut embedded, mut objects) = (0, 0, 0);
                for record in records(&stream) {
                    match record {
                        Record::Write { block, .. } if block.embedded => embedded += 1,
                        Record::Write { .. } => writes += 1,
                        Record::Object { .. } => objects += 1,
                        _ => {}
                    }
                }
                let counted = ["DRR_WRITE", "DRR_WRITE_EMBEDDED", "DRR_OBJECT"].map(count);
                assert_eq!(counted, [writes, embedded, objects], "{text}");
            }
        }
    }
}

/// A snapshot by its number, as `zdb -B` wants it.
fn numbered(image: &Image, snapshot: &str) -> String {
    let text = String::from_utf8(image.zdb(&["-d", snapshot]).stdout).unwrap();
    let at = text.find(&format!("Dataset {snapshot} ")).expect(&text);
    text[at..]
        .split(", ")
        .find_map(|part| part.strip_prefix("ID "))
        .map(|id| format!("fz/{id}"))
        .expect(&text)
}

/// The whole stream of a snapshot, made by zdb with the letters of `zfs send`.
fn zdb_sends(image: &Image, numbered: &str, letters: &str) -> Vec<u8> {
    let output = match letters {
        "" => image.zdb(&["-B", numbered]),
        letters => image.zdb(&["-B", numbered, letters]),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn a_stream_goes_on_at_any_byte() {
    let image = one_file(&[Random(145).bytes(1_000_000)]);
    let file = image.device();
    let pool = Pool::open(&[&file]).unwrap();
    let whole = sent(&pool, "fz/root@s0", None, PLAIN);
    let stream = pool.send("fz/root@s0", None, PLAIN).unwrap();
    for at in [0, 1, 311, 312, 300_001, whole.len() - 1, whole.len()] {
        let mut rest = Vec::new();
        assert_eq!(stream.write_from(at as u64, &mut rest).unwrap(), whole.len() as u64);
        assert!(rest == whole[at..], "{at}");
    }
    let error = stream.write_from(whole.len() as u64 + 1, &mut Vec::new()).unwrap_err().to_string();
    let len = whole.len();
    assert_eq!(error, format!("cannot go on at byte {}: the stream of `fz/root@s0` has {len}", len + 1));
}

#[test]
fn zdb_sends_the_same_bytes() {
    let random = &mut Random(143);
    let trees = [random_tree(random, 150), random_tree(random, 150)];
    for properties in [
        &[("compression", "zstd-3"), ("recordsize", "1M"), ("dnodesize", "auto")][..],
        &[("compression", "lz4"), ("recordsize", "4k"), ("checksum", "sha512")],
        &[("compression", "off"), ("recordsize", "256k")],
    ] {
        let mut spec = pool(300);
        spec.datasets = vec![with_states(properties, &trees)];
        let image = write(&spec);
        let file = image.device();
        let pool = Pool::open(&[&file]).unwrap();
        let numbered = numbered(&image, "fz/root@s1");
        for letters in ["", "c", "L", "Le", "cLe"] {
            let options = SendOptions {
                compressed: letters.contains('c'),
                large_blocks: letters.contains('L'),
                embedded: letters.contains('e'),
            };
            let theirs = zdb_sends(&image, &numbered, letters);
            assert!(sent(&pool, "fz/root@s1", None, options) == theirs, "{properties:?} -{letters}");
        }
    }
}

#[test]
fn what_has_no_place_among_embedded_data_is_not_sent_so() {
    let mut tree = Tree::new();
    tree.insert("f", meta(), Kind::File(Data::bytes(vec![7; 3 << 20]))).unwrap();
    tree.meta_mut("f").unwrap().xattrs.insert(b"user.note".to_vec(), vec![b'n'; 3000]);
    let mut spec = pool(128);
    spec.datasets = vec![with_states(&[("compression", "zstd-3"), ("recordsize", "1M")], &[tree])];
    let image = write(&spec);
    let file = image.device();
    let pool = Pool::open(&[&file]).unwrap();
    let text = String::from_utf8(image.zdb(&["-dddddd", "fz/root@s0"]).stdout).unwrap();
    assert!(text.contains("EMBEDDED et=0 100000L") && text.contains("SPILL_BLKPTR"), "{text}");
    for (large_blocks, len) in [(false, 128 << 10), (true, 1 << 20)] {
        let stream = sent(&pool, "fz/root@s0", None, SendOptions { large_blocks, ..AS_STORED });
        let mut spills = 0;
        let mut next = 0;
        for record in records(&stream) {
            match record {
                Record::Spill { content, .. } => {
                    spills += 1;
                    assert!(content.windows(3000).any(|part| part == [b'n'; 3000]));
                }
                Record::Write { offset, block, .. } if offset < 3 << 20 && block.size == len => {
                    assert_eq!(block.embedded, large_blocks);
                    next += u64::from(len);
                    assert!(offset < next);
                }
                Record::Write { offset, .. } => assert!(offset < 3 << 20),
                _ => {}
            }
        }
        assert_eq!((spills, next), (1, 3 << 20));
        assert_files(&pool, "fz/root@s0", &received(&Objects::default(), &stream));
    }
    // zdb sends large ones so, and that is seen.
    let theirs = zdb_sends(&image, &numbered(&image, "fz/root@s0"), "ce");
    assert!(check(&theirs[..]).unwrap_err().to_string().contains("its size is impossible"));
}

#[test]
fn a_spill_block_that_is_sent_as_data_is_seen() {
    let mut stream = small_stream();
    let starts = starts(&stream);
    let embedded = starts.iter().find(|start| stream[**start] == 8).expect("a block is embedded");
    // Spill blocks have the number -2, of which OpenZFS makes an offset.
    let size = u64::from_le_bytes(stream[embedded + 24..embedded + 32].try_into().unwrap());
    let offset = 0u64.wrapping_sub(2 * size);
    stream[embedded + 16..embedded + 24].copy_from_slice(&offset.to_le_bytes());
    reseal(&mut stream, &starts);
    let error = check(&stream[..]).unwrap_err().to_string();
    assert!(error.contains("it is not the next block"), "{error}");
}
