//! Numbers out of untrusted bytes: every access is checked.

/// The little-endian 16-bit number at byte `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(array(bytes, at)?))
}

/// The little-endian 32-bit number at byte `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(array(bytes, at)?))
}

/// The little-endian 64-bit number at byte `at`.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(array(bytes, at)?))
}

/// The 64-bit number at index `index` of an array of them; 0 past its end, as in structures that grew over time.
pub(crate) fn word(bytes: &[u8], index: usize) -> u64 {
    index.checked_mul(8).and_then(|at| u64_at(bytes, at)).unwrap_or(0)
}

/// `N` bytes at `at`.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Text as it is shown: bytes that are no UTF-8 are replaced.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
