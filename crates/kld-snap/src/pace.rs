//! How many snapshots are destroyed at a time.

use std::time::Duration;

/// How long others may wait for one `zfs destroy`: whoever reads or writes properties of the pool meanwhile waits for its
/// transaction group. A quarter of a second is felt by nobody who types.
const WAIT: Duration = Duration::from_millis(250);
/// Names of the first one, before anything is known of the pool.
const FIRST: usize = 25;
/// Names of the longest one: Linux takes no argument above 128 KiB (`MAX_ARG_STRLEN`), and a name has at most 255 bytes.
const MOST: usize = 400;

/// The number of snapshots that go at a time: as many as the pool destroys while nobody minds waiting. A list in one
/// transaction group costs little more than one snapshot, so large batches are fast and small ones are kind; how long the
/// ones before took decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace(usize);

impl Default for Pace {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Pace {
    /// Snapshots of the next batch, at least one.
    pub const fn batch(self) -> usize {
        self.0
    }

    /// After a batch of so many took so long. It doubles at most: one lucky batch says little of the next.
    #[must_use]
    pub fn after(self, destroyed: usize, took: Duration) -> Self {
        let fitting = destroyed as u128 * WAIT.as_nanos() / took.as_nanos().max(1);
        Self((fitting.min(2 * self.0 as u128) as usize).clamp(1, MOST))
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
        assert_eq!(sizes(5, 100), [25, 50, 100, 200, 400, 225]);
        assert_eq!(sizes(20, 14_000)[..4], [25, 16, 16, 16]);
        assert_eq!(sizes(1000, 0)[..6], [25, 6, 1, 1, 1, 1], "the list itself takes too long");
    }

    proptest! {
        #[test]
        fn after_the_first_nobody_waits_longer_than_has_to_be(
            count in 1usize..20_000, list in 0u64..200_000, name in 1u64..50_000,
        ) {
            let (list, name) = (Duration::from_micros(list), Duration::from_micros(name));
            let made = batches(count, list, name);
            prop_assert_eq!(made.iter().map(|(batch, _)| batch).sum::<usize>(), count);
            for (batch, took) in &made[1..] {
                prop_assert!(*batch == 1 || *took <= WAIT * 2, "{batch} take {took:?}");
            }
        }
    }
}
