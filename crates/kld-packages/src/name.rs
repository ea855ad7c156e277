//! Names of packages as a person writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A package, as package managers are told: a name, and behind it `:ARCHITECTURE` or `=VERSION` where somebody wants them.
///
/// ```
/// use kld_packages::PackageName;
/// assert!("libc6:amd64=2.41-12".parse::<PackageName>().is_ok());
/// assert!("--force".parse::<PackageName>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageName(String);

/// A name that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no name of a package")]
pub struct PackageNameError {
    name: String,
}

impl PackageNameError {
    /// How a name is written.
    pub fn hint(&self) -> Option<String> {
        Some("letters, digits, `+`, `-` and `.`, the first a letter or digit: `openssh-server`".to_owned())
    }
}

impl PackageName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PackageName {
    type Err = PackageNameError;

    fn from_str(name: &str) -> Result<Self, PackageNameError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._~:=".contains(&byte);
        let begins = name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
        // apt-get takes `NAME-` for a removal, and `NAME+` for an installation whatever the verb.
        let ends =
            name.bytes().last().is_some_and(|last| last.is_ascii_alphanumeric() || name.ends_with("++"));
        if begins && ends && name.len() <= 200 && name.bytes().all(is_plain) {
            Ok(Self(name.to_owned()))
        } else {
            Err(PackageNameError { name: name.to_owned() })
        }
    }
}

impl TryFrom<String> for PackageName {
    type Error = PackageNameError;

    fn try_from(name: String) -> Result<Self, PackageNameError> {
        name.parse()
    }
}

impl From<PackageName> for String {
    fn from(name: PackageName) -> Self {
        name.0
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_would_take_for_something_else_is_no_name() {
        for good in ["bash", "libc6:amd64", "g++", "linux-image-6.12.57+deb13-amd64", "a=1:2.3~rc1-1", "7zip"]
        {
            assert!(good.parse::<PackageName>().is_ok(), "{good}");
        }
        for bad in
            ["", "-y", "--force-yes", "bash-", "bash+", "a b", "a/b", "a;b", "$x", "ü", "*", "a*", ".x"]
        {
            assert!(bad.parse::<PackageName>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<PackageName>("\"-y\"").is_err());
    }
}
