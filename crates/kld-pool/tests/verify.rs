//! The verifier finds nothing wrong with what the writer writes, and everything that is changed afterwards.

mod support;

use std::collections::BTreeMap;

use kld_pool::PoolSpec;
use kld_pool::read::Pool;
use kld_pool::verify::{FindingKind, Report, verify};
use proptest::prelude::*;
use support::{Random, dataset, pool, random_tree, write};

fn report(bytes: &[u8]) -> Report {
    verify(&Pool::open(&[&bytes]).unwrap(), &())
}

#[track_caller]
fn assert_clean(report: &Report) {
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(report.is_clean(), "{}", findings.join("\n"));
    assert_eq!(report.not_checked, [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_is_written_is_clean(
        seed: u64,
        count in 1usize..120,
        ashift in prop::sample::select(vec![9u8, 12, 13]),
        compression in prop::sample::select(vec!["off", "lz4", "zstd-3"]),
        records in prop::sample::select(vec!["512", "4k", "128k", "1M"]),
        dnodes in prop::sample::select(vec!["legacy", "auto"]),
        snapshots in 0usize..4,
    ) {
        let tree = random_tree(&mut Random(seed), count);
        let mut spec = pool(300);
        spec.ashift = ashift;
        let properties = [("compression", compression), ("recordsize", records), ("dnodesize", dnodes)];
        let mut root = dataset("fz/root", &properties, Some(tree));
        root.snapshots = (0..snapshots).map(|i| format!("s{i}").into()).collect();
        let limits = [("refreservation", "10M"), ("quota", "100M")];
        let other = dataset("fz/srv/db", &limits, Some(random_tree(&mut Random(seed ^ 1), 10)));
        spec.datasets = vec![root, other, dataset("fz/srv", &[("reservation", "50M")], None)];
        let image = write(&spec);
        let report = report(&image.bytes());
        assert_clean(&report);
        prop_assert_eq!(report.used.iter().sum::<u64>(), image.summary.allocated);
    }
}

/// A small pool with some of everything.
fn small() -> PoolSpec {
    let mut spec = pool(64);
    let mut root = dataset("fz/root", &[("dnodesize", "auto")], Some(random_tree(&mut Random(11), 60)));
    root.snapshots = vec!["a".into()];
    spec.datasets = vec![root];
    spec
}

const SECTOR: usize = 4096;

/// The sectors that hold something, between the labels: nothing is written where nothing is allocated.
fn sectors_in_use(clean: &[u8]) -> Vec<usize> {
    let space = 4 << 20..clean.len() - (512 << 10);
    space.step_by(SECTOR).filter(|at| clean[*at..at + SECTOR] != [0; SECTOR]).collect()
}

#[test]
fn damaged_bytes_are_found() {
    // What lies between the labels' parts, and the copy of a block that is not stored at all, nobody can notice.
    let image = write(&small());
    let clean = image.bytes();
    let sectors = sectors_in_use(&clean);
    let mut random = Random(99);
    let mut kinds: BTreeMap<FindingKind, usize> = BTreeMap::new();
    let mut bytes = clean.clone();
    for round in 0..150 {
        let at = random.pick(&sectors) + random.below(SECTOR);
        let bit = 1 << random.below(8);
        bytes[at] ^= bit;
        match Pool::open(&[&bytes]) {
            Ok(pool) => {
                let report = verify(&pool, &());
                if report.is_clean() {
                    // Padding behind a block that does not fill its last sector.
                    assert!(clean[at] == 0, "round {round}: nobody notices byte {at:#x}");
                }
                report.findings.iter().for_each(|finding| *kinds.entry(finding.kind).or_default() += 1);
            }
            Err(error) => panic!("round {round}: a single byte makes the pool unreadable: {error}"),
        }
        bytes[at] ^= bit;
    }
    for kind in [FindingKind::Copy, FindingKind::Unreadable] {
        assert!(kinds.contains_key(&kind), "{kinds:?}");
    }
}

#[test]
fn damaged_labels_are_found() {
    let clean = write(&small()).bytes();
    let end = clean.len();
    for label in [0, 256 << 10, end - (512 << 10), end - (256 << 10)] {
        // Configuration, and the first uberblock; a slot whose magic number is gone is one that was never used.
        let slot = (128..256).step_by(4).find(|kib| clean[label + kib * 1024] != 0).unwrap() * 1024;
        for at in [16 << 10, (16 << 10) + 300, slot + 20, slot + 200] {
            let mut bytes = clean.clone();
            bytes[label + at] ^= 0x10;
            let report = report(&bytes);
            assert!(!report.is_clean(), "nobody notices byte {at:#x} of the label at {label:#x}");
            assert!(report.findings.iter().all(|finding| finding.kind == FindingKind::Label));
        }
    }
}

/// Damage that every checksum agrees with cannot be made without writing; many wrong bytes at once come near.
#[test]
fn nothing_panics_on_garbage() {
    let clean = write(&small()).bytes();
    let in_use: Vec<usize> = sectors_in_use(&clean)
        .into_iter()
        .flat_map(|sector| sector..sector + SECTOR)
        .filter(|at| clean[*at] != 0)
        .collect();
    let mut random = Random(7);
    for _ in 0..60 {
        let mut bytes = clean.clone();
        for _ in 0..random.pick(&[10, 300, 3000]) {
            let at = in_use[random.below(in_use.len())];
            bytes[at] = clean[at].wrapping_add(1 + random.below(255) as u8);
        }
        if let Ok(pool) = Pool::open(&[&bytes]) {
            assert!(!verify(&pool, &()).is_clean());
            drop(pool.datasets());
            if let Ok(filesystem) = pool.filesystem("fz/root") {
                for entry in filesystem.walk().flatten() {
                    let mut content = filesystem.content(&entry.node);
                    drop(std::io::copy(&mut content, &mut std::io::sink()));
                    drop(filesystem.xattrs(&entry.node));
                }
            }
        }
    }
}

#[test]
fn the_report_does_not_depend_on_threads() {
    let mut bytes = write(&small()).bytes();
    let sectors = sectors_in_use(&bytes);
    let mut random = Random(3);
    (0..200).for_each(|_| bytes[random.pick(&sectors) + random.below(SECTOR)] ^= 1);
    let Ok(pool) = Pool::open(&[&bytes]) else { return };
    let once = verify(&pool, &());
    assert!(!once.is_clean());
    for _ in 0..3 {
        assert_eq!(verify(&pool, &()).findings, once.findings);
    }
}

/// What became of a pool after damage, as the verifier tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// The byte means nothing.
    Unused,
    /// Another copy, or another label, has what was damaged.
    Spare,
    /// Something cannot be read any more.
    Lost,
}

fn verdict(bytes: &Vec<u8>) -> Verdict {
    let Ok(pool) = Pool::open(&[bytes]) else { return Verdict::Lost };
    let report = verify(&pool, &());
    let is_lost = |kind| !matches!(kind, FindingKind::Copy | FindingKind::Label);
    match report.findings.iter().map(|finding| finding.kind).max_by_key(|kind| is_lost(*kind)) {
        None => Verdict::Unused,
        Some(kind) if is_lost(kind) => Verdict::Lost,
        Some(_) => Verdict::Spare,
    }
}

/// What zdb calls whole is what the verifier calls whole, up to copies that are spare: zdb heals those and says nothing.
#[test]
fn zdb_agrees() {
    let image = write(&small());
    image.check();
    let clean = image.bytes();
    assert_clean(&report(&clean));
    let sectors = sectors_in_use(&clean);
    let mut random = Random(5);
    let mut cases: Vec<(&str, Vec<usize>)> = vec![
        ("the configuration of a label", vec![(16 << 10) + 300]),
        (
            "the uberblocks of the last label",
            (clean.len() - (128 << 10)..clean.len()).step_by(1024).collect(),
        ),
        ("the part of a label for boot loaders", vec![9000]),
        ("space that was never used", vec![clean.len() - (600 << 10)]),
    ];
    let mut wanted = BTreeMap::from([(Verdict::Unused, 1), (Verdict::Spare, 3), (Verdict::Lost, 3)]);
    // A hit takes a handful of tries; should none ever come, the counts below say so.
    for _ in 0..1000 {
        if wanted.values().all(|left| *left == 0) {
            break;
        }
        let at = random.pick(&sectors) + random.below(SECTOR);
        let mut bytes = clean.clone();
        bytes[at] ^= 1;
        let found = verdict(&bytes);
        let left = wanted.get_mut(&found).unwrap();
        if *left > 0 {
            *left -= 1;
            cases.push(("a byte of allocated space", vec![at]));
            // The other copies have the same bytes at other places.
            if found == Verdict::Spare {
                let sector = &clean[at / SECTOR * SECTOR..][..SECTOR];
                let copies = clean.chunks_exact(SECTOR).enumerate().filter(|(_, other)| *other == sector);
                cases.push(("all copies", copies.map(|(i, _)| i * SECTOR + at % SECTOR).collect()));
            }
        }
    }
    let mut seen = BTreeMap::<Verdict, usize>::new();
    for (what, places) in cases {
        let mut bytes = clean.clone();
        places.iter().for_each(|at| bytes[*at] ^= 1);
        std::fs::write(image.dir.path().join("pool.img"), &bytes).unwrap();
        let found = verdict(&bytes);
        *seen.entry(found).or_default() += 1;
        let seconds = if found == Verdict::Lost { 5 } else { 120 };
        let shown = format!("{what}, at {:#x}: the verifier says {found:?}", places[0]);
        assert_eq!(image.zdb_is_content(seconds), found != Verdict::Lost, "{shown}");
    }
    assert!(
        seen[&Verdict::Unused] >= 3 && seen[&Verdict::Spare] >= 5 && seen[&Verdict::Lost] >= 6,
        "{seen:?}"
    );
}
