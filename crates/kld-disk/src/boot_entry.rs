//! What systemd-boot reads from the EFI system partition: `loader/loader.conf` and `loader/entries/*.conf`.
//!
//! Follows the Boot Loader Specification (uapi-group.org), type 1. An entry is kept line by line, so that an entry
//! which a person edited keeps its comments, its order and the keys this code does not know.

use std::fmt;

/// Where the firmware looks for a loader on removable and new disks (UEFI 2.10, 3.5.1.1).
pub const FALLBACK_LOADER: &str = "EFI/BOOT/BOOTX64.EFI";
/// Where `bootctl` keeps systemd-boot.
pub const SYSTEMD_LOADER: &str = "EFI/systemd/systemd-bootx64.efi";
/// The folder of boot entries.
pub const ENTRIES: &str = "loader/entries";
/// The loader's configuration.
pub const LOADER_CONF: &str = "loader/loader.conf";

/// A file that an entry boots from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootFile {
    /// The kernel.
    Linux,
    /// The initial RAM file system.
    Initrd,
}

impl BootFile {
    /// The path on the EFI system partition, with a leading `/`, of the file whose SHA-256 is `digest`.
    ///
    /// The content names the path: boot environments that share a kernel share its bytes, and an entry can never
    /// point at a newer file than the one it was made for.
    pub fn path(self, digest: &[u8; 32]) -> String {
        let name = match self {
            Self::Linux => "linux",
            Self::Initrd => "initrd",
        };
        let address: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("/EFI/kldload/{address}/{name}")
    }
}

/// `loader.conf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderConf {
    /// Seconds that the menu waits.
    pub timeout: u32,
    /// The file name of the entry that boots by itself, or a pattern.
    pub default: String,
    /// Whether a person at the console may edit the kernel's arguments, which makes them root.
    pub editor: bool,
}

impl fmt::Display for LoaderConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let editor = if self.editor { "yes" } else { "no" };
        writeln!(f, "timeout {}\ndefault {}\nconsole-mode keep\neditor {editor}", self.timeout, self.default)
    }
}

/// A line of an entry that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("boot entry line {line}: key `{key}` has no value")]
pub struct EntryError {
    /// The line, from 1.
    pub line: usize,
    /// The key.
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    /// A comment or an empty line, as it stands.
    Other(String),
    Field {
        key: String,
        value: String,
    },
}

/// One boot entry. Its `Display` is the file's text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BootEntry {
    lines: Vec<Line>,
}

impl BootEntry {
    /// An entry with these `(key, value)` pairs, in this order.
    pub fn from_fields<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut entry = Self::default();
        for (key, value) in fields {
            entry.push(key, value);
        }
        entry
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// A key without a value.
    pub fn parse(text: &str) -> Result<Self, EntryError> {
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                lines.push(Line::Other(line.to_owned()));
                continue;
            }
            let (key, value) = trimmed
                .split_once([' ', '\t'])
                .ok_or_else(|| EntryError { line: index + 1, key: trimmed.to_owned() })?;
            lines.push(Line::Field { key: key.to_owned(), value: value.trim().to_owned() });
        }
        Ok(Self { lines })
    }

    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.fields().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// All values of `key`: `initrd` and `options` may stand several times.
    pub fn get_all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields().filter(move |(k, _)| *k == key).map(|(_, value)| value)
    }

    /// The value of the kernel argument `name`, the last one winning as in the kernel; quotes are not interpreted.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.get_all("options")
            .flat_map(str::split_ascii_whitespace)
            .filter_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
            .last()
    }

    /// Gives the kernel argument `name` this one value: removes every earlier one, adds `name=value` at the end of
    /// the last `options` line.
    pub fn set_option(&mut self, name: &str, value: &str) {
        self.remove_option(name);
        let last = self.lines.iter_mut().rev().find_map(|line| match line {
            Line::Field { key, value } if key == "options" => Some(value),
            _ => None,
        });
        let argument = format!("{name}={value}");
        match last {
            Some(value) => {
                value.push(' ');
                value.push_str(&argument);
            }
            None => self.push("options", &argument),
        }
    }

    /// Removes the kernel argument `name=…`, every one of them.
    pub fn remove_option(&mut self, name: &str) {
        let is_old = |argument: &str| argument.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
        for line in &mut self.lines {
            if let Line::Field { key, value } = line
                && key == "options"
                && value.split_ascii_whitespace().any(is_old)
            {
                let kept: Vec<_> = value.split_ascii_whitespace().filter(|a| !is_old(a)).collect();
                *value = kept.join(" ");
            }
        }
        self.lines.retain(|line| !matches!(line, Line::Field { value, .. } if value.is_empty()));
    }

    /// Gives `key` these values, where its first one stood, or at the end.
    pub fn set<'a>(&mut self, key: &str, values: impl IntoIterator<Item = &'a str>) {
        let is_old = |line: &Line| matches!(line, Line::Field { key: of, .. } if of == key);
        let at = self.lines.iter().position(is_old).unwrap_or(self.lines.len());
        self.lines.retain(|line| !is_old(line));
        let new =
            values.into_iter().map(|value| Line::Field { key: key.to_owned(), value: value.to_owned() });
        self.lines.splice(at..at, new);
    }

    fn push(&mut self, key: &str, value: &str) {
        self.lines.push(Line::Field { key: key.to_owned(), value: value.to_owned() });
    }

    fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().filter_map(|line| match line {
            Line::Field { key, value } => Some((key.as_str(), value.as_str())),
            Line::Other(_) => None,
        })
    }
}

