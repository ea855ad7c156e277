//! Kernels with the OpenZFS of other Debian releases, for tests that hand them our pools.
//!
//! Each is a kernel and a memory disk that holds the release's own tools and module, and ends in the control channel of
//! [`kld_vm`]: no firmware, no loader and no root disk take part, so a boot costs seconds.

use std::path::Path;

use anyhow::Context as _;
use kld_build::cache::{Cache, KeyBuilder};
use kld_host::Cmd;
use kld_ui::{Phases, Printer};

use crate::tools::{OTHER_ZFS, debian};

const PACKAGES: &[&str] = &[
    "linux-image-amd64",
    "linux-headers-amd64",
    "zfs-dkms",
    "zfsutils-linux",
    "build-essential",
    "udev",
    "attr",
    "cpio",
    "kmod",
    "zstd",
    "xz-utils",
];

/// What lies in the tree before it is packed.
const FILES: [(&str, &str); 4] = [
    ("init.sh", include_str!("kernels/init.sh")),
    ("systemctl.sh", include_str!("kernels/systemctl.sh")),
    ("pack.sh", include_str!("kernels/pack.sh")),
    ("control.bash", kld_vm::control::SCRIPT),
];

/// Compiles them, or finds them: `2.1=/directory/of/vmlinuz/and/initrd`, separated by commas.
pub(crate) fn ensure(printer: &Printer, cache: &Cache) -> anyhow::Result<String> {
    let phases = Phases::new(printer, OTHER_ZFS.len());
    let files = tempfile::tempdir().context("cannot make a temporary directory")?;
    for (name, text) in FILES {
        std::fs::write(files.path().join(name), text).context("cannot write to the temporary directory")?;
    }
    let mut kernels = Vec::new();
    for (release, suite) in OTHER_ZFS {
        let phase = phases.start(&format!("compile OpenZFS {release} for the kernel of Debian {suite}"));
        let key = KeyBuilder::new("kernel", 1)
            .part(suite)
            .parts(PACKAGES.iter())
            .parts(FILES.iter().map(|(_, text)| text))
            .finish();
        let entry = debian(cache, &key, &phase, |cmd, out| mmdebstrap(cmd, suite, files.path(), out))?;
        phase.finish();
        kernels.push(format!("{release}={}", entry.display()));
    }
    Ok(kernels.join(","))
}

fn mmdebstrap(cmd: Cmd, suite: &str, files: &Path, out: &Path) -> Cmd {
    let cmd = cmd
        // The memory disk is made by pack.sh.
        .env("INITRD", "No")
        .args(["--variant=minbase", "--format=null", &format!("--include={}", PACKAGES.join(","))])
        .args(["--aptopt=Acquire::Check-Valid-Until \"false\"", "--essential-hook=mkdir \"$1/kldload\""]);
    let cmd = FILES.iter().fold(cmd, |cmd, (name, _)| {
        cmd.arg(format!("--customize-hook=upload '{}' /kldload/{name}", files.join(name).display()))
    });
    let cmd = cmd.arg("--customize-hook=chroot \"$1\" sh /kldload/pack.sh");
    let cmd = ["vmlinuz", "initrd"].into_iter().fold(cmd, |cmd, name| {
        cmd.arg(format!("--customize-hook=download /kldload/{name} '{}'", out.join(name).display()))
    });
    cmd.args([suite, "/dev/null"])
}
