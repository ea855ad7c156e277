//! The lock file: every package of an image with version and digest, from which a build can be repeated.
//!
//! It names no mirror: a package is what its digest says, wherever it came from.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// What was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Format of this file; 1.
    pub version: u32,
    /// The distribution's id, `debian-13`.
    pub distro: String,
    /// Release of the running kernel, as `uname -r` prints it.
    pub kernel: String,
    /// The packages, sorted by name, then architecture.
    #[serde(rename = "package")]
    pub packages: Vec<LockedPackage>,
}

/// One package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// `openssh-server`.
    pub name: String,
    /// `amd64` or `all`.
    pub architecture: String,
    /// As the distribution writes it.
    pub version: String,
    /// SHA-256 of the package file in lower-case hexadecimal. Absent for a package that kldload itself
    /// built: its content follows from the packages it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Why a lock file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It is not TOML of the expected shape.
    #[error("the lock file is not understood")]
    Parse(#[source] toml::de::Error),
    /// A newer kldload wrote it.
    #[error("the lock file has version {0}, and this kldload knows version 1")]
    Version(u32),
    /// The package list of a root tree is not what the tool that wrote it prints.
    #[error("the package list has a line that is not understood: `{0}`")]
    List(String),
}

impl Lock {
    /// Reads a lock file.
    ///
    /// # Errors
    /// Not a lock file, or one of a newer kldload.
    pub fn parse(text: &str) -> Result<Self, LockError> {
        let lock: Self = toml::from_str(text).map_err(LockError::Parse)?;
        if lock.version == 1 { Ok(lock) } else { Err(LockError::Version(lock.version)) }
    }

    /// Reads what the bootstrap writes into a root tree's `packages` file: one line per package, tab between
    /// name, architecture, version and SHA-256 (empty when unknown).
    ///
    /// # Errors
    /// A line has another shape.
    pub fn from_list(distro: &str, kernel: &str, text: &str) -> Result<Self, LockError> {
        let mut packages = text
            .lines()
            .map(|line| {
                let fields: Vec<&str> = line.split('\t').collect();
                let [name, architecture, version, sha256] = fields[..] else {
                    return Err(LockError::List(line.to_owned()));
                };
                let is_digest = sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit());
                if name.is_empty() || version.is_empty() || !(sha256.is_empty() || is_digest) {
                    return Err(LockError::List(line.to_owned()));
                }
                Ok(LockedPackage {
                    name: name.to_owned(),
                    architecture: architecture.to_owned(),
                    version: version.to_owned(),
                    sha256: is_digest.then(|| sha256.to_owned()),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        packages.sort();
        Ok(Self { version: 1, distro: distro.to_owned(), kernel: kernel.to_owned(), packages })
    }

    /// The file's text.
    pub fn render(&self) -> String {
        let mut text = String::from(
            "# Every package of the image. Made by kldload; `kldload build --lock FILE` builds from it again.\n",
        );
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "version = {}\ndistro = {:?}\nkernel = {:?}",
            self.version, self.distro, self.kernel
        );
        for p in &self.packages {
            let _ = write!(
                text,
                "\n[[package]]\nname = {:?}\narchitecture = {:?}\nversion = {:?}\n",
                p.name, p.architecture, p.version
            );
            if let Some(sum) = &p.sha256 {
                let _ = writeln!(text, "sha256 = {sum:?}");
            }
        }
        text
    }

    /// The package of the compiled ZFS modules.
    pub fn zfs_modules(&self) -> Option<&LockedPackage> {
        self.packages.iter().find(|p| p.name.starts_with("zfs-modules-"))
    }

    /// The distribution without its release: `debian`.
    pub fn vendor(&self) -> &str {
        self.distro.split('-').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "ab3c0f5e8d7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c";

    fn sample() -> Lock {
        let list = format!(
            "zlib1g\tamd64\t1:1.3-1+b1\t{DIGEST}\nbash\tamd64\t5.2\t{DIGEST}\nzfs-modules-6.12\tamd64\t2.3\t\n"
        );
        Lock::from_list("debian-13", "6.12.1-amd64", &list).expect("the list is good")
    }

    #[test]
    fn a_written_lock_is_read_back() {
        let lock = sample();
        assert_eq!(Lock::parse(&lock.render()).expect("our own text is good"), lock);
        assert_eq!(lock.packages[0].name, "bash", "sorted");
    }

    #[test]
    fn lists_that_are_not_understood_are_refused() {
        for bad in
            ["bash", "bash\tamd64\t5.2", "bash\tamd64\t5.2\tnot-a-digest", "\tamd64\t1\t", "a\tb\tc\t\td"]
        {
            assert!(Lock::from_list("debian-13", "6", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn other_versions_and_unknown_keys_are_refused() {
        let text = sample().render();
        assert!(matches!(
            Lock::parse(&text.replace("version = 1\n", "version = 2\n")),
            Err(LockError::Version(2))
        ));
        assert!(Lock::parse(&format!("surprise = 1\n{text}")).is_err());
    }

    #[test]
    fn the_bill_of_materials_names_every_package() {
        let spdx = crate::sbom::render_spdx("webapp", "2026-01-01T00:00:00Z", &sample());
        let packages = spdx["packages"].as_array().expect("an array");
        assert_eq!(packages.len(), 3);
        assert_eq!(
            packages[1]["externalRefs"][0]["referenceLocator"],
            "pkg:deb/debian/zfs-modules-6.12@2.3?arch=amd64"
        );
        assert_eq!(packages[2]["checksums"][0]["checksumValue"], DIGEST);
    }
}
