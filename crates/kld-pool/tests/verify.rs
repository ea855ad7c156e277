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

#[test]
fn damaged_bytes_are_found() {
    let image = write(&small());
    let mut bytes = image.bytes();
    let in_use = in_use(&bytes);
    let mut random = Random(99);
    let mut kinds: BTreeMap<FindingKind, usize> = BTreeMap::new();
    for round in 0..150 {
        let at = in_use[random.below(in_use.len())];
        let bit = 1 << random.below(8);
        bytes[at] ^= bit;
        match Pool::open(&[&bytes]) {
            Ok(pool) => {
                let report = verify(&pool, &());
                assert!(!report.is_clean(), "round {round}: nobody notices byte {at:#x}");
                report.findings.iter().for_each(|finding| *kinds.entry(finding.kind).or_default() += 1);
            }
            Err(error) => panic!("round {round}: a single byte makes the pool unreadable: {error}"),
        }
        bytes[at] ^= bit;
    }
    assert!(kinds.contains_key(&FindingKind::Copy), "{kinds:?}");
}

#[test]
fn damaged_labels_are_found() {
    let clean = write(&small()).bytes();
    let end = clean.len();
    for label in [0, 256 << 10, end - (512 << 10), end - (256 << 10)] {
        // Configuration, and the one uberblock that was written.
        let slot = (128..256).step_by(4).find(|kib| clean[label + kib * 1024] != 0).unwrap() * 1024;
        for at in [16 << 10, (16 << 10) + 300, slot, slot + 20, slot + 200] {
            let mut bytes = clean.clone();
            bytes[label + at] ^= 0x10;
            let report = report(&bytes);
            assert!(!report.is_clean(), "nobody notices byte {at:#x} of the label at {label:#x}");
            assert!(report.findings.iter().all(|finding| finding.kind == FindingKind::Label));
        }
    }
}

/// Where blocks have bytes. Space that is not in use was never written: behind the first two labels and before the last two.
fn in_use(pool: &[u8]) -> Vec<usize> {
    (4 << 20..pool.len() - (512 << 10)).filter(|at| pool[*at] != 0).collect()
}

/// Damage that every checksum agrees with cannot be made without writing; many wrong bytes at once come near.
#[test]
fn nothing_panics_on_garbage() {
    let clean = write(&small()).bytes();
    let in_use = in_use(&clean);
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
    let in_use = in_use(&bytes);
    let mut random = Random(3);
    (0..200).for_each(|_| bytes[in_use[random.below(in_use.len())]] ^= 1);
    let pool = Pool::open(&[&bytes]).expect("labels are whole");
    let once = verify(&pool, &());
    assert!(!once.is_clean());
    for _ in 0..3 {
        assert_eq!(verify(&pool, &()).findings, once.findings);
    }
}

#[test]
fn zdb_agrees() {
    let image = write(&small());
    image.check();
    assert_clean(&report(&image.bytes()));
    // A byte of file data: stored once, so that zdb cannot heal it.
    let mut bytes = image.bytes();
    let in_use = in_use(&bytes);
    let mut random = Random(17);
    let at = (0..200).map(|_| in_use[random.below(in_use.len())]).find(|at| {
        bytes[*at] ^= 1;
        let lost = report(&bytes).findings.iter().any(|finding| finding.kind == FindingKind::Unreadable);
        if !lost {
            bytes[*at] ^= 1;
        }
        lost
    });
    let at = at.expect("most of the pool is file data");
    std::fs::write(image.dir.path().join("pool.img"), &bytes).unwrap();
    let output = image.zdb(&["-bcc", "fz"]);
    assert!(
        !output.status.success(),
        "zdb does not see byte {at:#x}: {}",
        String::from_utf8_lossy(&output.stdout)
    );
}
