//! The tools that tests check against, of the release that images are made from.
//!
//! A Debian 13 tree in the cache holds `zdb`, `promtool`, `systemd-analyze`, `sanoid` and others, so that every
//! machine checks with the same versions, whatever it runs itself.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kld_build::cache::{Cache, Key, KeyBuilder};
use kld_host::{Cmd, Line, atomic_write};
use kld_ui::{Phase, Phases};

use crate::setup::DEBIAN_KEYRING;

const PACKAGES: &[&str] = &[
    "zfsutils-linux",
    "zfs-zed",
    "systemd",
    "systemd-resolved",
    "systemd-timesyncd",
    "sudo",
    "nftables",
    "iproute2",
    "prometheus",
    "prometheus-node-exporter",
    "sanoid",
    "mbuffer",
    "wireguard-tools",
    "openssh-server",
    "postgresql",
    "gunicorn",
    "python3-flask",
    "python3-psycopg2",
    "podman",
];

/// OpenZFS as other releases of Debian have it, and the suites: a pool must mean the same to each.
pub(crate) const OTHER_ZFS: [(&str, &str); 2] = [("2.1", "bookworm"), ("2.4", "sid")];

/// Where the tools are.
#[derive(Debug)]
pub(crate) struct Tools {
    /// The tree: `chroot TREE promtool …`.
    pub(crate) root: PathBuf,
    /// An executable that behaves like `zdb`.
    pub(crate) zdb: PathBuf,
    /// The same of other releases: `2.1=/path/to/zdb`, separated by commas.
    pub(crate) other_zdb: String,
}

/// Makes the trees, or finds them.
pub(crate) fn ensure(cache: &Cache, phases: &Phases) -> anyhow::Result<Tools> {
    let phase = phases.start("prepare the tools that tests check with");
    let key = KeyBuilder::new("tools", 1).parts(PACKAGES.iter()).finish();
    let entry = debian(cache, &key, &phase, |cmd, out| {
        cmd.args(["--variant=minbase", "--format=directory", &format!("--include={}", PACKAGES.join(","))])
            .arg("trixie")
            .arg(out.join("tree"))
    })?;
    let zdb = install_zdb(&entry)?;
    let mut others = Vec::new();
    for (release, suite) in OTHER_ZFS {
        let key = KeyBuilder::new("zdb", 1).part(suite).finish();
        // Nothing of it runs but zdb: unpacked is enough, and a mirror that lags behind as good as another.
        let entry = debian(cache, &key, &phase, |cmd, out| {
            cmd.args(["--variant=extract", "--format=directory", "--include=zfsutils-linux"])
                .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
                .arg(suite)
                .arg(out.join("tree"))
        })?;
        others.push(format!("{release}={}", install_zdb(&entry)?.display()));
    }
    phase.finish();
    Ok(Tools { root: entry.join("tree"), zdb, other_zdb: others.join(",") })
}

/// A cache entry that mmdebstrap fills; `what` adds what to install, the suite and the target in the directory of the entry.
pub(crate) fn debian(
    cache: &Cache,
    key: &Key,
    phase: &Phase,
    what: impl Fn(Cmd, &Path) -> Cmd,
) -> anyhow::Result<PathBuf> {
    let made = cache.ensure("tools", key, |out| {
        let cmd = Cmd::new("mmdebstrap")
            .arg(format!("--keyring={DEBIAN_KEYRING}"))
            .arg("--components=main,contrib")
            .arg("--aptopt=APT::Install-Recommends \"false\"")
            .args(["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"]);
        what(cmd, out).stream(|line| {
            if let Line::Stderr(text) = line
                && let Some(text) = text.strip_prefix("I: ")
            {
                phase.message(text);
            }
        })
    })?;
    Ok(made)
}

/// Writes an executable that runs `zdb` of a tree with the tree's own libraries: it sees the host's files, so images
/// need not be copied in.
fn install_zdb(entry: &Path) -> anyhow::Result<PathBuf> {
    let root = entry.join("tree");
    // Since Debian 13 everything lies below /usr, also without the links that base-files makes.
    let merged = root.join("usr");
    let system = if merged.join("sbin/zdb").exists() { &merged } else { &root };
    let script = format!(
        "#!/bin/sh\nlib={root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu\n\
         exec {system}/lib64/ld-linux-x86-64.so.2 --library-path \"$lib\" {system}/sbin/zdb \"$@\"\n",
        root = root.display(),
        system = system.display()
    );
    let zdb = entry.join("zdb");
    atomic_write(&zdb, script.as_bytes(), 0o755).context("cannot write the zdb wrapper")?;
    Ok(zdb)
}
