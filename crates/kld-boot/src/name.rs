//! Names of boot environments.

use std::fmt;
use std::str::FromStr;

/// Longest name, in bytes: it is a part of a dataset's name and of a file name on FAT, with a date behind it.
const LONGEST: usize = 64;
/// What a stand-in's file name ends with: an entry of this name would be taken for one (`kld-node`, identity/entries.rs).
const STAND_IN: &str = ".stand-in";

/// Files whose name begins so are none of its entries for systemd-boot, which calls what it finds itself so: an environment of
/// this name would never start.
const AUTO: &str = "auto-";

/// Whether systemd-boot passes over this name, of an environment or of an entry's file.
pub(crate) fn is_passed_over(name: &str) -> bool {
    name.get(..AUTO.len()).is_some_and(|first| first.eq_ignore_ascii_case(AUTO))
}

/// A name that can be a dataset, a file on FAT, a word on the kernel's command line and an argument of every tool at once.
///
/// ```
/// use kld_boot::BootEnvironmentName;
/// assert!("before-upgrade".parse::<BootEnvironmentName>().is_ok());
/// assert!("-r".parse::<BootEnvironmentName>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootEnvironmentName(String);

/// A name that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no name for a boot environment: {reason}")]
pub struct NameError {
    name: String,
    reason: &'static str,
}

impl NameError {
    /// How a name is written.
    pub fn hint(&self) -> Option<String> {
        Some(format!(
            "1 to {LONGEST} letters, digits, `.`, `_` and `-`, the first a letter or digit: `before-upgrade`"
        ))
    }
}

impl BootEnvironmentName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The file name of its boot entry. Small letters only: FAT does not tell them apart, and systemd-boot compares
    /// what it read with what it made small.
    pub fn entry_id(&self) -> String {
        format!("{}.conf", self.0.to_ascii_lowercase())
    }
}

impl FromStr for BootEnvironmentName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let error = |reason| Err(NameError { name: name.to_owned(), reason });
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() {
            error("it is empty")
        } else if name.len() > LONGEST {
            error("it is too long")
        } else if !name.bytes().all(is_plain) {
            error("it holds another character")
        } else if !name.as_bytes()[0].is_ascii_alphanumeric() {
            error("it begins with another character")
        } else if name.ends_with('.') || name.to_ascii_lowercase().ends_with(STAND_IN) {
            error("its boot entry would have a name that means something else")
        } else if is_passed_over(name) {
            error("systemd-boot passes over boot entries that begin with `auto-`")
        } else {
            Ok(Self(name.to_owned()))
        }
    }
}

impl fmt::Display for BootEnvironmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_some_tool_would_take_for_something_else_is_no_name() {
        for good in ["debian", "6.12.57", "before-upgrade", "A_b", "auto", "automatic-1", &"x".repeat(64)] {
            assert!(good.parse::<BootEnvironmentName>().is_ok(), "{good}");
        }
        let long = "x".repeat(65);
        for bad in [
            "",
            "-r",
            ".hidden",
            "a b",
            "a/b",
            "a@b",
            "a:b",
            "ü",
            "a*",
            "a.",
            "x.stand-in",
            "X.Stand-In",
            "auto-upgrade",
            "Auto-Upgrade",
            &long,
        ] {
            assert!(bad.parse::<BootEnvironmentName>().is_err(), "{bad}");
        }
        let name: BootEnvironmentName = "Before".parse().expect("a name");
        assert_eq!(name.entry_id(), "before.conf");
    }

    proptest! {
        #[test]
        fn a_name_is_one_word_everywhere(text in "\\PC{0,70}") {
            if let Ok(name) = text.parse::<BootEnvironmentName>() {
                prop_assert_eq!(name.as_str(), text.as_str());
                prop_assert!(!text.starts_with('-') && text.split_whitespace().count() == 1);
                prop_assert!(!text.contains(['/', '@', '*', '?', '[', '+', ':', '\\']));
            }
        }
    }
}
