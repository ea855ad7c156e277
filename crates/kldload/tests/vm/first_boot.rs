//! What happens once, and what must survive being interrupted.

use std::path::Path;
use std::time::Duration;

use kld_host::Cmd;
use kld_vm::{Disk, DiskFormat};

use crate::apply::{RICH, STATE, assert_same, begin, give, make_package, rich_manifest};
use crate::fixture::{
    BOOT, boot_until_well, copy_of, key_pair, machine_on, scratch, wait_until_well, webapp_image,
};
use crate::turn::Turn;

#[test]
fn a_reboot_keeps_everything() {
    let _turn = Turn::take();
    let disk = copy_of(webapp_image(), "reboot.qcow2");
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
    // In the middle of a change, with a package that came along: it is undone before services start.
    make_package(&guest);
    give(&guest, RICH, &rich_manifest());
    let before = guest.run_ok(STATE).expect("readable");
    begin(&guest, 9);
    guest.cut_power();
    let guest = boot_until_well(&machine_on(&disk));
    assert_same(&before, &guest.run_ok(STATE).expect("readable"));
    let history = guest.run_ok("kldload history").expect("it answers");
    assert!(history.contains("undone") && history.contains("interrupted"), "{history}");
    let notes = guest.run_ok("curl -fsS http://10.8.0.1:8000/notes").expect("the application answers");
    assert!(notes.contains("remember") && notes.contains("before the cut"), "{notes}");
    let arguments = guest.run_ok("cat /proc/cmdline").expect("readable");
    assert!(!arguments.contains("zfsforce") && arguments.contains("spl.spl_hostid="), "{arguments}");
}

#[test]
fn the_power_may_fail_at_any_moment_of_the_first_boot() {
    let _turn = Turn::take();
    // While identities are made; `long/crashes.rs` has more moments.
    the_power_fails(&[0, 4000]);
}

/// Cuts the power this many milliseconds after the first word of the unit that makes identities, one time after the other;
/// the next start must end well.
pub(crate) fn the_power_fails(moments: &[u64]) {
    let disk = copy_of(webapp_image(), "cuts.qcow2");
    for later in moments {
        let guest = machine_on(&disk).start().expect("QEMU starts");
        let waited = std::time::Instant::now();
        while !guest.console().contains("kldload[") && waited.elapsed() < BOOT {
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_millis(*later));
        guest.cut_power();
    }
    let guest = boot_until_well(&machine_on(&disk));
    let hostid = guest.run_ok("hostid").expect("there is one");
    let entry = guest.run_ok("cat /efi/loader/entries/debian.conf").expect("there is an entry");
    assert!(entry.contains(&format!("spl.spl_hostid=0x{hostid}")), "{hostid} {entry}");
    assert!(!entry.contains("zfsforce"), "{entry}");

    // What a cut can leave of a file on FAT once it was checked: nothing. The loader takes the stand-in.
    guest
        .run_ok("cd /efi/loader/entries && cp debian.conf debian.stand-in.conf && : > debian.conf && sync")
        .expect("an entry is broken");
    guest.cut_power();
    let guest = machine_on(&disk).start().expect("QEMU starts");
    guest.wait_control(BOOT, |_| ()).expect("it boots by the stand-in");
    let script = "until systemctl is-active -q kldload-identity; do sleep 1; done; ls /efi/loader/entries; cat /efi/loader/entries/debian.conf";
    let mended = guest.run_for(script, BOOT).expect("it answers").text();
    assert_eq!(mended, format!("debian.conf\n{entry}"));
}

/// A file system labelled `CIDATA`, as cloud-init's NoCloud describes it.
fn seed_volume(user_data: &str) -> std::path::PathBuf {
    let seed = scratch().join("seed.img");
    let _ = std::fs::remove_file(&seed);
    Cmd::new("mkfs.fat")
        .args(["-C", "-n", "CIDATA"])
        .arg(&seed)
        .arg("1024")
        .run()
        .expect("dosfstools is installed");
    for (name, text) in
        [("user-data", user_data), ("meta-data", "instance-id: test\nlocal-hostname: web-7\n")]
    {
        let file = scratch().join(name);
        std::fs::write(&file, text).expect("written");
        Cmd::new("mcopy").arg("-i").arg(&seed).arg(&file).arg("::/").run().expect("mtools is installed");
    }
    seed
}

