//! The boot loader: what it was told, and what it will therefore start.
//!
//! systemd-boot takes, in this order: the entry that the variable `LoaderEntryOneShot` names, once; that of
//! `LoaderEntryDefault`; the `default` of `loader.conf`; the first of the menu. Variables lie in the firmware, which may
//! forget them, and stay behind when a disk moves; `loader.conf` lies beside the entries. So `loader.conf` is where
//! [`crate::activate`] says what it wants, and the variable only stands in while that file is written.
//!
//! A default of `@saved` means what was started last, and the loader takes for that also what was started once, unless the
//! variable had its very name: a pattern has not. So nothing is put on trial while that is a default ([`keep_default`]).
//!
//! [`keep_default`]: crate::entries::keep_default
//!
//! None of these looks at how many tries an entry has left (`NAME+LEFT-DONE.conf`): only when nothing names one, those
//! without tries come last. So what is on trial is never the default: it is started once, by the variable. Until version
//! 258 the count was a part of the name that is compared, and the variable may hold a pattern: [`pattern_of`] means an
//! entry by its name with and without a count.

use kld_host::Cmd;
use std::time::Duration;

use crate::machine::{Machine, MachineError};

/// Where the kernel shows the variables of the Boot Loader Interface (systemd.io/BOOT_LOADER_INTERFACE).
const VARIABLES: &str = "/sys/firmware/efi/efivars";
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// `LoaderFeatures`: the loader honours `LoaderEntryOneShot`.
const ONE_SHOT: u64 = 1 << 2;
/// As a default: the entry that was started last.
const SAVED: &str = "@saved";
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
            selected: text("LoaderEntrySelected")?.map(|id| id_of(&id)),
            once: text("LoaderEntryOneShot")?,
            default: text("LoaderEntryDefault")?,
            last: text("LoaderEntryLastBooted")?.map(|id| id_of(&id)),
        })
    }

    /// Whether the count of tries is no part of an entry's name for it.
    pub(crate) fn knows_names_without_counts(&self) -> bool {
        let version = self.name.as_deref().and_then(|name| name.strip_prefix("systemd-boot "));
        let major = version.and_then(|version| version.split(|of: char| !of.is_ascii_digit()).next());
        major.and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 258)
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

/// Whether a default is the word for the entry that was started last.
pub(crate) fn is_saved(default: &str) -> bool {
    default.eq_ignore_ascii_case(SAVED)
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

/// Whether a pattern of `loader.conf` or of a variable means this entry: `*`, `?` and `[…]` as in a shell, without ranges.
pub(crate) fn matches(pattern: &str, entry: &str) -> bool {
    let (pattern, entry) = (pattern.to_ascii_lowercase(), entry.to_ascii_lowercase());
    glob(&pattern.chars().collect::<Vec<_>>(), &entry.chars().collect::<Vec<_>>())
}

fn glob(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|taken| glob(rest, &text[taken..])),
        Some(('?', rest)) => !text.is_empty() && glob(rest, &text[1..]),
        Some(('[', rest)) if rest.contains(&']') => {
            let (set, rest) = rest.split_at(rest.iter().position(|of| *of == ']').unwrap_or_default());
            text.first().is_some_and(|first| set.contains(first)) && glob(&rest[1..], &text[1..])
        }
        Some((wanted, rest)) => text.first() == Some(wanted) && glob(rest, &text[1..]),
    }
}

/// The name of an entry's file without the count of tries (`x+3-1.conf` is `x.conf`).
pub(crate) fn id_of(file: &str) -> String {
    counted(file).map_or_else(|| file.to_owned(), |(name, _)| format!("{name}.conf"))
}

/// How often the loader may still start an entry before it counts as bad; `None` when it does not count.
pub(crate) fn tries_left(file: &str) -> Option<u32> {
    let (_, tries) = counted(file)?;
    tries.split('-').next()?.parse().ok()
}

fn counted(file: &str) -> Option<(&str, &str)> {
    let is_count = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let (name, tries) = file.strip_suffix(".conf").unwrap_or(file).rsplit_once('+')?;
    (!tries.is_empty() && is_count(tries)).then_some((name, tries))
}

/// The file of an entry that may be started once before it counts as bad.
pub(crate) fn file_on_trial(id: &str) -> String {
    format!("{}+1.conf", id.strip_suffix(".conf").unwrap_or(id))
}

/// What means an entry whether the loader takes the count for a part of its name or not.
pub(crate) fn pattern_of(id: &str) -> String {
    format!("{}[+.]*conf", id.strip_suffix(".conf").unwrap_or(id))
}

/// What means an entry for a loader that takes the count for a part of its name, while it counts. No environment has a `+`
/// in its name.
pub(crate) fn counted_pattern_of(id: &str) -> String {
    format!("{}+*.conf", id.strip_suffix(".conf").unwrap_or(id))
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
            ("[ad]ebian.conf", "debian.conf", true),
            ("[ab]ebian.conf", "debian.conf", false),
            ("[debian.conf", "debian.conf", false),
        ] {
            assert_eq!(matches(pattern, entry), want, "{pattern}");
        }
        for (file, id) in
            [("a.conf", "a.conf"), ("a+3.conf", "a.conf"), ("a+2-1.conf", "a.conf"), ("a+b.conf", "a+b.conf")]
        {
            assert_eq!(id_of(file), id);
        }
        assert_eq!(["a.conf", "a+3.conf", "a+0-1.conf"].map(tries_left), [None, Some(3), Some(0)]);
        for file in ["a.conf", "a+1.conf", "a+0-1.conf", "A+2-1.conf"] {
            assert!(matches(&pattern_of("a.conf"), file), "{file}");
        }
        for file in ["ab.conf", "b.conf", "a-b.conf", "a_1.conf"] {
            assert!(!matches(&pattern_of("a.conf"), file), "{file}");
        }
        assert!(matches(&pattern_of("a.conf"), &file_on_trial("a.conf")));
        assert!(matches(&counted_pattern_of("a.conf"), "a+0-1.conf"));
        assert!(!matches(&counted_pattern_of("a.conf"), "a.b.conf"));
        for (name, want) in [
            ("systemd-boot 257.13-1~deb13u1", false),
            ("systemd-boot 258~rc1", true),
            ("systemd-boot 260.1", true),
            ("another", false),
        ] {
            let loader = Loader { name: Some(name.to_owned()), ..Loader::default() };
            assert_eq!(loader.knows_names_without_counts(), want, "{name}");
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
