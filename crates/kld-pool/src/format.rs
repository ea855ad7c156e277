//! The on-disk vocabulary of ZFS: byte encodings, checksums, block pointers, dnodes, ZAPs and nvlists.
//!
//! Everything here is pure: values in, bytes out. All multi-byte fields are little-endian (the pool is written
//! as a little-endian pool on every host) except where a submodule says otherwise (XDR nvlists, fat-ZAP values).
//! The format followed is pool version 5000, as read by OpenZFS 2.1 and later.

pub(crate) mod blkptr;
pub(crate) mod checksum;
pub(crate) mod dnode;
pub(crate) mod fatzap;
pub(crate) mod hasher;
pub(crate) mod nvlist;
pub(crate) mod zap;

/// Writes `value` at byte `at`, little-endian.
pub(crate) fn put_u64(buf: &mut [u8], at: usize, value: u64) {
    buf[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Writes `value` at byte `at`, little-endian.
pub(crate) fn put_u32(buf: &mut [u8], at: usize, value: u32) {
    buf[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Writes `value` at byte `at`, little-endian.
pub(crate) fn put_u16(buf: &mut [u8], at: usize, value: u16) {
    buf[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// A structure made only of 64-bit words, as most bonus buffers are.
pub(crate) fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Pads `bytes` with zeros to a whole number of 512-byte sectors: the granularity of logical block sizes.
pub(crate) fn pad_to_sector(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(SECTOR).max(SECTOR), 0);
    bytes
}

/// The unit of sizes and offsets in block pointers (`SPA_MINBLOCKSIZE`).
pub(crate) const SECTOR: usize = 512;