/// Adds an argument to the command line of an image's boot entry, as a person at the boot menu would.
fn add_kernel_argument(image: &Path, argument: &str) {
    // The first partition starts at 1 MiB.
    let esp = format!("{}@@1M", image.display());
    let entry = scratch().join("debian.conf");
    let copy = |from: &str, to: &str| {
        Cmd::new("mcopy").args(["-o", "-i", &esp, from, to]).run().expect("mtools is installed")
    };
    let file = entry.display().to_string();
    copy("::/loader/entries/debian.conf", &file);
    let text = std::fs::read_to_string(&entry).expect("copied");
    let text = text
        .replace("options ", &format!("options {argument} "))
        .replace("options\t", &format!("options {argument} "));
    assert!(text.contains(argument), "{text}");
    std::fs::write(&entry, text).expect("written");
    copy(&file, "::/loader/entries/debian.conf");
}

#[test]
fn an_operator_comes_in_by_a_volume_or_a_kernel_argument_and_the_pool_takes_the_whole_disk() {
    let _turn = Turn::take();
    let (_, volume_key) = key_pair();
    let argument_key = public_of(&Cmd::new("wg").arg("genkey").stdout_string().expect("wg is installed"));

    // A kernel argument, on a disk that is larger than the image.
    let image = scratch().join("argument.img");
    Cmd::new("cp")
        .arg("--reflink=auto")
        .arg("--sparse=always")
        .arg(webapp_image())
        .arg(&image)
        .run()
        .expect("copied");
    add_kernel_argument(&image, &format!("kldload.operator=wg0,{argument_key},10.8.0.66/32"));
    let disk = copy_of(&image, "argument.qcow2");
    Cmd::new("qemu-img").arg("resize").arg("-q").arg(&disk).arg("20G").run().expect("the disk grows");
    let guest = boot_until_well(&machine_on(&disk));
    let peers = || guest.run_ok("wg show wg0 allowed-ips").expect("the plane is up");
    assert!(peers().contains(&argument_key) && peers().contains("10.8.0.66/32"), "{}", peers());
    let size: u64 =
        guest.run_ok("zpool list -Hpo size rpool").expect("the pool is there").parse().expect("bytes");
    assert!(size > 18 << 30, "{size}");
    let faults = guest.run_ok("sfdisk --verify /dev/vda 2>&1").expect("the partition table is whole");
    assert!(faults.contains("No errors detected"), "{faults}");

    // A volume instead, given later: it replaces whom the argument let in, and is kept when it is gone.
    guest
        .run_ok("sed -i 's/kldload.operator=[^ ]*//' /efi/loader/entries/debian.conf && sync")
        .expect("removed");
    guest.shutdown(BOOT).expect("it ends");
    let seed = seed_volume(&format!(
        "#cloud-config\nkldload:\n  operator:\n    - name: laptop\n      plane: wg0\n      public_key: {volume_key}\n      allowed_ips: 10.8.0.77/32\n"
    ));
    let peers_of = |guest: &kld_vm::Guest| {
        guest.wait_control(BOOT, |_| ()).expect("it boots");
        let script =
            "until systemctl is-active -q kldload-mesh; do sleep 1; done; wg show wg0 allowed-ips; hostname";
        guest.run_for(script, BOOT).expect("the plane is up").text()
    };
    let guest =
        machine_on(&disk).disk(Disk::new(&seed, DiskFormat::Raw).volatile()).start().expect("QEMU starts");
    let said = peers_of(&guest);
    assert!(said.contains(volume_key) && said.contains("10.8.0.77/32"), "{said}");
    assert!(!said.contains(&argument_key) && said.contains("web-7"), "{said}");
    guest.shutdown(BOOT).expect("it ends");
    let guest = machine_on(&disk).start().expect("QEMU starts");
    assert_eq!(peers_of(&guest), said, "kept without the volume");
}

fn public_of(private: &str) -> String {
    let public = Cmd::new("wg").arg("pubkey").stdin_bytes(private.as_bytes()).stdout_string();
    public.expect("wg works").trim().to_owned()
}
