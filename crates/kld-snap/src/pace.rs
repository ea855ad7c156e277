//! How many snapshots are destroyed at a time.

use std::time::Duration;

/// How much longer others may wait for a list than for a single snapshot: whoever reads or writes properties of the pool meanwhile
/// waits for its transaction group. Half a second interrupts nobody's thought.
const WAIT: Duration = Duration::from_millis(500);
/// Names of the second list, once the first has shown what one costs.
const SECOND: usize = 25;
/// Names of the longest one. Those of one dataset must go into one argument, too: Linux takes none above 128 KiB
/// (`MAX_ARG_STRLEN`), and a name has at most 255 bytes.
const MOST: usize = 400;

/// The number of snapshots that go at a time. Every list costs a transaction group, which a slow disk takes long for, however short
/// the list is; and each name costs a little. So the first list is of one name; what longer ones took beyond the shortest time that
/// was seen is what their names cost, and they have as many as cost half a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    batch: usize,
    /// What a list costs by itself.
    list: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { batch: 1, list: Duration::MAX }
    }
}

impl Pace {
    /// Snapshots of the next batch, at least one.
    pub const fn batch(self) -> usize {
        self.batch
    }

    /// After a batch of so many took so long. It doubles at most: one lucky batch says little of the next.
    #[must_use]
    pub fn after(self, destroyed: usize, took: Duration) -> Self {
        let list = self.list.min(took);
        let names = (took - list).as_nanos().max(1);
        let fitting = destroyed as u128 * WAIT.as_nanos() / names;
        let growing = if self.list == Duration::MAX { SECOND } else { 2 * self.batch };
        Self { batch: (fitting.min(growing as u128) as usize).clamp(1, MOST), list }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Batches of a pool that needs so long for each list and for each name.
    fn batches(mut left: usize, list: Duration, name: Duration) -> Vec<(usize, Duration)> {
        let (mut pace, mut made) = (Pace::default(), Vec::new());
        while left > 0 {
            let batch = pace.batch().min(left);
            let took = list + name * batch as u32;
            pace = pace.after(batch, took);
            made.push((batch, took));
            left -= batch;
        }
        made
    }

    #[test]
    fn a_fast_pool_takes_long_lists_and_a_slow_one_short_ones() {
        let sizes = |list, name| -> Vec<usize> {
            let of = batches(1000, Duration::from_millis(list), Duration::from_micros(name));
            of.iter().map(|(batch, _)| *batch).collect()
        };
        assert_eq!(sizes(5, 100), [1, 25, 50, 100, 200, 400, 224]);
        assert_eq!(sizes(20, 14_000)[..4], [1, 25, 37, 36]);
        assert_eq!(sizes(1000, 100)[..6], [1, 25, 50, 100, 200, 400], "short lists are no faster");
        assert_eq!(sizes(0, 1_000_000)[..6], [1, 25, 1, 2, 1, 2], "one guess is enough");
    }

    proptest! {
        #[test]
        fn after_the_second_nobody_waits_longer_than_has_to_be(
            count in 1usize..20_000, list in 0u64..200_000, name in 1u64..50_000,
        ) {
            let (list, name) = (Duration::from_micros(list), Duration::from_micros(name));
            let made = batches(count, list, name);
            prop_assert_eq!(made.iter().map(|(batch, _)| batch).sum::<usize>(), count);
            // The second one is a guess.
            for (batch, took) in made.iter().skip(2) {
                prop_assert!(*batch == 1 || *took <= list + WAIT * 2 + name, "{batch} take {took:?}");
            }
        }
    }
}
