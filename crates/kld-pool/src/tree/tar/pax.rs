//! PAX extended headers: `length key=value` records.

use std::collections::BTreeMap;

use super::super::{Timestamp, path};
use super::TarProblem;

/// What the records say about the next member (or, for global ones, about all).
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse_version: Option<(u32, u32)>,
    pub(super) sparse_name: Option<Vec<u8>>,
    pub(super) sparse_size: Option<u64>,
}

impl Records {
    /// Takes in the body of an extended header. Keys that do not matter here (access times, names of users) are skipped.
    pub(super) fn parse(&mut self, mut body: &[u8]) -> Result<(), TarProblem> {
        while !body.is_empty() {
            let bad = || TarProblem::BadRecord(path::display(&body[..body.len().min(40)]));
            let space = body.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let len: usize = decimal(&body[..space]).ok_or_else(bad)?;
            if len <= space + 1 || len > body.len() || body[len - 1] != b'\n' {
                return Err(bad());
            }
            let record = &body[space + 1..len - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            self.set(&record[..equals], &record[equals + 1..]).ok_or_else(bad)?;
            body = &body[len..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        const XATTR: &[u8] = b"SCHILY.xattr.";
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.linkpath = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(timestamp(value)?),
            b"GNU.sparse.major" => self.sparse_version.get_or_insert_default().0 = decimal(value)?,
            b"GNU.sparse.minor" => self.sparse_version.get_or_insert_default().1 = decimal(value)?,
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse_size = Some(decimal(value)?),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR).filter(|name| !name.is_empty()) {
                    self.xattrs.insert(attribute_name(name), value.to_vec());
                }
            }
        }
        Some(())
    }

    /// Lays the records of one member over global ones.
    pub(super) fn override_with(&mut self, member: Records) {
        let Records {
            path,
            linkpath,
            size,
            mtime,
            uid,
            gid,
            xattrs,
            sparse_version,
            sparse_name,
            sparse_size,
        } = member;
        self.path = path.or(self.path.take());
        self.linkpath = linkpath.or(self.linkpath.take());
        self.size = size.or(self.size);
        self.mtime = mtime.or(self.mtime);
        self.uid = uid.or(self.uid);
        self.gid = gid.or(self.gid);
        self.xattrs.extend(xattrs);
        self.sparse_version = sparse_version.or(self.sparse_version);
        self.sparse_name = sparse_name.or(self.sparse_name.take());
        self.sparse_size = sparse_size.or(self.sparse_size);
    }
}

/// The name of an attribute out of a key, where GNU tar writes `=` and `%` as `%3D` and `%25`.
fn attribute_name(key: &[u8]) -> Vec<u8> {
    let mut name = Vec::new();
    let mut rest = key;
    loop {
        let (byte, len) = match rest {
            [b'%', b'3', b'D', ..] => (b'=', 3),
            [b'%', b'2', b'5', ..] => (b'%', 3),
            [first, ..] => (*first, 1),
            [] => return name,
        };
        name.push(byte);
        rest = &rest[len..];
    }
}

fn decimal<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Seconds with an optional fraction; negative fractions round towards the past.
fn timestamp(value: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let sec: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nsec: u32 = nanos.parse().ok()?;
    Some(if text.starts_with('-') && nsec > 0 {
        Timestamp { sec: sec.checked_sub(1)?, nsec: 1_000_000_000 - nsec }
    } else {
        Timestamp { sec, nsec }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let mut records = Records::default();
        records
            .parse(b"11 path=ab\n21 mtime=-1.25000000\n20 mtime=12.5000001\n28 SCHILY.xattr.user.k=v\n=\0\n")
            .unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"ab"[..]));
        assert_eq!(records.mtime, Some(Timestamp { sec: 12, nsec: 500_000_100 }));
        assert_eq!(records.xattrs[&b"user.k"[..]], b"v\n=\0");
        assert_eq!(attribute_name(b"user.a%3Db%25%3d%"), b"user.a=b%%3d%");
        assert_eq!(timestamp(b"-1.25"), Some(Timestamp { sec: -2, nsec: 750_000_000 }));
        for bad in
            [&b"11 path=abc"[..], b"5 a\n", b"x a=b\n", b"999 path=a\n", b"12 size=-12\n", b"2 \n", b"0 "]
        {
            assert!(Records::default().parse(bad).is_err(), "{bad:?}");
        }
    }
}
