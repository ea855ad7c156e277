//! Sets of byte ranges: what is allocated and what is used.

use std::collections::BTreeMap;

/// Ranges that do not touch each other, by their first byte.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range; false when part of it was there already, and then all of it is there.
    pub(super) fn add(&mut self, start: u64, end: u64) -> bool {
        if start >= end {
            return true;
        }
        let (mut first, mut last, mut fresh) = (start, end, true);
        // Everything that touches the new range is taken into it.
        while let Some((found, found_end)) = self.touching(first, last) {
            fresh &= found_end <= start || found >= end;
            self.0.remove(&found);
            first = first.min(found);
            last = last.max(found_end);
        }
        self.0.insert(first, last);
        fresh
    }

    /// Removes a range; false when part of it was not there.
    pub(super) fn remove(&mut self, start: u64, end: u64) -> bool {
        if start >= end {
            return true;
        }
        let mut removed = 0;
        while let Some((found, found_end)) =
            self.touching(start, end).filter(|(found, found_end)| *found < end && *found_end > start)
        {
            self.0.remove(&found);
            removed += found_end.min(end) - found.max(start);
            if found < start {
                self.0.insert(found, start);
            }
            if found_end > end {
                self.0.insert(end, found_end);
            }
        }
        removed == end - start
    }

    /// The last range that begins before `end`, or at it, if it reaches `start`. Of ranges that only meet an edge and
    /// those that overlap, an overlapping one comes first.
    fn touching(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let reaches =
            |(found, found_end): (&u64, &u64)| (*found_end >= start).then_some((*found, *found_end));
        let overlapping = self.0.range(..end).next_back().filter(|(_, found_end)| **found_end > start);
        match overlapping {
            Some((found, found_end)) => Some((*found, *found_end)),
            None => self.0.range(..=end).next_back().and_then(reaches),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(start, end)| (*start, *end))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.iter().map(|(start, end)| end - start).sum()
    }

    /// What is in `self` and not in `other`.
    pub(super) fn minus(&self, other: &Ranges) -> Ranges {
        let mut left = Ranges::default();
        let mut others = other.iter().peekable();
        for (start, end) in self.iter() {
            let mut at = start;
            while let Some((other_start, other_end)) = others.peek().copied() {
                if other_end <= at {
                    others.next();
                    continue;
                }
                if other_start >= end {
                    break;
                }
                if other_start > at {
                    left.0.insert(at, other_start);
                }
                at = other_end.min(end);
                if other_end >= end {
                    break;
                }
            }
            if at < end {
                left.0.insert(at, end);
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bits(ranges: &Ranges) -> Vec<bool> {
        let mut bits = vec![false; 64];
        for (start, end) in ranges.iter() {
            bits[start as usize..end as usize].fill(true);
        }
        bits
    }

    proptest! {
        #[test]
        fn ranges_behave_like_a_bitmap(
            steps in proptest::collection::vec((any::<bool>(), 0u64..64, 0u64..20), 0..40),
            others in proptest::collection::vec((0u64..64, 0u64..20), 0..10),
        ) {
            let mut ranges = Ranges::default();
            let mut model = vec![false; 64];
            for (add, start, len) in steps {
                let end = (start + len).min(64);
                let part = &mut model[start as usize..end as usize];
                if add {
                    prop_assert_eq!(ranges.add(start, end), part.iter().all(|bit| !bit));
                } else {
                    prop_assert_eq!(ranges.remove(start, end), part.iter().all(|bit| *bit));
                }
                part.fill(add);
                prop_assert_eq!(bits(&ranges), model.clone());
                let all: Vec<_> = ranges.iter().collect();
                prop_assert!(all.windows(2).all(|pair| pair[0].1 < pair[1].0), "{:?}", all);
            }
            let mut other = Ranges::default();
            for (start, len) in others {
                other.add(start, (start + len).min(64));
            }
            let expected: Vec<bool> =
                bits(&ranges).iter().zip(bits(&other)).map(|(a, b)| *a && !b).collect();
            prop_assert_eq!(bits(&ranges.minus(&other)), expected);
        }
    }
}
