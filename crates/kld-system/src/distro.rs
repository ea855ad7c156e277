//! Distributions as data: one file in `distros/` per release, compiled in.
//!
//! A new distribution is a new file here and a bootstrap back end in the builder; the layers never ask which one it is.

use kld_manifest::model::{Distro, DistroFamily};
use kld_manifest::names::{PackageName, PoolName, UnitName};
use serde::Deserialize;

/// The files of `distros/`, the default release of a family first.
const DISTROS: &[(DistroFamily, &str)] = &[
    (DistroFamily::Debian, include_str!("../distros/debian-13.toml")),
    (DistroFamily::Debian, include_str!("../distros/debian-12.toml")),
];

/// What the layers and the builder must know of a distribution.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistroSpec {
    /// `ID` of os-release(5), and the name of the first boot environment.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// `VERSION_ID` of os-release(5).
    pub release: String,
    /// The archive's name of the release.
    pub suite: String,
    /// Suites with corrections, on the same mirror.
    pub update_suites: Vec<String>,
    /// The suite of the security archive.
    pub security_suite: String,
    /// Sections of the archive that are used.
    pub components: Vec<String>,
    /// Seconds since 1970 that no file of an image is newer than, unless `SOURCE_DATE_EPOCH` says otherwise.
    pub epoch: u64,
    /// File with the keys that sign the archive.
    pub keyring: String,
    /// Package that pulls in the kernel.
    pub kernel_package: String,
    /// Packages that only a start of the machine takes into use; a name that ends in `*` stands for all that begin so.
    pub needs_reboot: Vec<String>,
    /// The zpool-features(7) compatibility set that the release's OpenZFS reads.
    pub zfs_compatibility: String,
    /// `relatime` of a dataset where nobody has set it: the release's OpenZFS decides.
    pub relatime: String,
    /// Major version of systemd: directives of a newer one are refused, which it would pass over with a warning.
    pub systemd_version: u32,
    /// Packages by role.
    pub packages: RolePackages,
    /// What compiles the ZFS module, outside the image.
    pub module_build: ModuleBuild,
    /// Names of units.
    pub units: UnitNames,
    /// Names of accounts.
    pub accounts: AccountNames,
    /// Where programs and data lie.
    pub paths: Paths,
    /// Units left off.
    pub switched_off: Vec<SwitchedOff>,
    /// What is known of services that packages bring.
    pub packaged: Vec<PackagedService>,
    /// What the package manager does not unpack.
    pub dpkg: DpkgPaths,
    /// Files that must lie in the tree before packages are configured.
    #[serde(default)]
    pub prepared: Vec<PreparedFile>,
}

/// Packages of each role. `loader` is for images alone: on a machine that exists it is for its owner to say what starts it.
/// Where `containers` is empty there are none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the names say it")]
pub struct RolePackages {
    pub base: Vec<String>,
    pub boot: Vec<String>,
    pub loader: Vec<String>,
    pub zfs: Vec<String>,
    pub network: Vec<String>,
    pub mesh: Vec<String>,
    pub firewall: Vec<String>,
    pub ssh: Vec<String>,
    pub ssh_client: Vec<String>,
    pub admin: Vec<String>,
    pub snapshots: Vec<String>,
    pub replication: Vec<String>,
    pub monitoring: Vec<String>,
    pub containers: Vec<String>,
}

/// The throw-away layer that compiles the module.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleBuild {
    /// Packages of that layer.
    pub packages: Vec<String>,
}

/// What the distribution calls its units. `{pool}` stands for the pool's name. Without a `trim_timer` it has none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the names say it")]
pub struct UnitNames {
    pub ssh: String,
    pub ssh_socket: String,
    pub firewall: String,
    pub node_exporter: String,
    pub zed: String,
    pub sanoid: String,
    pub sanoid_prune: String,
    pub sanoid_timer: String,
    pub scrub_timer: String,
    pub trim_timer: Option<String>,
}

/// What the distribution calls the accounts of its packages.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the names say it")]
pub struct AccountNames {
    pub resolver: String,
    pub time: String,
    pub network: String,
    pub node_exporter: String,
}

/// Where the distribution puts things.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Paths {
    pub syncoid: String,
    pub node_exporter: String,
    pub node_exporter_defaults: String,
    pub textfile_directory: String,
    pub zedlets: String,
}

/// A unit that is left off.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchedOff {
    /// The unit.
    pub unit: String,
    /// Why.
    pub reason: String,
}

/// A service whose unit comes with a package.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackagedService {
    /// The name a manifest may use.
    pub unit: String,
    /// The unit that runs the process.
    pub runs: String,
    /// The account it runs as.
    pub user: String,
    /// The package it comes with.
    pub package: String,
    /// Directories it must be able to write to.
    pub writes: Vec<String>,
    /// Directories that its first steps must be able to write to besides: its configuration.
    pub setup_writes: Vec<String>,
}

/// A file that stops a package from making data or an identity while the image is built.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreparedFile {
    /// The package that reads it; packages whose names begin so count too.
    pub package: String,
    /// Absolute path.
    pub path: String,
    /// Content.
    pub text: String,
    /// Why.
    pub reason: String,
}

impl PreparedFile {
    /// Whether a package of this name reads it.
    pub fn is_read_by(&self, package: &str) -> bool {
        package.starts_with(&self.package)
    }
}

/// `path-exclude` and `path-include` of dpkg.cfg(5).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DpkgPaths {
    /// Patterns left out.
    pub exclude: Vec<String>,
    /// Patterns kept all the same; they come after the excludes.
    pub include: Vec<String>,
}

/// No data for the distribution a manifest names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot build from `{wanted}`: kldload has no data for this distribution yet")]
pub struct UnknownDistro {
    /// What was asked for.
    pub wanted: String,
}

