//! The plain promise: pick your distribution, get ZFS on root.

use kld_host::Cmd;

use crate::channel;
use crate::fixture::{BOOT, core_image, kldload, machine, scratch};
use crate::turn::Turn;

#[test]
fn a_core_image_is_the_stock_distribution_on_zfs() {
    let _turn = Turn::take();
    let image = core_image();
    let guest = machine(image, 3).credential(channel::credential()).start().expect("QEMU starts");
    guest.wait_control(BOOT, |_| ()).expect("it boots");
    assert_eq!(guest.wait_system(BOOT, |_| ()).expect("the units settle").trim(), "running");
    assert_eq!(
        guest.run_ok("findmnt -no FSTYPE,SOURCE /").expect("mounted").split_whitespace().collect::<Vec<_>>(),
        ["zfs", "rpool/ROOT/debian"]
    );
    let ours = guest
        .run_ok("find / -xdev -name '*kldload*' -not -path '/proc/*' -not -path '/run/*'")
        .expect("searched");
    assert_eq!(ours.trim(), "", "nothing of kldload is in a core image");
    let health = guest.run_ok("zpool status -x rpool; dpkg --verify zfsutils-linux").expect("asked");
    assert_eq!(health.trim(), "pool 'rpool' is healthy");
    channel::obeys(&guest);
    channel::last_words(&guest);
    drop(guest);

    // The same in QEMU's format.
    let qcow2 = scratch().join("core.qcow2");
    kldload([
        "build",
        "--distro",
        "debian-13",
        "--profile",
        "core",
        "--size",
        "4G",
        "--format",
        "qcow2",
        "--output",
        &qcow2.display().to_string(),
    ]);
    let compared =
        Cmd::new("qemu-img").args(["compare", "-q", "-f", "raw", "-F", "qcow2"]).arg(image).arg(&qcow2).run();
    compared.expect("both formats hold the same disk");
}
