//! The pointers above the blocks of an object that is in no pool: which of them a walk would follow, and where it would meet
//! holes.
//!
//! A walk skips a pointer that is no younger than the older snapshot, with everything below it, and meets a hole as the
//! largest range of blocks that nothing was ever written to, aligned as pointers are. Both follow from what became of the
//! blocks, in their order: what is not certain yet waits at its pointer, at most a thousand holes for each level.

use super::walk::Place;

/// log2 of the pointers in an indirect block, and how many that is.
const FANOUT_SHIFT: u32 = 10;
const FANOUT: u64 = 1 << FANOUT_SHIFT;

/// What became of a block, or of everything below a pointer, since the older snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It holds what it did.
    Same,
    /// Something was written.
    Changed,
    /// A hole, and was one.
    Hole,
    /// A hole where something was.
    Freed,
}

/// An indirect block that is not complete.
#[derive(Debug, Default)]
struct Open {
    children: u64,
    /// Holes that are met only if the block is followed.
    holes: Vec<Place>,
    /// There is something that is no hole.
    has_data: bool,
    changed: bool,
    freed: bool,
}

/// The tree over the blocks of one object.
#[derive(Debug)]
pub(super) struct Spans {
    /// Levels of pointers, the one in the dnode included.
    levels: u8,
    /// The same of the older version; 0 when there is none with blocks of this size.
    levels_before: u8,
    /// Also the rest of a block of pointers is met, behind the last block (of metadata).
    meets_rest: bool,
    /// At index i the open block of level i + 1.
    open: Vec<Open>,
    /// Pointers that came, by level.
    counts: Vec<u64>,
}

/// What hears of the holes that a walk meets.
pub(super) type Met<'m, E> = &'m mut dyn FnMut(Place) -> Result<(), E>;

/// Levels of pointers above `blocks` blocks.
pub(super) fn levels_above(blocks: u64) -> u8 {
    let mut levels = 1;
    let mut covered = 1u64;
    while covered < blocks {
        covered = covered.saturating_mul(FANOUT);
        levels += 1;
    }
    levels
}

impl Spans {
    pub(super) fn new(levels: u8, levels_before: u8, meets_rest: bool) -> Spans {
        let above = usize::from(levels) - 1;
        Spans {
            levels,
            levels_before,
            meets_rest,
            open: (0..above).map(|_| Open::default()).collect(),
            counts: vec![0; above + 1],
        }
    }

    /// The number of the next block.
    pub(super) fn next(&self) -> u64 {
        self.counts[0]
    }

    /// The next block holds something new: to be told before anybody hears of the block.
    pub(super) fn push_changed<E>(&mut self, met: Met<'_, E>) -> Result<(), E> {
        self.follow(0, met)?;
        self.push(0, Fate::Changed, 1, met)
    }

    /// The fate of the next `count` blocks, none of which holds anything new.
    pub(super) fn push_run<E>(&mut self, fate: Fate, count: u64, met: Met<'_, E>) -> Result<(), E> {
        self.push(0, fate, count, met)
    }

    /// All blocks came. `behind` is the first block from there on that the older version had data in.
    pub(super) fn finish<E>(mut self, behind: Option<u64>, met: Met<'_, E>) -> Result<(), E> {
        for level in 1..usize::from(self.levels) {
            if self.open[level - 1].children > 0 {
                self.close(level, behind, met)?;
            }
        }
        Ok(())
    }

    fn push<E>(&mut self, level: usize, fate: Fate, mut count: u64, met: Met<'_, E>) -> Result<(), E> {
        let is_hole = matches!(fate, Fate::Hole | Fate::Freed);
        while count > 0 {
            let number = self.counts[level];
            let Some(open) = self.open.get_mut(level) else {
                // The pointer in the dnode, which is always looked at.
                self.counts[level] += count;
                return if is_hole { met(Place { level: level as u8, number }) } else { Ok(()) };
            };
            if is_hole && open.children == 0 && count >= FANOUT {
                let whole = count / FANOUT;
                self.counts[level] += whole * FANOUT;
                self.push(level + 1, fate, whole, met)?;
                count -= whole * FANOUT;
                continue;
            }
            let here = count.min(FANOUT - open.children);
            open.children += here;
            match fate {
                Fate::Same => open.has_data = true,
                Fate::Changed => (open.has_data, open.changed) = (true, true),
                Fate::Hole | Fate::Freed => {
                    let level = level as u8;
                    open.holes.extend((number..number + here).map(|number| Place { level, number }));
                    open.freed |= fate == Fate::Freed;
                }
            }
            let is_full = open.children == FANOUT;
            self.counts[level] += here;
            count -= here;
            if is_full {
                self.close(level + 1, None, met)?;
            }
        }
        Ok(())
    }