impl UnknownDistro {
    /// What can be done about it.
    pub fn hint(&self) -> Option<String> {
        let known: Vec<_> = known().into_iter().map(|d| format!("{} {}", d.id, d.release)).collect();
        Some(format!("write one of: {}", known.join(", ")))
    }
}

/// Every distribution there is data for.
pub fn known() -> Vec<DistroSpec> {
    DISTROS.iter().map(|(_, text)| parse_built_in(text)).collect()
}

/// The distribution a manifest names: by family, and by release number or suite when written.
///
/// # Errors
/// When no file describes it.
pub fn find_distro(wanted: &Distro) -> Result<DistroSpec, UnknownDistro> {
    DISTROS
        .iter()
        .filter(|(family, _)| *family == wanted.family)
        .map(|(_, text)| parse_built_in(text))
        .find(|spec| wanted.release.as_ref().is_none_or(|r| *r == spec.release || *r == spec.suite))
        .ok_or_else(|| UnknownDistro {
            wanted: match &wanted.release {
                Some(release) => format!("{:?} {release}", wanted.family),
                None => format!("{:?}", wanted.family),
            },
        })
}

fn parse_built_in(text: &str) -> DistroSpec {
    toml::from_str(text).expect("the distro files are part of the program; a test reads each of them")
}

impl DistroSpec {
    /// `debian-13`, as `--distro` and lock files name it.
    pub fn label(&self) -> String {
        format!("{}-{}", self.id, self.release)
    }

    /// Whether a package is taken into use by a start of the machine and not before.
    pub fn needs_reboot(&self, package: &str) -> bool {
        self.needs_reboot.iter().any(|name| match name.strip_suffix('*') {
            Some(begin) => package.starts_with(begin),
            None => package == name,
        })
    }

    /// Whether a package is a kernel: the one that is named, or one of an exact release, as images have it.
    pub fn is_kernel(&self, package: &str) -> bool {
        let family = self.kernel_package.rsplit_once('-').map_or("", |(family, _)| family);
        package.strip_prefix(family).is_some_and(|rest| rest.starts_with('-'))
    }

    /// The scrub timer of a pool.
    pub(crate) fn scrub_timer(&self, pool: &PoolName) -> String {
        self.units.scrub_timer.replace("{pool}", pool.as_str())
    }

    /// The trim timer of a pool, where there is one.
    pub(crate) fn trim_timer(&self, pool: &PoolName) -> Option<String> {
        self.units.trim_timer.as_ref().map(|timer| timer.replace("{pool}", pool.as_str()))
    }

    /// What is known of a packaged service under the name a manifest uses.
    pub(crate) fn packaged(&self, unit: &UnitName) -> Option<&PackagedService> {
        self.packaged.iter().find(|p| p.unit == unit.as_str())
    }
}

/// A package name that this program or its data states.
pub(crate) fn package(name: &str) -> PackageName {
    name.parse().expect("package names in distro data are valid; a test reads each of them")
}

/// A unit name that this program or its data states.
pub(crate) fn unit(name: &str) -> UnitName {
    name.parse().expect("unit names in the layers and in distro data are valid; a test reads each of them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_distro_file_is_readable_and_its_names_are_valid() {
        for spec in known() {
            let p = &spec.packages;
            for role in [
                &p.base,
                &p.boot,
                &p.zfs,
                &p.network,
                &p.mesh,
                &p.firewall,
                &p.ssh,
                &p.ssh_client,
                &p.admin,
                &p.snapshots,
                &p.replication,
                &p.monitoring,
                &spec.module_build.packages,
            ] {
                assert!(!role.is_empty());
                role.iter().for_each(|name| drop(package(name)));
            }
            p.loader.iter().chain(&p.containers).for_each(|name| drop(package(name)));
            spec.switched_off.iter().for_each(|off| drop(unit(&off.unit)));
            spec.packaged
                .iter()
                .for_each(|known| drop((unit(&known.unit), unit(&known.runs), package(&known.package))));
            for path in [&spec.keyring, &spec.paths.syncoid, &spec.paths.textfile_directory] {
                assert!(path.starts_with('/'), "{path}");
            }
        }
    }

    #[test]
    fn what_needs_a_reboot_is_told_by_its_name() {
        let debian = &known()[0];
        for name in
            ["linux-image-amd64", "linux-image-6.12.57+deb13-amd64", "zfs-modules-6.12", "amd64-microcode"]
        {
            assert!(debian.needs_reboot(name), "{name}");
        }
        for name in ["zfs-dkms-extra", "linux-headers-amd64", "postgresql"] {
            assert!(!debian.needs_reboot(name), "{name}");
        }
        assert!(debian.is_kernel("linux-image-6.12.57+deb13-amd64") && debian.is_kernel("linux-image-amd64"));
        assert!(!debian.is_kernel("linux-base") && !debian.is_kernel("linux-imagery"));
    }

    #[test]
    fn a_distro_is_found_by_family_release_and_suite() {
        let find = |release: Option<&str>| {
            find_distro(&Distro { family: DistroFamily::Debian, release: release.map(str::to_owned) })
                .map(|d| d.suite)
        };
        assert_eq!(find(None).as_deref(), Ok("trixie"));
        assert_eq!(find(Some("13")).as_deref(), Ok("trixie"));
        assert_eq!(find(Some("12")).as_deref(), Ok("bookworm"));
        assert_eq!(find(Some("trixie")).as_deref(), Ok("trixie"));
        let error = find(Some("7")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot build from `Debian 7`: kldload has no data for this distribution yet"
        );
        assert_eq!(error.hint().as_deref(), Some("write one of: debian 13, debian 12"));
    }
}
