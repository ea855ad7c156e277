//! What a policy keeps, for any snapshots.

use std::collections::BTreeSet;

use kld_snap::{Keep, Snapshot, choose, known, prune, reclaim_cmds, stamp};
use proptest::prelude::*;

fn snapshot(created: u64, txg: u64, holds: u64, clones: usize) -> Snapshot {
    Snapshot {
        dataset: "t/a".to_owned(),
        name: format!("x-{}", stamp(created)),
        created,
        txg,
        used: 0,
        referenced: 0,
        written: 0,
        holds,
        clones: (0..clones).map(|number| format!("t/c{number}")).collect(),
    }
}

/// Times over three years, in order; some are held or cloned.
fn series() -> impl Strategy<Value = Vec<Snapshot>> {
    let times = prop::collection::btree_set(1_700_000_000_u64..1_800_000_000, 0..120);
    (times, prop::collection::vec((0_u8..10, 0_u8..10), 120)).prop_map(|(times, luck)| {
        let all = times.into_iter().zip(luck).zip(1..);
        all.map(|((at, (hold, clone)), txg)| snapshot(at, txg, u64::from(hold == 0), usize::from(clone == 0)))
            .collect()
    })
}

fn policies() -> impl Strategy<Value = Keep> {
    (0_usize..8, 0_usize..50, 0_usize..40, 0_usize..10, 0_usize..14, 0_usize..4).prop_map(
        |(last, hourly, daily, weekly, monthly, yearly)| Keep {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
        },
    )
}

fn names(snapshots: &[Snapshot]) -> BTreeSet<String> {
    snapshots.iter().map(Snapshot::full).collect()
}

proptest! {
    #[test]
    fn nothing_is_lost_or_counted_twice(all in series(), keep in policies()) {
        let pruned = prune(&all, keep);
        prop_assert_eq!(pruned.kept.len() + pruned.gone.len() + pruned.spared.len(), all.len());
        let mut union = names(&pruned.kept);
        union.extend(names(&pruned.gone));
        union.extend(pruned.spared.iter().map(|(snapshot, _)| snapshot.full()));
        prop_assert_eq!(union, names(&all));
        prop_assert!(pruned.gone.iter().all(|snapshot| snapshot.holds == 0 && snapshot.clones.is_empty()));
    }

    #[test]
    fn a_policy_that_keeps_anything_keeps_the_newest(all in series(), keep in policies()) {
        let pruned = prune(&all, keep);
        if keep != Keep::default() && let Some(newest) = all.last() {
            prop_assert!(pruned.kept.contains(newest));
        }
        let most = keep.last + keep.hourly + keep.daily + keep.weekly + keep.monthly + keep.yearly;
        prop_assert!(pruned.kept.len() <= most);
        prop_assert!(pruned.kept.len() >= keep.last.min(all.len()));
    }

    #[test]
    fn pruning_again_takes_nothing(all in series(), keep in policies()) {
        let first = prune(&all, keep);
        let left: Vec<Snapshot> = all.iter().filter(|snapshot| !first.gone.contains(snapshot)).cloned().collect();
        let second = prune(&left, keep);
        prop_assert_eq!(second.gone.len(), 0, "{:?}", second.gone);
        prop_assert!(names(&first.kept).is_subset(&names(&second.kept)));
    }

    #[test]
    fn who_keeps_more_keeps_the_same_and_more(all in series(), keep in policies(), more in policies()) {
        let sum = Keep {
            last: keep.last + more.last,
            hourly: keep.hourly + more.hourly,
            daily: keep.daily + more.daily,
            weekly: keep.weekly + more.weekly,
            monthly: keep.monthly + more.monthly,
            yearly: keep.yearly + more.yearly,
        };
        prop_assert!(names(&prune(&all, keep).kept).is_subset(&names(&prune(&all, sum).kept)));
    }

    #[test]
    fn each_day_that_counts_keeps_its_newest(all in series(), daily in 1_usize..40) {
        let kept = prune(&all, Keep { daily, ..Keep::default() }).kept;
        let days: BTreeSet<u64> = all.iter().map(|snapshot| snapshot.created / 86_400).collect();
        let wanted: BTreeSet<u64> = days.iter().rev().take(daily).copied().collect();
        prop_assert_eq!(kept.iter().map(|snapshot| snapshot.created / 86_400).collect::<BTreeSet<_>>(), wanted);
        for snapshot in &kept {
            let of_day = all.iter().filter(|other| other.created / 86_400 == snapshot.created / 86_400);
            prop_assert_eq!(of_day.map(|other| other.created).max(), Some(snapshot.created));
        }
    }
}