    /// Everything above `level` is followed: the holes that waited there are met.
    fn follow<E>(&mut self, level: usize, met: Met<'_, E>) -> Result<(), E> {
        for open in self.open[level..].iter_mut().rev() {
            open.changed = true;
            open.holes.drain(..).try_for_each(&mut *met)?;
        }
        Ok(())
    }

    /// An indirect block of `level` is complete.
    fn close<E>(&mut self, level: usize, behind: Option<u64>, met: Met<'_, E>) -> Result<(), E> {
        let open = std::mem::take(&mut self.open[level - 1]);
        let index = self.counts[level];
        let is_known = level < usize::from(self.levels_before);
        let end = (index + 1).checked_shl(FANOUT_SHIFT * level as u32).unwrap_or(u64::MAX);
        // The older one had more below this block than the object has blocks now.
        let lost = is_known && behind.is_some_and(|block| block < end);
        if !open.has_data {
            let fate = if open.freed || lost { Fate::Freed } else { Fate::Hole };
            return self.push(level, fate, 1, met);
        }
        if is_known && !open.changed && !open.freed && !lost {
            return self.push(level, Fate::Same, 1, met);
        }
        self.follow(level, met)?;
        open.holes.into_iter().try_for_each(&mut *met)?;
        if self.meets_rest {
            let first = index << FANOUT_SHIFT;
            let below = level as u8 - 1;
            (open.children..FANOUT)
                .try_for_each(|child| met(Place { level: below, number: first + child }))?;
        }
        self.push(level, Fate::Changed, 1, met)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// What is met of these runs, as level and number.
    fn met(levels_before: u8, runs: &[(Fate, u64)], behind: Option<u64>) -> Vec<(u8, u64)> {
        let blocks = runs.iter().map(|(_, count)| count).sum();
        let mut spans = Spans::new(levels_above(blocks), levels_before, false);
        let mut places = Vec::new();
        let note: Met<'_, Infallible> = &mut |place| {
            places.push((place.level, place.number));
            Ok(())
        };
        for (fate, count) in runs {
            let Ok(()) = match fate {
                Fate::Changed => (0..*count).try_for_each(|_| spans.push_changed(note)),
                fate => spans.push_run(*fate, *count, note),
            };
        }
        let Ok(()) = spans.finish(behind, note);
        places
    }

    #[test]
    fn levels_by_blocks() {
        for (blocks, levels) in [(1, 1), (2, 2), (1024, 2), (1025, 3), (1 << 20, 3), ((1 << 20) + 1, 4)] {
            assert_eq!(levels_above(blocks), levels, "{blocks}");
        }
    }

    #[test]
    fn holes_are_met_where_something_changed() {
        use Fate::{Changed, Freed, Hole, Same};
        assert_eq!(met(0, &[(Hole, 1)], None), [(0, 0)]);
        assert_eq!(met(0, &[(Hole, 5000)], None), [(2, 0)]);
        assert_eq!(met(0, &[(Changed, 1), (Hole, 2)], None), [(0, 1), (0, 2)]);
        // Nothing below this block of pointers changed.
        assert_eq!(met(2, &[(Same, 1), (Hole, 2)], None), []);
        assert_eq!(met(2, &[(Hole, 1), (Same, 1), (Changed, 1)], None), [(0, 0)]);
        assert_eq!(met(2, &[(Same, 1), (Freed, 1)], None), [(0, 1)]);
        // The older version had more there: the block of pointers is another.
        assert_eq!(met(2, &[(Hole, 1), (Same, 1)], Some(7)), [(0, 0)]);
        // It had not so many levels.
        assert_eq!(met(1, &[(Same, 1), (Hole, 1)], None), [(0, 1)]);
        // Of three blocks of pointers the first is the same, the second a hole, the third changed.
        let runs = [(Same, 1), (Hole, 1023), (Hole, 1024), (Hole, 1), (Changed, 1)];
        assert_eq!(met(3, &runs, None), [(1, 1), (0, 2048)]);
    }
}
