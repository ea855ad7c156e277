//! The first record of a stream: what it is, and what a receiver must be able to take.

use std::io;

use super::ResumePoint;
use super::output::{Output, padded};
use super::record::{Kind, Record};
use crate::format::nvlist::NvList;

/// What the first record says.
#[derive(Debug)]
pub(super) struct Begin<'b> {
    /// Full name of the snapshot.
    pub(super) name: &'b str,
    pub(super) guid: u64,
    /// GUID of the snapshot it is the difference from, or 0.
    pub(super) from_guid: u64,
    pub(super) created: u64,
    pub(super) is_volume: bool,
    /// The older snapshot belongs to the dataset that the newer one is a clone of.
    pub(super) is_clone: bool,
    pub(super) case_insensitive: bool,
    /// Bits of [`super::StreamFeature`].
    pub(super) features: u64,
    pub(super) resume: Option<ResumePoint>,
}

/// `DRR_FLAG_*`.
const FLAG_CLONE: u32 = 1;
const FLAG_CASE_INSENSITIVE: u32 = 1 << 1;
const FLAG_FREE_RECORDS: u32 = 1 << 2;
const FLAG_SPILL_BLOCK: u32 = 1 << 3;

impl Begin<'_> {
    pub(super) fn write(&self, output: &mut Output<'_>) -> io::Result<()> {
        const MAGIC: u64 = 0x2_f5ba_cbac;
        /// `DMU_SUBSTREAM`: the stream of one snapshot.
        const SINGLE: u64 = 1;
        const FEATURES_SHIFT: u32 = 2;
        const NAME_AT: usize = 56;
        /// Of `dmu_objset_type_t`.
        const FILESYSTEM: u32 = 2;
        const VOLUME: u32 = 3;
        let flag = |flag, is_set: bool| if is_set { flag } else { 0 };
        let mut begin = Record::new(Kind::Begin)
            .u64(8, MAGIC)
            .u64(16, SINGLE | self.features << FEATURES_SHIFT)
            .u64(24, self.created)
            .u32(32, if self.is_volume { VOLUME } else { FILESYSTEM })
            .u32(
                36,
                flag(FLAG_CLONE, self.is_clone)
                    | flag(FLAG_CASE_INSENSITIVE, self.case_insensitive)
                    | FLAG_FREE_RECORDS
                    | FLAG_SPILL_BLOCK,
            )
            .u64(40, self.guid)
            .u64(48, self.from_guid);
        let name = self.name.as_bytes();
        // Room for a NUL behind it; names are shorter than that anyway.
        let room = begin.0.len() - NAME_AT - 1;
        let name = &name[..name.len().min(room)];
        begin.0[NAME_AT..NAME_AT + name.len()].copy_from_slice(name);
        let payload = self.resume.map(|point| {
            NvList::new().u64("resume_object", point.start.object).u64("resume_offset", point.offset).pack()
        });
        let payload = padded(&payload.unwrap_or_default());
        output.record(begin.u32(4, payload.len() as u32), &payload)
    }
}
