//! What fuzzing found stays found: its inputs are run again, and a sample of new ones.

use std::path::Path;

use proptest::prelude::*;

use super::*;

/// The inputs that are kept for a target, with their names: those that a person chose, and those with which libFuzzer
/// reaches all that it has reached.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let chosen = std::fs::read_dir(dir.join(target)).unwrap_or_else(|error| panic!("{target}: {error}"));
    let mut inputs: Vec<(String, Vec<u8>)> = chosen
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.display().to_string(), std::fs::read(&path).unwrap())
        })
        .collect();
    let packed = dir.join(format!("{target}.tar.zst"));
    if packed.exists() {
        let mut tar = tempfile::NamedTempFile::new().unwrap();
        zstd::stream::copy_decode(std::fs::File::open(packed).unwrap(), &mut tar).unwrap();
        let tree = Tree::from_tar(tar.path()).unwrap();
        let found = tree.walk().filter(|(_, node)| !node.is_dir());
        inputs.extend(found.map(|(path, _)| {
            let name = String::from_utf8_lossy(&path).into_owned();
            (name, tree.read(path.as_slice()).unwrap())
        }));
    }
    inputs.sort();
    inputs
}

#[test]
fn inputs_that_were_kept_do_no_harm() {
    for (name, target) in TARGETS {
        let inputs = corpus(name);
        assert!(!inputs.is_empty(), "no input is kept for `{name}`");
        for (input, bytes) in inputs {
            let outcome = std::panic::catch_unwind(|| target(&bytes));
            assert!(outcome.is_ok(), "`{name}`: {input} does harm");
        }
    }
}

#[test]
fn a_forgery_that_changes_nothing_is_clean() {
    let forge = forge();
    // Every block gets a new checksum, which must be the old one.
    let all: Vec<Change> = (0..forge.len())
        .map(|block| Change { block, at: 0, what: What::Add { width: 1, value: 0 } })
        .collect();
    let forged = forge.apply(&all).expect("nothing grew");
    let pool = Pool::open(&[&forged]).unwrap();
    let report = verify(&pool, &());
    assert!(report.is_clean() && report.not_checked.is_empty(), "{:?}", report.findings);
    use_pool(&forged);
}

#[test]
fn a_web_of_pointers_is_no_endless_way() {
    const SIZE: usize = 1024;
    const LEVELS: usize = 12;
    // Each block of pointers leads to the next one eight times; the last one leads nowhere.
    let mut device = vec![0; DATA_START as usize];
    for i in 1..LEVELS - 1 {
        let below = pointer(i * SIZE, SIZE, (LEVELS - 1 - i) as u64);
        device.extend(below.repeat(SIZE / POINTER));
    }
    device.resize(device.len() + SIZE, 0);
    let mut bytes = [0; 512];
    (bytes[0], bytes[1], bytes[2], bytes[3], bytes[8]) = (19, 10, LEVELS as u8, 1, 1);
    bytes[64..64 + POINTER].copy_from_slice(&pointer(0, SIZE, LEVELS as u64 - 1));
    let file = Dnode::decode(&bytes).unwrap().unwrap();
    let error = file.next_data(&blocks_of(&device), 0).unwrap_err();
    assert_eq!(error.to_string(), "an object is damaged: two of its pointers lead to one block of pointers");
}

#[test]
fn lists_of_parts_are_no_longer_than_the_block() {
    // A list of three parts, each of which is this list again.
    let mut part = pointer(0, 512, 0);
    put_u64(&mut part, 8, 1 << 63);
    put_u64(&mut part, 80, 0);
    let mut list = part.repeat(3);
    list.resize(512, 0);
    seal_area(&mut list, 0);
    let mut device = vec![0; DATA_START as usize];
    device.extend(list);
    for size in [512, 1024, 4096] {
        let mut whole = part;
        put_u64(&mut whole, 48, u64::from_le_bytes(*pointer(0, size, 0)[48..].first_chunk().unwrap()));
        let error = blocks_of(&device).read(&BlockPointer::decode(&whole).unwrap()).unwrap_err();
        assert!(error.to_string().contains("bad list of parts"), "{size}: {error}");
    }
}

#[test]
fn counts_that_exceed_a_number_are_findings() {
    let forge = forge();
    // The head of the pool's own objects, with three pointers instead of one, each to more than there can be.
    let root = forge.len() - 3;
    let set = |at, width, value| Change { block: root, at, what: What::Set { width, value } };
    let copy = |at| Change { block: root, at, what: What::Copy { len: POINTER, block: root, from: 64 } };
    let fills = (0..3).map(|i| set(64 + i * POINTER + 88, 8, u64::MAX));
    let changes: Vec<Change> =
        [set(3, 1, 3), copy(64 + POINTER), copy(64 + 2 * POINTER)].into_iter().chain(fills).collect();
    let forged = forge.apply(&changes).unwrap();
    let report = verify(&Pool::open(&[&forged]).unwrap(), &());
    assert!(report.findings.iter().any(|finding| finding.problem.contains("miscounts its objects")));
}

/// Numbers that are at the edge of something.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0u64..300,
        (0u32..64).prop_map(|bit| 1 << bit),
        (0u32..64).prop_map(|bit| (1 << bit) - 1),
        Just(u64::MAX),
        (0u64..300).prop_map(|less| u64::MAX - less),
    ]
}

fn changes() -> impl Strategy<Value = Vec<u8>> {
    let change =
        (any::<u16>(), any::<u32>(), any::<u8>(), number()).prop_map(|(block, at, operation, value)| {
            let (block, at, value) = (block.to_le_bytes(), at.to_le_bytes(), value.to_le_bytes());
            [&block[..], &at[..3], &[operation], &value].concat()
        });
    proptest::collection::vec(change, 1..6).prop_map(|changes| changes.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn forged_pools_do_no_harm(bytes in changes()) {
        pool(&bytes);
    }
}
