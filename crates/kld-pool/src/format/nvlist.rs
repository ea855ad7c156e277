//! Name/value lists in their XDR encoding (big-endian), as labels, the pool configuration and xattrs hold them.
//!
//! Only the types that a pool needs are here. Spec: the public `libnvpair` format; each pair carries its encoded
//! size and the size the decoder would need in memory.

/// A value of an nvlist.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// `DATA_TYPE_BOOLEAN`: present or absent, without a value.
    Flag,
    U64(u64),
    Text(String),
    Bytes(Vec<u8>),
    List(NvList),
    Lists(Vec<NvList>),
}

/// An ordered list of names and values; names are bytes because the names of xattrs are.
#[derive(Clone, Debug, Default)]
pub(crate) struct NvList(Vec<(Vec<u8>, Value)>);

impl NvList {
    pub(crate) fn new() -> NvList {
        NvList::default()
    }

    /// Adds a pair at the end.
    pub(crate) fn with(mut self, name: impl AsRef<[u8]>, value: Value) -> NvList {
        self.0.push((name.as_ref().to_vec(), value));
        self
    }

    pub(crate) fn u64(self, name: &str, value: u64) -> NvList {
        self.with(name, Value::U64(value))
    }

    pub(crate) fn text(self, name: &str, value: &str) -> NvList {
        self.with(name, Value::Text(value.to_owned()))
    }

    /// The packed list: encoding XDR, byte order little-endian host.
    pub(crate) fn pack(&self) -> Vec<u8> {
        let mut out = vec![1, 1, 0, 0];
        self.encode(&mut out);
        out
    }

    fn encode(&self, out: &mut Vec<u8>) {
        const VERSION: u32 = 0;
        const UNIQUE_NAMES: u32 = 1;
        put_be32(out, VERSION);
        put_be32(out, UNIQUE_NAMES);
        for (name, value) in &self.0 {
            let start = out.len();
            out.extend([0; 8]);
            put_opaque(out, name);
            put_be32(out, value.type_code());
            put_be32(out, value.elements() as u32);
            value.encode(out);
            let encoded = (out.len() - start) as u32;
            let decoded = (16 + name.len() + 1).next_multiple_of(8) + value.decoded_size();
            out[start..start + 4].copy_from_slice(&encoded.to_be_bytes());
            out[start + 4..start + 8].copy_from_slice(&(decoded as u32).to_be_bytes());
        }
        out.extend([0; 8]);
    }
}

impl Value {
    fn type_code(&self) -> u32 {
        match self {
            Value::Flag => 1,
            Value::U64(_) => 8,
            Value::Text(_) => 9,
            Value::Bytes(_) => 10,
            Value::List(_) => 19,
            Value::Lists(_) => 20,
        }
    }

    fn elements(&self) -> usize {
        match self {
            Value::Flag => 0,
            Value::U64(_) | Value::Text(_) | Value::List(_) => 1,
            Value::Bytes(bytes) => bytes.len(),
            Value::Lists(lists) => lists.len(),
        }
    }

    /// What the value takes in the decoder's memory; a nested list is a 24-byte header there.
    fn decoded_size(&self) -> usize {
        match self {
            Value::Flag => 0,
            Value::U64(_) => 8,
            Value::Text(text) => (text.len() + 1).next_multiple_of(8),
            Value::Bytes(bytes) => bytes.len().next_multiple_of(8),
            Value::List(_) => 24,
            Value::Lists(lists) => lists.len() * 8 + lists.len() * 24,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::Flag => {}
            Value::U64(value) => out.extend(value.to_be_bytes()),
            Value::Text(text) => put_opaque(out, text.as_bytes()),
            Value::Bytes(bytes) => {
                out.extend(bytes);
                pad(out, bytes.len());
            }
            Value::List(list) => list.encode(out),
            Value::Lists(lists) => lists.iter().for_each(|list| list.encode(out)),
        }
    }
}

fn put_be32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_be_bytes());
}

fn put_opaque(out: &mut Vec<u8>, bytes: &[u8]) {
    put_be32(out, bytes.len() as u32);
    out.extend(bytes);
    pad(out, bytes.len());
}

fn pad(out: &mut Vec<u8>, len: usize) {
    out.extend(std::iter::repeat_n(0, len.next_multiple_of(4) - len));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let packed = NvList::new().u64("version", 5000).text("name", "tank").with("f", Value::Flag).pack();
        #[rustfmt::skip]
        let expected = [
            1, 1, 0, 0,  0, 0, 0, 0,  0, 0, 0, 1,
            // version: encoded 36, decoded 24 + 8
            0, 0, 0, 36, 0, 0, 0, 32,  0, 0, 0, 7, b'v', b'e', b'r', b's', b'i', b'o', b'n', 0,
            0, 0, 0, 8,  0, 0, 0, 1,  0, 0, 0, 0, 0, 0, 0x13, 0x88,
            // name: encoded 32, decoded 24 + 8
            0, 0, 0, 32, 0, 0, 0, 32,  0, 0, 0, 4, b'n', b'a', b'm', b'e',
            0, 0, 0, 9,  0, 0, 0, 1,  0, 0, 0, 4, b't', b'a', b'n', b'k',
            // f: encoded 24, decoded 24
            0, 0, 0, 24, 0, 0, 0, 24,  0, 0, 0, 1, b'f', 0, 0, 0,  0, 0, 0, 1,  0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(packed, expected);
    }

    #[test]
    fn nested_lists_end_with_their_own_terminator() {
        let inner = NvList::new().with("b", Value::Bytes(vec![7; 5]));
        let packed = NvList::new().with("l", Value::Lists(vec![inner.clone(), inner])).pack();
        // header 12, pair header 8 + name 8 + type/count 8, two lists of 8 + (24 + 8) + 8, end 8
        assert_eq!(packed.len(), 12 + 24 + 2 * 48 + 8);
    }
}