impl fmt::Display for BootEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            match line {
                Line::Other(text) => writeln!(f, "{text}")?,
                Line::Field { key, value } => writeln!(f, "{key} {value}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    #[test]
    fn renders_what_the_image_carries() {
        let entry = BootEntry::from_fields([
            ("title", "Debian GNU/Linux 13 (trixie)"),
            ("version", "6.12.57"),
            ("sort-key", "kldload"),
            ("linux", &BootFile::Linux.path(&[0xA1; 32])),
            ("initrd", &BootFile::Initrd.path(&[0x0B; 32])),
            ("options", "root=ZFS=rpool/ROOT/debian"),
        ]);
        expect![[r#"
            title Debian GNU/Linux 13 (trixie)
            version 6.12.57
            sort-key kldload
            linux /EFI/kldload/a1a1a1a1a1a1a1a1/linux
            initrd /EFI/kldload/0b0b0b0b0b0b0b0b/initrd
            options root=ZFS=rpool/ROOT/debian
        "#]]
        .assert_eq(&entry.to_string());
        expect![[r#"
            timeout 3
            default debian.conf
            console-mode keep
            editor no
        "#]]
        .assert_eq(&LoaderConf { timeout: 3, default: "debian.conf".into(), editor: false }.to_string());
    }

    #[test]
    fn options_are_replaced_and_everything_else_is_kept() {
        let text = "# by hand\ntitle  Old   kernel\n\nx-mine 1\noptions quiet spl.spl_hostid=0x1\noptions spl.spl_hostid=0x2 ro\n";
        let mut entry = BootEntry::parse(text).unwrap();
        assert_eq!(entry.option("spl.spl_hostid"), Some("0x2"));
        assert_eq!(entry.option("spl"), None);
        entry.set_option("spl.spl_hostid", "0xabc");
        expect![[r#"
            # by hand
            title Old   kernel

            x-mine 1
            options quiet
            options ro spl.spl_hostid=0xabc
        "#]]
        .assert_eq(&entry.to_string());
        let again = BootEntry::parse(&entry.to_string()).unwrap();
        assert_eq!(again, entry);
    }

    #[test]
    fn an_entry_without_options_gets_them_and_an_emptied_line_goes() {
        let mut entry = BootEntry::parse("title x\n").unwrap();
        entry.set_option("a", "1");
        assert_eq!(entry.to_string(), "title x\noptions a=1\n");
        let mut entry = BootEntry::parse("options a=0\noptions b=1\n").unwrap();
        entry.set_option("a", "1");
        assert_eq!(entry.to_string(), "options b=1 a=1\n");
    }

    #[test]
    fn a_key_gets_new_values_where_its_first_stood() {
        let mut entry = BootEntry::parse("title x\ninitrd /a\noptions quiet\ninitrd /b\n").unwrap();
        entry.set("initrd", ["/c"]);
        entry.set("version", ["6.12"]);
        assert_eq!(entry.to_string(), "title x\ninitrd /c\noptions quiet\nversion 6.12\n");
    }

    #[test]
    fn a_key_without_a_value_is_named() {
        let error = BootEntry::parse("title x\noptions\n").unwrap_err();
        assert_eq!(error.to_string(), "boot entry line 2: key `options` has no value");
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_and_read_again(text in "((options |initrd|#|\\PC)[ \t=\\PC]{0,12}\r?\n){0,8}") {
            if let Ok(mut entry) = BootEntry::parse(&text) {
                prop_assert_eq!(BootEntry::parse(&entry.to_string()), Ok(entry.clone()));
                entry.set_option("root", "ZFS=a");
                prop_assert_eq!(entry.option("root"), Some("ZFS=a"));
                prop_assert_eq!(BootEntry::parse(&entry.to_string()), Ok(entry));
            }
        }
    }
}
