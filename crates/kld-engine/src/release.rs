//! Which distribution a machine runs, and which release of it: os-release(5).

use std::fmt;

use kld_system::DistroSpec;

use crate::host::{Host, HostError};

/// In order of precedence. The first is a link to the second, unless somebody has replaced it.
const FILES: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// A distribution and its release, in the words of os-release(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// `ID`: `debian`.
    pub id: String,
    /// `VERSION_ID`: `13`. What has no releases, such as Debian unstable, has none.
    pub version: Option<String>,
}

impl Release {
    /// What a machine runs; `None` when it does not say.
    pub(crate) fn of(host: &dyn Host) -> Result<Option<Self>, HostError> {
        for path in FILES {
            if let Some(text) = host.read(path)? {
                return Ok(Self::parse(&text));
            }
        }
        Ok(None)
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            let value = values.next_back()?.trim().trim_matches(['"', '\'']);
            (!value.is_empty()).then(|| value.to_owned())
        };
        Some(Self { id: value("ID")?, version: value("VERSION_ID") })
    }

    pub(crate) fn is(&self, distro: &DistroSpec) -> bool {
        self.id == distro.id && self.version.as_ref() == Some(&distro.release)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{} {version}", self.id),
            None => write!(f, "{} without a release", self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_as_shells_read_them() {
        let said = |text: &str| Release::parse(text).map(|release| release.to_string());
        let debian =
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\nID_LIKE=x\n";
        assert_eq!(said(debian).as_deref(), Some("debian 12"));
        assert_eq!(said("ID='fedora'\nVERSION_ID=43\n").as_deref(), Some("fedora 43"));
        assert_eq!(said("ID=debian\nVERSION_CODENAME=sid\n").as_deref(), Some("debian without a release"));
        assert_eq!(said("# nothing\nNAME=x\n"), None);
    }
}
