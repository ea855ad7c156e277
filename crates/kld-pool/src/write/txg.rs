//! Transaction groups: the pool is written as if one had done it all.

/// Birth of every block.
pub(crate) const BIRTH: u64 = 10;
/// When the datasets were made.
pub(crate) const CREATED: u64 = BIRTH - 2;
/// When the vdev was added and the features were enabled.
pub(crate) const POOL_CREATED: u64 = 4;
/// The snapshot that every dataset descends from (`$ORIGIN@$ORIGIN`).
pub(crate) const ORIGIN: u64 = 1;
/// How far behind the last written group the uberblock stands: the importer re-verifies blocks born in the last few
/// groups (`TXG_DEFER_SIZE` and the ones in flight), which here would be the whole pool.
const SETTLED: u64 = 6;

/// When snapshot `index` (0 is the oldest) of a dataset was taken: not before the blocks it holds were born.
pub(crate) fn snapshot(index: usize) -> u64 {
    BIRTH + index as u64
}

/// The uberblock's group, for a pool whose longest chain has `snapshots` snapshots.
pub(crate) fn uberblock(snapshots: usize) -> u64 {
    snapshot(snapshots) + SETTLED
}
