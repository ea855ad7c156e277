//! Transaction groups: the pool is written as if one had done it all.

/// Birth of the oldest blocks.
pub(crate) const BIRTH: u64 = 10;
/// How long before its oldest state a dataset was made.
pub(crate) const CREATED_BEFORE: u64 = 2;
/// How long after its origin was taken a clone has its oldest state.
pub(crate) const CLONE_AFTER: u64 = CREATED_BEFORE + 1;
/// When the vdev was added and the features were enabled.
pub(crate) const POOL_CREATED: u64 = 4;
/// The snapshot that every dataset descends from (`$ORIGIN@$ORIGIN`).
pub(crate) const ORIGIN: u64 = 1;
/// How far behind the last written group the uberblock stands: the importer re-verifies blocks born in the last few
/// groups (`TXG_DEFER_SIZE` and the ones in flight), which here would be the whole pool.
const SETTLED: u64 = 6;

/// The uberblock's group, for a pool whose youngest blocks were born in `newest`.
pub(crate) fn uberblock(newest: u64) -> u64 {
    newest + SETTLED
}
