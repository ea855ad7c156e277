//! The same pool made as it is without a writer: `zpool create` and `tar` in a virtual machine.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kld_host::Cmd;
use kld_ui::{Phases, Printer};
use kld_vm::{Disk, DiskFormat, Guest, Mac, Nic, Vm};

use super::Args;
use super::peers::Place;
use super::table::{Markdown, median, seconds};
use crate::test::inherit;

/// Longer than any machine takes to boot, or to unpack a root tree, under emulation.
const LIMIT: Duration = Duration::from_secs(1800);
/// The tar on the second disk, the pool on the third.
const MAKE_POOL: &str = "set -e\n\
    zpool create -f -O compression=lz4 -O xattr=sa -O acltype=posix -O dnodesize=auto -m /bench bench /dev/vdc\n\
    tar --xattrs --xattrs-include='*' --acls -xpf /dev/vdb -C /bench\n\
    zpool export bench\n";

/// Boots the core image with the tree as a tar and an empty disk, and makes the pool there, as often as asked.
pub(super) fn run(printer: &Printer, place: &Place, args: &Args) -> anyhow::Result<()> {
    let runs = args.runs.max(1);
    let phases = Phases::new(printer, 2 + runs);
    let phase = phases.start("build the core image");
    let image = place.scratch.join("core.img");
    let build = Cmd::new(place.target.join("kldload"))
        .args(["build", "--quiet", "--distro", "debian", "--profile", "core", "--size", "4G", "--output"])
        .arg(&image);
    inherit(build).run().context("cannot build the core image")?;
    let tar = place.scratch.join("tree.tar");
    Cmd::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--acls", "-cf"])
        .arg(&tar)
        .arg("-C")
        .arg(&place.tree)
        .arg(".")
        .run()?;
    phase.finish();

    let phase = phases.start("boot it");
    let empty = place.scratch.join("empty.img");
    File::create(&empty)?.set_len(place.pool_mib << 20)?;
    let guest = start(&image, &tar, &empty)?;
    guest.wait_control(LIMIT, |step| phase.message(step))?;
    // Until then the processors are the boot's.
    guest.wait_system(LIMIT, |step| phase.message(step))?;
    phase.finish();

    let mut times = Vec::new();
    for run in 0..runs {
        let phase = phases.start(&format!("zpool create and tar, run {} of {runs}", run + 1));
        // The tar in the guest's page cache.
        guest.run_for("cat /dev/vdb > /dev/null", LIMIT)?;
        let start = Instant::now();
        let output = guest.run_for(MAKE_POOL, LIMIT)?;
        times.push(start.elapsed().as_secs_f64());
        if !output.is_ok() {
            bail!("the pool could not be made in the machine: {}", output.error_text());
        }
        phase.finish();
    }
    let mut table = Markdown::new(&["in a machine", "seconds"]);
    table.row([
        format!("`zpool create -O compression=lz4`, `tar -x`, `zpool export`; {}", guest.accel()),
        seconds(median(times)),
    ]);
    guest.cut_power();
    printer.data(&format!("\n{table}"))?;
    fs::remove_file(&image)?;
    Ok(())
}

/// Disks: the image, the tar, the one for the pool. Flushes are ignored, as they are for the other writers.
fn start(image: &Path, tar: &Path, empty: &Path) -> anyhow::Result<Guest> {
    let vm = Vm::new()
        .memory_mib(4096)
        .disk(Disk::new(image, DiskFormat::Raw).overlay().volatile())
        .disk(Disk::new(tar, DiskFormat::Raw).overlay().volatile())
        .disk(Disk::new(empty, DiskFormat::Raw).volatile())
        .nic(Nic::isolated(Mac::numbered(1)));
    vm.start().context("cannot start the machine")
}
