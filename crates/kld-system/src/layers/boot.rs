//! Kernel command line, boot partition, pool maintenance, and the units that are left off.

use kld_manifest::model::{Zone, ZoneKind};
use kld_manifest::names::PoolName;

use crate::distro::DistroSpec;
use crate::draft::Draft;
use crate::layers::datasets::boot_dataset;
use crate::system::{Because, Enablement, Item, Layer, SystemFile};

/// Label of the EFI system partition; the builder writes it into the partition table.
pub(crate) const ESP_LABEL: &str = "kldload-esp";
/// Where the EFI system partition is mounted.
pub(crate) const ESP_MOUNT: &str = "/efi";

/// Adds what the machine needs to boot and to keep its pool healthy.
pub(crate) fn add(pool: &PoolName, distro: &DistroSpec, zones: &[&Zone], draft: &mut Draft) {
    let always = |reason: &str| Because::always(Layer::Boot, reason);
    draft.role(&distro.packages.base, &always("what every machine needs to start and to be looked at"));
    draft.role(&distro.packages.boot, &always("initramfs with ZFS, and the boot loader"));
    draft.role(&distro.packages.zfs, &always("the root is ZFS"));
    draft.role(std::slice::from_ref(&distro.kernel_package), &always("the kernel"));

    add_kernel_args(pool, distro, zones, draft);

    let esp = format!(
        "# The boot partition is mounted when somebody looks at it, and a machine boots without it.\n\
         /dev/disk/by-partlabel/{ESP_LABEL} {ESP_MOUNT} vfat umask=0077,nofail,x-systemd.automount,x-systemd.idle-timeout=1min 0 2\n"
    );
    draft.file(SystemFile::text("/etc/fstab", esp, always("ZFS mounts everything else")));
    draft.file(SystemFile::directory(ESP_MOUNT, 0o700, always("where the boot partition is mounted")));
    let cacher = "history_event-zfs-list-cacher.sh";
    draft.file(SystemFile::symlink(
        format!("/etc/zfs/zed.d/{cacher}"),
        format!("{}/{cacher}", distro.paths.zedlets),
        always("keeps the mount cache true when datasets change"),
    ));

    let mut enable = |unit: &str, reason: &str| draft.unit(unit, Enablement::Enabled, always(reason));
    enable(&distro.units.zed, "reports faults and keeps the mount cache");
    enable(
        &distro.scrub_timer(pool),
        "reads everything once a month, so that decay is found while it can be repaired",
    );
    if let Some(timer) = distro.trim_timer(pool) {
        enable(&timer, "tells the disk once a month what is free");
    }
    for off in &distro.switched_off {
        draft.unit(&off.unit, Enablement::Disabled, always(&off.reason));
    }
}

fn add_kernel_args(pool: &PoolName, distro: &DistroSpec, zones: &[&Zone], draft: &mut Draft) {
    let mut arg = |value: &str, because| draft.kernel_args.push(Item::new(value.to_owned(), because));
    let always = |reason: &str| Because::always(Layer::Boot, reason);
    arg(&format!("root=ZFS={}", boot_dataset(pool, distro)), always("the boot environment to start"));
    arg("rw", always("ZFS needs no check before writing"));
    arg("quiet", always("what matters is not lost among what works"));
    arg("loglevel=4", always("warnings and worse on the console"));
    arg("console=tty0", always("a screen, when there is one"));
    arg("console=ttyS0,115200", always("a serial line; the last console is the one that systemd writes to"));
    arg("systemd.gpt_auto=no", always("what is mounted is written down, not guessed from partition types"));
    let classic = |z: &&&Zone| z.kind == ZoneKind::Public && z.interface.as_str().starts_with("eth");
    if let Some(zone) = zones.iter().find(classic) {
        let reason =
            format!("the manifest calls the public interface {}, so that is its name", zone.interface.value);
        arg("net.ifnames=0", Because::new(Layer::Boot, zone.interface.span, reason));
    }
}
