//! Name/value lists in their XDR encoding, and in that of memory, decoded from untrusted bytes.

mod native;

use super::bytes::text;

/// Lists inside lists that are followed.
const MAX_DEPTH: u32 = 16;

/// A value; types that no pool structure uses are kept as [`Value::Other`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Flag,
    Number(u64),
    Numbers(Vec<u64>),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    List(NvList),
    Lists(Vec<NvList>),
    Other,
}

/// A list in the order of its pairs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NvList(Vec<(Vec<u8>, Value)>);

impl NvList {
    /// Decodes a packed list; bytes behind its end are ignored. None when it is not well formed.
    pub(crate) fn unpack(bytes: &[u8]) -> Option<NvList> {
        const NATIVE: u8 = 0;
        const XDR: u8 = 1;
        const LITTLE_ENDIAN: u8 = 1;
        let (header, body) = bytes.split_first_chunk::<4>()?;
        match header {
            [XDR, ..] => Input(body).list(0),
            [NATIVE, LITTLE_ENDIAN, ..] => native::unpack(body),
            _ => None,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &Value)> {
        self.0.iter().map(|(name, value)| (name.as_slice(), value))
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(found, _)| found == name.as_bytes()).map(|(_, value)| value)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.get(name)? {
            Value::Text(bytes) => Some(text(bytes)),
            _ => None,
        }
    }

    pub(crate) fn list(&self, name: &str) -> Option<&NvList> {
        match self.get(name)? {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// Lists in a list; empty when there are none.
    pub(crate) fn lists(&self, name: &str) -> &[NvList] {
        match self.get(name) {
            Some(Value::Lists(lists)) => lists,
            _ => &[],
        }
    }
}

/// The bytes that are left.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn be32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(*self.take(4)?.first_chunk()?))
    }

    fn be64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(*self.take(8)?.first_chunk()?))
    }

    fn padded(&mut self, len: usize) -> Option<&'a [u8]> {
        let bytes = self.take(len)?;
        self.take(len.next_multiple_of(4) - len)?;
        Some(bytes)
    }

    fn opaque(&mut self) -> Option<&'a [u8]> {
        let len = self.be32()? as usize;
        self.padded(len)
    }

    fn list(&mut self, depth: u32) -> Option<NvList> {
        if depth == MAX_DEPTH {
            return None;
        }
        let _version = self.be32()?;
        let _flags = self.be32()?;
        let mut list = NvList::default();
        loop {
            let encoded = self.be32()? as usize;
            let decoded = self.be32()?;
            if (encoded, decoded) == (0, 0) {
                return Some(list);
            }
            let mut pair = Input(self.take(encoded.checked_sub(8)?)?);
            let name = pair.opaque()?.to_vec();
            let kind = pair.be32()?;
            let count = pair.be32()? as usize;
            let value = pair.value(kind, count, depth)?;
            list.0.push((name, value));
        }
    }

    /// A value of `DATA_TYPE_*` code `kind`. Counts are checked by what is left: no element is shorter than a byte.
    fn value(&mut self, kind: u32, count: usize, depth: u32) -> Option<Value> {
        if count > self.0.len() {
            return None;
        }
        Some(match kind {
            1 => Value::Flag,
            8 => Value::Number(self.be64()?),
            9 => Value::Text(self.opaque()?.to_vec()),
            10 => Value::Bytes(self.padded(count)?.to_vec()),
            16 => Value::Numbers((0..count).map(|_| self.be64()).collect::<Option<_>>()?),
            19 => Value::List(self.list(depth + 1)?),
            20 => Value::Lists((0..count).map(|_| self.list(depth + 1)).collect::<Option<_>>()?),
            _ => Value::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::nvlist as write;

    fn packed() -> Vec<u8> {
        let inner = write::NvList::new().u64("id", 7).with("data", write::Value::Bytes(vec![1, 2, 3]));
        write::NvList::new()
            .text("name", "tank")
            .with("flag", write::Value::Flag)
            .with("children", write::Value::Lists(vec![inner.clone(), inner.clone()]))
            .with("inner", write::Value::List(inner))
            .pack()
    }

    #[test]
    fn what_was_packed_comes_back() {
        let list = NvList::unpack(&packed()).unwrap();
        assert_eq!(list.text("name").unwrap(), "tank");
        assert_eq!(list.get("flag"), Some(&Value::Flag));
        assert_eq!(list.lists("children").len(), 2);
        assert_eq!(list.lists("children")[1].number("id"), Some(7));
        assert_eq!(list.list("inner").unwrap().get("data"), Some(&Value::Bytes(vec![1, 2, 3])));
        assert_eq!(list.number("name"), None);
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0usize..300, byte: u8, cut in 0usize..300) {
            let mut bytes = packed();
            let len = bytes.len();
            bytes[at % len] = byte;
            drop(NvList::unpack(&bytes));
            drop(NvList::unpack(&bytes[..cut % len]));
        }
    }
}
