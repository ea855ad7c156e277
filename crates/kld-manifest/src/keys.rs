//! Every key of a manifest, said once: its name, place, kind of value, meaning and an example.
//!
//! The parser reads keys through this table ([`Fields`](crate::lower::fields::Fields) refuses what is not in it), and
//! the JSON Schema and the reference page are printed from it, so the three cannot disagree. A test feeds every
//! example to the parser.

mod network;
mod policy;
mod root;
mod services;
pub(crate) mod storage;
#[cfg(test)]
pub(crate) mod tests;

use crate::values::{self, Wrong};

pub(crate) use network::{ALLOW, OUTBOUND_RULE, PEER, PLANE, WIREGUARD, ZONE};
pub(crate) use policy::{ALERT, MONITORING, PROCEDURE, REPLICATION, SCHEDULE, SNAPSHOTS, STEP, TARGET};
pub(crate) use root::{FILE, ROOT, SECRET, USER, VERIFY};
pub(crate) use services::{CONTAINER, LISTEN, MOUNT, PUBLISH, SERVICE, parse_exposure};
pub(crate) use storage::DATASET;

/// One group of keys that stand together.
#[derive(Debug)]
pub(crate) struct Section {
    /// Title in the reference.
    pub(crate) title: &'static str,
    /// One of it, for messages: ``not a key of a dataset``.
    pub(crate) one: &'static str,
    /// What it describes.
    pub(crate) doc: &'static str,
    /// Where it stands: lines of a manifest with `{}` for the keys.
    pub(crate) frame: &'static str,
    /// One-line ways to write it, each a piece of a manifest.
    pub(crate) shorthands: &'static [&'static str],
    pub(crate) keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    pub(crate) kind: Kind,
    pub(crate) doc: &'static str,
    /// As written, the key included.
    pub(crate) example: &'static str,
}

/// What a key's value is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Text up to the end of the line; says what it should be.
    Text(&'static str),
    /// Literal lines below `key: |`.
    Block,
    /// A word with a rule of its own.
    Checked(&'static Rule),
    Integer {
        min: u64,
        max: u64,
    },
    Choice(&'static [&'static str]),
    Flag,
    Duration,
    /// Words separated by commas, or `- ` items.
    List(&'static str),
    /// Nested keys.
    Section(&'static Section),
    /// `- ` items with keys.
    Items(&'static Section),
    /// Names, each with keys of its own; says what the names are.
    Map(&'static str, &'static Section),
    /// `NAME=value` pairs, or nested `NAME: value`; says what the names are.
    Pairs(&'static str),
}

/// A rule that a word must keep.
#[derive(Debug)]
pub(crate) struct Rule {
    /// What the word is (`a size`).
    pub(crate) what: &'static str,
    /// The rule as an ECMA-262 regular expression, for the schema; may be wider than `check`.
    pub(crate) pattern: &'static str,
    pub(crate) check: fn(&str) -> Result<(), Wrong>,
}

impl Kind {
    /// Whether a scalar of this kind may be `text`.
    pub(crate) fn check(self, text: &str) -> Result<(), Wrong> {
        match self {
            Kind::Checked(rule) => (rule.check)(text),
            Kind::Integer { min, max } => values::parse_integer(text, min, max).map(drop),
            Kind::Choice(choices) if choices.contains(&text) => Ok(()),
            Kind::Choice(choices) => {
                let wrong = Wrong::because(format!("it must be {}", one_of(choices)));
                match crate::nearest::did_you_mean(text, choices.iter().copied()) {
                    Some(hint) => Err(wrong.hint(hint)),
                    None => Err(wrong),
                }
            }
            Kind::Flag => values::parse_flag(text).map(drop),
            Kind::Duration => values::parse_duration(text).map(drop),
            Kind::Text(_)
            | Kind::Block
            | Kind::List(_)
            | Kind::Section(_)
            | Kind::Items(_)
            | Kind::Map(..)
            | Kind::Pairs(_) => Ok(()),
        }
    }
}

impl Section {
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Key {
    /// A key that may be left out.
    const fn optional(name: &'static str, kind: Kind, doc: &'static str, example: &'static str) -> Self {
        Self { name, required: false, kind, doc, example }
    }

    /// A key that must be there.
    const fn required(name: &'static str, kind: Kind, doc: &'static str, example: &'static str) -> Self {
        Self { name, required: true, kind, doc, example }
    }
}

/// `a`, `b` or `c`.
pub(crate) fn one_of(choices: &[&str]) -> String {
    joined(choices, "or")
}

/// `a`, `b` and `c`.
pub(crate) fn all_of(names: &[&str]) -> String {
    joined(names, "and")
}

fn joined(words: &[&str], last_word: &str) -> String {
    match words {
        [] => "nothing".to_owned(),
        [only] => format!("`{only}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|c| format!("`{c}`")).collect();
            format!("{} {last_word} `{last}`", first.join(", "))
        }
    }
}

/// Keys that people write for something that a manifest must not hold: why, and what to do.
pub(crate) fn refused_key(name: &str) -> Option<(&'static str, &'static str, &'static str)> {
    let plain: String =
        name.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect();
    Some(match plain.as_str() {
        "privatekey" | "presharedkey" | "psk" => (
            "private-key",
            "a private key does not belong in a manifest",
            "leave it out: keys are born on the machine at first boot; read the public one with `wg show`",
        ),
        "password" | "passwd" | "rootpassword" => (
            "password-in-clear",
            "a password does not belong in a manifest",
            "for a login write `password_hash:` (made with `mkpasswd`); for a service declare it under `secrets:`",
        ),
        "keyformat" | "keylocation" | "pbkdf2iters" | "passphrase" => (
            "dataset-key",
            "the key of an encrypted dataset is not chosen in the manifest",
            "write `encryption=on`: the key is made on the machine at first boot; `kldload key passphrase` puts yours in its place",
        ),
        _ => return None,
    })
}
