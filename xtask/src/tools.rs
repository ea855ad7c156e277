//! The tools that tests check against, of the release that images are made from.
//!
//! A Debian 13 tree in the cache holds `zdb`, `promtool`, `systemd-analyze`, `sanoid` and others, so that every
//! machine checks with the same versions, whatever it runs itself.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kld_build::cache::{Cache, KeyBuilder};
use kld_host::{Cmd, Line, atomic_write};
use kld_ui::Phases;

const PACKAGES: &[&str] = &[
    "zfsutils-linux",
    "zfs-zed",
    "systemd",
    "systemd-resolved",
    "systemd-timesyncd",
    "sudo",
    "nftables",
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

/// Where the tools are.
#[derive(Debug)]
pub(crate) struct Tools {
    /// The tree: `chroot TREE promtool …`.
    pub(crate) root: PathBuf,
    /// An executable that behaves like `zdb`.
    pub(crate) zdb: PathBuf,
}

/// Makes the tree, or finds it.
pub(crate) fn ensure(cache: &Cache, phases: &Phases) -> anyhow::Result<Tools> {
    let phase = phases.start("prepare the tools that tests check with");
    let key = KeyBuilder::new("tools", 1).parts(PACKAGES.iter()).finish();
    let found = cache.get("tools", &key);
    let cached = found.is_some();
    let entry = match found {
        Some(entry) => entry,
        None => cache.ensure("tools", &key, |out| {
            Cmd::new("mmdebstrap")
                .args(["--variant=minbase", "--format=directory", "--components=main,contrib"])
                .arg("--aptopt=APT::Install-Recommends \"false\"")
                .args(["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"])
                .arg(format!("--include={}", PACKAGES.join(",")))
                .arg("trixie")
                .arg(out.join("tree"))
                .stream(|line| {
                    if let Line::Stderr(text) = line
                        && let Some(text) = text.strip_prefix("I: ")
                    {
                        phase.message(text);
                    }
                })
        })?,
    };
    let root = entry.join("tree");
    let zdb = entry.join("zdb");
    atomic_write(&zdb, zdb_wrapper(&root).as_bytes(), 0o755).context("cannot write the zdb wrapper")?;
    if cached {
        phase.finish_with("from the cache")
    } else {
        phase.finish()
    }
    Ok(Tools { root, zdb })
}

/// `zdb` of the tree with the tree's own libraries: it sees the host's files, so images need not be copied in.
fn zdb_wrapper(root: &Path) -> String {
    let root = root.display();
    format!(
        "#!/bin/sh\nlib={root}/usr/lib/x86_64-linux-gnu\n\
         exec \"$lib/ld-linux-x86-64.so.2\" --library-path \"$lib\" {root}/usr/sbin/zdb \"$@\"\n"
    )
}
