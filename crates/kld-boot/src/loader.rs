//! The boot loader: what it was told, and what it will therefore start.
//!
//! systemd-boot takes, in this order: the entry that the variable `LoaderEntryOneShot` names, once; that of
//! `LoaderEntryDefault`; the `default` of `loader.conf`; the first of the menu. Variables lie in the firmware, which may
//! forget them, and stay behind when a disk moves; `loader.conf` lies beside the entries. So `loader.conf` is where
//! [`crate::activate`] says what it wants, and the variable only stands in while that file is written.

use kld_host::Cmd;
use std::time::Duration;

use crate::machine::{Machine, MachineError};

/// Where the kernel shows the variables of the Boot Loader Interface (systemd.io/BOOT_LOADER_INTERFACE).
const VARIABLES: &str = "/sys/firmware/efi/efivars";
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// `LoaderFeatures`: the loader honours `LoaderEntryOneShot`.
const ONE_SHOT: u64 = 1 << 2;
const DEADLINE: Duration = Duration::from_secs(30);

/// What the firmware's variables say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loader {
    /// The loader that started this system: `systemd-boot 257.13-1~deb13u1`.
    pub name: Option<String>,
    /// Whether it takes an entry for one start only.
    pub one_shot: bool,
    /// The entry that this system was started from.
    pub selected: Option<String>,
    /// The entry for the next start only.
    pub once: Option<String>,
    /// The entry that goes before the `default` of `loader.conf`.
    pub default: Option<String>,
    /// The entry that was started last, which `default @saved` means.
    pub last: Option<String>,
}

impl Loader {
    pub(crate) fn read(machine: &dyn Machine) -> Result<Self, MachineError> {
        let raw = |name: &str| machine.read(&format!("{VARIABLES}/{name}-{VENDOR}"));
        let text = |name: &str| -> Result<Option<String>, MachineError> {
            Ok(raw(name)?.and_then(|bytes| decode(&bytes)).filter(|text| !text.is_empty()))
        };
        let features = raw("LoaderFeatures")?
            .and_then(|bytes| Some(u64::from_le_bytes(bytes.get(4..12)?.try_into().ok()?)));
        Ok(Self {
            name: text("LoaderInfo")?,
            one_shot: features.is_some_and(|features| features & ONE_SHOT != 0),
            selected: text("LoaderEntrySelected")?,
            once: text("LoaderEntryOneShot")?,
            default: text("LoaderEntryDefault")?,
            last: text("LoaderEntryLastBooted")?,
        })
    }

    /// Whether the loader's variables are there to be written.
    pub fn has_variables(&self) -> bool {
        self.name.is_some()
    }
}

/// A variable's content: four bytes of attributes, then UTF-16 with a zero at the end.
fn decode(bytes: &[u8]) -> Option<String> {
    let units = bytes.get(4..)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    String::from_utf16(&units.take_while(|&unit| unit != 0).collect::<Vec<_>>()).ok()
}

/// Sets `LoaderEntryDefault`, or takes it away.
pub(crate) fn default_cmd(entry: Option<&str>) -> Cmd {
    Cmd::new("bootctl").args(["set-default", entry.unwrap_or_default()]).timeout(DEADLINE)
}

/// Sets `LoaderEntryOneShot`, or takes it away.
pub(crate) fn once_cmd(entry: Option<&str>) -> Cmd {
    Cmd::new("bootctl").args(["set-oneshot", entry.unwrap_or_default()]).timeout(DEADLINE)
}

/// The `default` of a `loader.conf`, the last one winning.
pub(crate) fn default_of(text: &str) -> Option<&str> {
    text.lines().filter_map(value_of_default).next_back()
}

fn value_of_default(line: &str) -> Option<&str> {
    let rest = line.trim().strip_prefix("default")?;
    let value = rest.strip_prefix([' ', '\t'])?.trim();
    (!value.is_empty()).then_some(value)
}

/// A `loader.conf` with this default and everything else as it was.
pub(crate) fn with_default(text: &str, entry: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let new = format!("default {entry}");
    let first = lines.iter().position(|line| value_of_default(line).is_some()).unwrap_or(lines.len());
    lines.retain(|line| value_of_default(line).is_none());
    lines.insert(first, &new);
    lines.join("\n") + "\n"
}

/// Whether a pattern of `loader.conf` means this entry. `*` and `?` as in a shell; sets of characters are not read.
pub(crate) fn matches(pattern: &str, entry: &str) -> bool {
    let (pattern, entry) = (pattern.to_ascii_lowercase(), entry.to_ascii_lowercase());
    glob(&pattern.chars().collect::<Vec<_>>(), &entry.chars().collect::<Vec<_>>())
}

fn glob(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|taken| glob(rest, &text[taken..])),
        Some(('?', rest)) => !text.is_empty() && glob(rest, &text[1..]),
        Some((wanted, rest)) => text.first() == Some(wanted) && glob(rest, &text[1..]),
    }
}

/// The name by which the loader knows an entry's file: without the count of tries (`x+3-1.conf` is `x.conf`).
pub(crate) fn id_of(file: &str) -> String {
    let is_count = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let stem = file.strip_suffix(".conf").unwrap_or(file);
    match stem.rsplit_once('+') {
        Some((name, tries)) if !tries.is_empty() && is_count(tries) => format!("{name}.conf"),
        _ => file.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_default_is_replaced_and_everything_else_is_kept() {
        let text = "# mine\ntimeout 3\ndefault debian.conf\nconsole-mode keep\ndefault  x*\n";
        assert_eq!(default_of(text), Some("x*"));
        let new = with_default(text, "new.conf");
        assert_eq!(new, "# mine\ntimeout 3\ndefault new.conf\nconsole-mode keep\n");
        assert_eq!(with_default("", "new.conf"), "default new.conf\n");
        assert_eq!(default_of("default-x y\n#default z\ndefault\n"), None);
    }

    #[test]
    fn patterns_and_counts_are_read_as_the_loader_does() {
        for (pattern, entry, want) in [
            ("debian.conf", "debian.conf", true),
            ("Debian.conf", "debian.conf", true),
            ("deb*", "debian.conf", true),
            ("*.con?", "debian.conf", true),
            ("debian", "debian.conf", false),
            ("*x", "debian.conf", false),
        ] {
            assert_eq!(matches(pattern, entry), want, "{pattern}");
        }
        for (file, id) in
            [("a.conf", "a.conf"), ("a+3.conf", "a.conf"), ("a+2-1.conf", "a.conf"), ("a+b.conf", "a+b.conf")]
        {
            assert_eq!(id_of(file), id);
        }
    }

    #[test]
    fn variables_are_utf16_behind_their_attributes() {
        let mut bytes = vec![6, 0, 0, 0];
        bytes.extend("debian.conf\0".encode_utf16().flat_map(u16::to_le_bytes));
        assert_eq!(decode(&bytes).as_deref(), Some("debian.conf"));
        assert_eq!(decode(&[6, 0]), None);
    }

    proptest! {
        #[test]
        fn the_default_that_was_set_is_read(text in "((default|timeout|#) ?[a-z*.]{0,6}\n){0,6}") {
            let new = with_default(&text, "new.conf");
            prop_assert_eq!(default_of(&new), Some("new.conf"));
            prop_assert_eq!(with_default(&new, "new.conf"), new);
        }
    }
}
