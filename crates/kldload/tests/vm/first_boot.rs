//! What happens once, and what must survive being interrupted.

use std::time::Duration;

use kld_host::Cmd;
use kld_vm::{Disk, DiskFormat, Mac, Nic, Vm};

use crate::fixture::{BOOT, boot_until_well, scratch, wait_until_well, webapp_image};

/// A writable copy that outlives one start of the machine.
fn copy_of_image(name: &str) -> std::path::PathBuf {
    let copy = scratch().join(name);
    let _ = std::fs::remove_file(&copy);
    Cmd::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(webapp_image())
        .arg(&copy)
        .run()
        .expect("qemu-img makes an overlay");
    copy
}

fn machine_on(disk: &std::path::Path) -> Vm {
    Vm::new()
        .memory_mib(1536)
        .disk(Disk::new(disk, DiskFormat::Qcow2).volatile())
        .nic(Nic::isolated(Mac::numbered(1)))
}

#[test]
fn a_reboot_keeps_everything() {
    let disk = copy_of_image("reboot.qcow2");
    let guest = boot_until_well(&machine_on(&disk));
    let state = "cat /etc/machine-id /etc/kldload/wireguard/*.pub /etc/ssh/*.pub; hostid; zpool get -H -o value guid rpool; \
                 curl -fsS http://10.8.0.1:8000/notes";
    guest.run_ok("curl -fsS -d text=remember http://10.8.0.1:8000/notes").expect("a note is written");
    let before = guest.run_ok(state).expect("the state is readable");
    guest.reboot(BOOT, |_| ()).expect("it reboots");
    wait_until_well(&guest);
    assert_eq!(guest.run_ok(state).expect("the state is readable"), before);
    assert!(before.contains("remember"), "{before}");

    // A power cut: the pool was never exported, and comes back without force.
    guest
        .run_ok("curl -fsS -d text=before+the+cut http://10.8.0.1:8000/notes; sync")
        .expect("a note is written");
    guest.cut_power();
    let guest = boot_until_well(&machine_on(&disk));
    let notes = guest.run_ok("curl -fsS http://10.8.0.1:8000/notes").expect("the application answers");
    assert!(notes.contains("remember") && notes.contains("before the cut"), "{notes}");
    let arguments = guest.run_ok("cat /proc/cmdline").expect("readable");
    assert!(!arguments.contains("zfs_force") && arguments.contains("spl.spl_hostid="), "{arguments}");
}

#[test]
fn the_power_may_fail_at_any_moment_of_the_first_boot() {
    let disk = copy_of_image("cuts.qcow2");
    // From the kernel's first seconds to the services: wherever this machine happens to be.
    for seconds in [20, 35, 50, 65] {
        let guest = machine_on(&disk).start().expect("QEMU starts");
        std::thread::sleep(Duration::from_secs(seconds));
        guest.cut_power();
    }
    let guest = boot_until_well(&machine_on(&disk));
    let hostid = guest.run_ok("hostid").expect("there is one");
    let arguments = guest.run_ok("cat /efi/loader/entries/debian.conf").expect("there is an entry");
    assert!(arguments.contains(&format!("spl.spl_hostid=0x{}", hostid.trim())), "{hostid} {arguments}");
}

#[test]
fn the_pool_grows_to_a_larger_disk() {
    let disk = copy_of_image("grow.qcow2");
    Cmd::new("qemu-img").arg("resize").arg("-q").arg(&disk).arg("20G").run().expect("the disk grows");
    let guest = boot_until_well(&machine_on(&disk));
    let size: u64 =
        guest.run_ok("zpool list -Hpo size rpool").expect("the pool is there").trim().parse().expect("bytes");
    assert!(size > 18 << 30, "{size}");
    let table = guest.run_ok("sfdisk --verify /dev/vda 2>&1 || true; zpool status rpool").expect("readable");
    assert!(table.contains("No known data errors"), "{table}");
}

#[test]
fn an_operator_comes_in_by_a_nocloud_volume_or_the_kernel_command_line() {
    let (_, key) = crate::fixture::key_pair();
    let seed = scratch().join("seed.img");
    let _ = std::fs::remove_file(&seed);
    Cmd::new("mkfs.fat")
        .args(["-C", "-n", "CIDATA"])
        .arg(&seed)
        .arg("1024")
        .run()
        .expect("dosfstools is installed");
    let user_data = scratch().join("user-data");
    let text = format!(
        "#cloud-config\nkldload:\n  operator:\n    - name: laptop\n      plane: wg0\n      public_key: {key}\n      allowed_ips: 10.8.0.77/32\n"
    );
    std::fs::write(&user_data, text).expect("written");
    let meta_data = scratch().join("meta-data");
    std::fs::write(&meta_data, "instance-id: test\n").expect("written");
    Cmd::new("mcopy")
        .arg("-i")
        .arg(&seed)
        .arg(&user_data)
        .arg(&meta_data)
        .arg("::/")
        .run()
        .expect("mtools is installed");
    let vm = machine_on(&copy_of_image("nocloud.qcow2")).disk(Disk::new(&seed, DiskFormat::Raw).volatile());
    let guest = boot_until_well(&vm);
    let peers = guest.run_ok("wg show wg0 allowed-ips").expect("the plane is up");
    assert!(peers.contains(&key) && peers.contains("10.8.0.77/32"), "{peers}");
    guest.reboot(BOOT, |_| ()).expect("it reboots");
    wait_until_well(&guest);
    assert!(
        guest.run_ok("wg show wg0 allowed-ips").expect("the plane is up").contains(&key),
        "kept over a reboot"
    );
}
