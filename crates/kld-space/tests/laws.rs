//! Sums, for pools that nobody has seen.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kld_space::{Forest, Growth, parse_list};
use proptest::prelude::*;

/// A dataset as a pool keeps it; what is below it and what `zfs list` says is worked out.
#[derive(Debug, Clone)]
struct Fake {
    /// Its parent, among those before it; the first is the pool.
    parent: usize,
    name: String,
    data: u64,
    in_snapshots: u64,
    refreservation: u64,
    reservation: u64,
    /// What each snapshot refers to, oldest first.
    snapshots: Vec<u64>,
}

const LETTERS: &str = "[a-zA-Z0-9_.: -]{1,12}";

fn fake() -> impl Strategy<Value = Fake> {
    let sizes = (0_u64..1 << 40, 0_u64..1 << 40, 0_u64..1 << 30);
    let reservation = prop_oneof![Just(0), 0_u64..1 << 43];
    let snapshots = prop::collection::vec(0_u64..1 << 41, 0..4);
    (any::<prop::sample::Index>(), LETTERS, sizes, reservation, snapshots).prop_map(
        |(parent, name, (data, in_snapshots, refreservation), reservation, snapshots)| Fake {
            // An index into a hundred; brought into range when the others are known.
            parent: parent.index(100),
            name,
            data,
            in_snapshots,
            refreservation,
            reservation,
            snapshots,
        },
    )
}

/// The pool, what ZFS says it uses by name, and what its metadata takes.
struct Pool {
    text: String,
    used: BTreeMap<String, u64>,
    hidden: u64,
}

/// As dsl_dir.c of OpenZFS counts: a parent is charged what its child uses, or what is reserved for it when that is more.
fn pool(fakes: &[Fake], hidden: u64, shuffled: bool) -> Pool {
    let mut names = vec!["tank".to_owned()];
    for (place, fake) in fakes.iter().enumerate().skip(1) {
        // Numbered, so that siblings have different names.
        names.push(format!("{}/{}{place}", names[fake.parent % place], fake.name));
    }
    let mut children = vec![0_u64; fakes.len()];
    children[0] = hidden;
    let mut used = vec![0; fakes.len()];
    for (place, fake) in fakes.iter().enumerate().rev() {
        used[place] = fake.data + fake.in_snapshots + fake.refreservation + children[place];
        if place > 0 {
            children[fake.parent % place] += used[place].max(fake.reservation);
        }
    }
    let blocks = fakes.iter().enumerate().map(|(place, fake)| {
        let (name, used, children) = (&names[place], used[place], children[place]);
        let Fake { data, in_snapshots, refreservation, reservation, .. } = fake;
        let mut block = format!(
            "{name}\tfilesystem\t{used}\t77\t{data}\t{used}\t{data}\t1.00\t{in_snapshots}\t{data}\t{children}\t{refreservation}\t{reservation}\t{refreservation}\t0\t0\t5\t-\t-\n"
        );
        for (number, referenced) in fake.snapshots.iter().enumerate() {
            let _ = writeln!(
                block,
                "{name}@s{number}\tsnapshot\t1\t-\t{referenced}\t-\t{referenced}\t1.00\t-\t-\t-\t-\t-\t-\t-\t-\t{}\t-\t",
                number + 6
            );
        }
        block
    });
    let mut blocks: Vec<String> = blocks.collect();
    if shuffled {
        blocks.reverse();
    }
    Pool { text: blocks.concat(), used: names.into_iter().zip(used).collect(), hidden }
}

proptest! {
    #[test]
    fn what_the_parts_sum_up_to_is_what_is_used(
        fakes in prop::collection::vec(fake(), 1..40), hidden in 0_u64..1 << 30, shuffled: bool,
    ) {
        let pool = pool(&fakes, hidden, shuffled);
        let forest = Forest::new(parse_list(&pool.text).expect("as zfs writes it"));
        prop_assert_eq!(forest.nodes.len(), fakes.len());
        for node in &forest.nodes {
            prop_assert_eq!(node.whole.total(), node.dataset.used, "{}", node.dataset.name);
            prop_assert_eq!(pool.used.get(&node.dataset.name), Some(&node.dataset.used));
            prop_assert_eq!(node.whole.hidden, if node.depth == 0 { pool.hidden } else { 0 });
        }
        let root = forest.roots().next().expect("the pool");
        prop_assert_eq!(forest.roots().count(), 1);
        prop_assert_eq!(root.whole.data, fakes.iter().map(|fake| fake.data).sum::<u64>());
        prop_assert_eq!(root.whole.snapshots, fakes.iter().map(|fake| fake.in_snapshots).sum::<u64>());
        prop_assert_eq!(root.snapshots, fakes.iter().map(|fake| fake.snapshots.len()).sum::<usize>());
        // What each takes by itself is what all take.
        let own = forest.nodes.iter().map(|node| node.own.total()).sum::<u64>();
        let kept = root.whole.reserved - fakes.iter().map(|fake| fake.refreservation).sum::<u64>();
        prop_assert_eq!(own + kept + pool.hidden, root.dataset.used);
    }

    #[test]
    fn each_is_followed_by_what_is_below_it(fakes in prop::collection::vec(fake(), 1..40), shuffled: bool) {
        let forest = Forest::new(parse_list(&pool(&fakes, 0, shuffled).text).expect("as zfs writes it"));
        let mut above: Vec<&str> = Vec::new();
        for node in &forest.nodes {
            above.truncate(node.depth);
            prop_assert_eq!(above.len(), node.depth);
            let parent = node.dataset.name.rsplit_once('/').map(|(parent, _)| parent);
            prop_assert_eq!(above.last().copied(), parent);
            above.push(&node.dataset.name);
        }
        // The order of the text says nothing.
        let other = Forest::new(parse_list(&pool(&fakes, 0, !shuffled).text).expect("as zfs writes it"));
        prop_assert_eq!(forest, other);
    }

    #[test]
    fn growth_counts_from_the_oldest(fakes in prop::collection::vec(fake(), 1..10)) {
        for dataset in parse_list(&pool(&fakes, 0, false).text).expect("as zfs writes it") {
            let want = dataset.snapshots.first().map(|oldest| Growth {
                since: "s0".to_owned(),
                created: 6,
                bytes: i64::try_from(dataset.referenced).expect("small") - i64::try_from(oldest.referenced).expect("small"),
            });
            prop_assert_eq!(dataset.growth(), want);
        }
    }

    #[test]
    fn whatever_comes_is_read_or_refused(text in "(?s)[\\t\\n@/a0-]{0,200}") {
        if let Ok(datasets) = parse_list(&text) {
            Forest::new(datasets);
        }
    }
}

#[test]
fn a_part_of_a_pool_has_roots_of_its_own() {
    let fakes = ["a", "b", "c"].map(|name| Fake {
        parent: 0,
        name: name.to_owned(),
        data: 10,
        in_snapshots: 1,
        refreservation: 0,
        reservation: 0,
        snapshots: vec![],
    });
    let text = pool(&fakes, 0, false).text;
    let below: String = text.lines().skip(1).map(|line| format!("{line}\n")).collect();
    let forest = Forest::new(parse_list(&below).expect("good"));
    assert_eq!(
        forest.roots().map(|node| node.dataset.name.as_str()).collect::<Vec<_>>(),
        ["tank/b1", "tank/c2"]
    );
}
