//! What happens once, and what must survive being interrupted.

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
