//! Passwords of accounts, as crypt(5) hashes in shadow(5).
//!
//! A hash is seen by nobody but root, and is kept nowhere else: a plan says that it changes, a tool gets it through its
//! stdin, and going back takes the old one from the snapshot of the root that every apply has. Only where `/` is no dataset
//! does the apply keep a copy of the file, as it does of others that it replaces.

use std::collections::{BTreeMap, BTreeSet};

use kld_host::Cmd;
use serde::{Deserialize, Serialize};

use super::lines::key;
use crate::history::Store;
use crate::host::{Host, HostError, KeptEntry};
use crate::kinds::root_dataset;

/// Where they are.
pub(super) const PATH: &str = "/etc/shadow";

/// What is to be done with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Password {
    /// It gets the manifest's hash.
    Set,
    /// The manifest's hash goes, and nobody logs in with a password.
    Lock,
}

/// The hashes by account.
pub(super) fn look(host: &dyn Host) -> Result<BTreeMap<String, String>, HostError> {
    let text = host.read(PATH)?.unwrap_or_default();
    let hash = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    };
    Ok(text.lines().filter_map(hash).collect())
}

/// Whether no password fits.
pub(super) fn is_locked(hash: &str) -> bool {
    hash.starts_with(['!', '*'])
}

/// Gives an account a hash.
pub(super) fn set(host: &dyn Host, account: &str, hash: &str) -> Result<(), HostError> {
    let line = format!("{account}:{hash}\n");
    host.run(&Cmd::new("chpasswd").arg("--encrypted").stdin_bytes(line)).map(drop)
}

/// Takes an account's hash away.
pub(super) fn lock(host: &dyn Host, account: &str) -> Result<(), HostError> {
    host.run(&Cmd::new("usermod").args(["--password", "!", account])).map(drop)
}

/// What it takes to go back from a change of a password, when the snapshot of the root does not have it.
pub(super) fn keep(host: &dyn Host, store: &Store<'_>) -> Result<Option<KeptEntry>, HostError> {
    if root_dataset(host)?.is_some() { Ok(None) } else { store.keep(PATH) }
}

/// What becomes of an account's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// Nothing.
    Stays,
    /// It is what it was.
    AsBefore,
    /// The same, and it comes back when it is gone.
    Again,
}

/// Brings the line of one account back to what it was, and drops those of accounts that are no more; all others stay as they
/// are, because people change their passwords. When nothing knows the old line any more (the snapshots of the last ten
/// applies stay), the password stays, too.
pub(super) fn put_back(
    host: &dyn Host,
    store: &Store<'_>,
    account: &str,
    kept: Option<&KeptEntry>,
    line: Line,
) -> Result<(), HostError> {
    let edit = |now: &str| {
        let before = match kept {
            Some(kept) => store.text_of(PATH, kept)?,
            None => host.read(&format!("/.zfs/snapshot/{}{PATH}", store.snapshot()))?.unwrap_or_default(),
        };
        Ok(merge(now, &before, account, line, &host.read("/etc/passwd")?.unwrap_or_default()))
    };
    host.rewrite(PATH, edit).map(drop)
}

fn merge(now: &str, before: &str, account: &str, line: Line, passwd: &str) -> String {
    let there: BTreeSet<&str> = passwd.lines().map(key).collect();
    let old = before.lines().find(|old| key(old) == account && line != Line::Stays);
    let is_there = now.lines().any(|now| key(now) == account);
    let again = old.filter(|_| line == Line::Again && !is_there && there.contains(account));
    let lines = now.lines().filter(|line| there.contains(key(line)));
    let lines = lines.map(|line| if key(line) == account { old.unwrap_or(line) } else { line });
    lines.chain(again).fold(String::new(), |text, line| text + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_goes_back_and_no_other() {
        let passwd = "root:x:0\nalice:x:1000\nbob:x:1001\n";
        let before = "root:*:1\nalice:old:1\nbob:old:1\n";
        let now = "root:*:1\nalice:new:2\nbob:mine:2\ncarol:new:2\n";
        let merged = |now, before, line| merge(now, before, "alice", line, passwd);
        assert_eq!(merged(now, before, Line::AsBefore), "root:*:1\nalice:old:1\nbob:mine:2\n");
        // Nothing is known of before, or it was not changed.
        let stays = "root:*:1\nalice:new:2\nbob:mine:2\n";
        assert_eq!(merged(now, "", Line::AsBefore), stays);
        assert_eq!(merged(now, before, Line::Stays), stays);
        assert_eq!(merged(before, before, Line::AsBefore), before);
        let gone = "root:*:1\nbob:mine:2\n";
        assert_eq!(merged(gone, before, Line::AsBefore), gone);
        assert_eq!(merged(gone, before, Line::Again), "root:*:1\nbob:mine:2\nalice:old:1\n");
    }
}