#[test]
fn series_count_by_themselves_and_others_are_left_alone() {
    let mut all: Vec<Snapshot> =
        (0..4).map(|number| snapshot(1_700_000_000 + number, number + 1, 0, 0)).collect();
    all[3].name = "y-20231114-221323".to_owned();
    all.push(Snapshot {
        name: "autosnap_2023-11-14_22:13:24_daily".to_owned(),
        ..snapshot(1_700_000_004, 5, 0, 0)
    });
    all.push(Snapshot { dataset: "t/b".to_owned(), ..snapshot(1_600_000_000, 0, 0, 0) });
    let pruned = prune(&all, "1".parse().expect("the newest"));
    assert_eq!(pruned.gone.iter().map(|s| s.txg).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(pruned.kept.len(), 3);
}

#[test]
fn policies_are_read_as_they_are_written() {
    let keep: Keep = "last=5, daily=7,monthly=12".parse().expect("good");
    assert_eq!(keep, Keep { last: 5, daily: 7, monthly: 12, ..Keep::default() });
    assert_eq!("3".parse::<Keep>().expect("good").last, 3);
    for bad in ["", "0", "daily", "daily=x", "fortnightly=2", "daily=1,daily=2", "last=-1"] {
        let error = bad.parse::<Keep>().expect_err(bad);
        assert!(error.to_string().contains(bad) && error.hint().is_some(), "{error}");
    }
}

/// What `zfs destroy -nvp` says: for each unbroken run in the pool's order, the bytes that nothing outside of it refers to.
fn would_free(all: &[Snapshot], specification: &str, blocks: &[(usize, usize, u64)]) -> u64 {
    let chosen: BTreeSet<u64> =
        choose("t/a", all, specification).expect("there").iter().map(|s| s.txg).collect();
    let is_chosen: Vec<bool> = all.iter().map(|snapshot| chosen.contains(&snapshot.txg)).collect();
    // A block lives from one snapshot to another; one that is still there lives longer than any.
    let goes =
        |(from, to, _): &&(usize, usize, u64)| *to < all.len() && is_chosen[*from..=*to].iter().all(|is| *is);
    blocks.iter().filter(goes).map(|(_, _, bytes)| bytes).sum()
}

proptest! {
    #[test]
    fn what_comes_free_is_exact_for_any_choice(
        count in 1_usize..40,
        picked in prop::collection::vec(any::<bool>(), 40),
        // Whether no block is in two snapshots.
        brief in any::<bool>(),
        lives in prop::collection::vec((0_usize..40, 0_usize..20, 1_u64..1 << 30), 0..80),
    ) {
        let mut all: Vec<Snapshot> = (0..count as u64).map(|n| snapshot(1_700_000_000 + n, n + 1, 0, 0)).collect();
        let longest = if brief { 1 } else { usize::MAX };
        let lives = lives.into_iter().map(|(from, longer, bytes)| (from % count, longer % longest, bytes));
        let blocks: Vec<_> = lives.map(|(from, longer, bytes)| (from, from + longer, bytes)).collect();
        for (at, snapshot) in all.iter_mut().enumerate() {
            let alone = blocks.iter().filter(|(from, to, _)| (*from, *to) == (at, at));
            snapshot.used = alone.map(|(_, _, bytes)| bytes).sum();
        }
        let chosen: Vec<&Snapshot> = all.iter().zip(&picked).filter(|(_, is)| **is).map(|(s, _)| s).collect();
        let mut asked = 0;
        let mut named = BTreeSet::new();
        for cmd in reclaim_cmds("t/a", &all, &chosen) {
            let words: Vec<String> = cmd.argv().map(|word| word.to_string_lossy().into_owned()).collect();
            prop_assert_eq!(&words[..2], ["destroy", "-nvp"]);
            let specification = words[2].strip_prefix("t/a@").expect("of the dataset");
            asked += would_free(&all, specification, &blocks);
            named.extend(choose("t/a", &all, specification).expect("there").iter().map(|s| s.full()));
        }
        let is_chosen = |at: usize| picked[at];
        let goes = |(from, to, _): &&(usize, usize, u64)| *to < count && (*from..=*to).all(is_chosen);
        prop_assert_eq!(asked, blocks.iter().filter(goes).map(|(_, _, bytes)| bytes).sum::<u64>());
        // What is known without asking is the same.
        let by_snapshots = blocks.iter().filter(|(_, to, _)| *to < count).map(|(_, _, bytes)| bytes).sum();
        let known = [None, Some(by_snapshots)].map(|by| known("t/a", &all, &chosen, by));
        prop_assert!(known.iter().flatten().all(|known| *known == asked), "{:?}, {}", known, asked);
        prop_assert!(known[1].is_some() || !brief);
        prop_assert_eq!(named, chosen.iter().map(|s| s.full()).collect::<BTreeSet<_>>());
    }
}

#[test]
fn thousands_in_a_row_are_one_question() {
    let all: Vec<Snapshot> = (0..7000).map(|n| snapshot(1_700_000_000 + n, n + 1, 0, 0)).collect();
    let every: Vec<&Snapshot> = all.iter().collect();
    let said: Vec<String> = reclaim_cmds("t/a", &all, &every).iter().map(ToString::to_string).collect();
    assert_eq!(said, ["zfs destroy -nvp t/a@x-20231114-221320%x-20231115-000959"]);
    let other: Vec<&Snapshot> = all.iter().step_by(2).collect();
    let cmds = reclaim_cmds("t/a", &all, &other);
    assert_eq!(cmds.len(), 1, "3500 names of 17 bytes");
    assert_eq!(reclaim_cmds("t/a", &all, &[]).len(), 0);
}
