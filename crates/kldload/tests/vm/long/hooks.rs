//! Commands around a snapshot, whatever ends it, and swaps that are killed at any moment, on the shared machine.

use kld_host::Cmd;
use kld_vm::Guest;

use crate::daily::{ok, refused, run};
use crate::fixture::{fresh, webapp};

#[test]
fn hooks_end_what_they_have_begun_and_a_swap_is_whole_when_killed() {
    let guest = webapp();
    ok(&guest, "systemctl stop sanoid.timer; zfs create rpool/srv/hooked");
    let count = "zfs list -Ht snapshot -o name rpool/srv/hooked | wc -l";
    // The command after runs whatever happens: all is well, the one before fails, there is no such dataset.
    let line = |before: &str, dataset: &str| {
        format!("ksnap --before '{before}' --after 'mkdir /run/after' {dataset} x")
    };
    for (before, dataset, status, made) in [
        ("true", "rpool/srv/hooked", 0, "1"),
        ("false", "rpool/srv/hooked", 1, "1"),
        ("true", "rpool/no", 1, "1"),
    ] {
        let (code, said, error) = run(&guest, &line(before, dataset));
        assert_eq!(code, status, "{before} {dataset}: {said}{error}");
        ok(&guest, "rmdir /run/after");
        assert_eq!(ok(&guest, count), made, "{before} {dataset}");
    }
    let (code, said, error) = run(&guest, "ksnap --after false rpool/srv/hooked y");
    assert!(
        code == 1 && said.contains("@y-") && error.contains("has failed after the snapshot"),
        "{said}{error}"
    );
    // Told to end while the command before runs: no snapshot, and the command after.
    ok(
        &guest,
        "systemd-run --quiet --unit=told ksnap --before 'sleep 4' --after 'mkdir /run/after' rpool/srv/hooked z
         sleep 2; systemctl kill --kill-whom=main --signal=TERM told
         for i in $(seq 60); do systemctl is-active -q told || break; sleep 0.5; done; rmdir /run/after",
    );
    assert_eq!(ok(&guest, count), "2");
    a_frozen_file_system_needs_no_recovery(&guest);
    a_killed_swap_is_one_or_the_other(&guest);
}

/// ext4 on a volume, made outside: the machine has no tool for it.
fn a_frozen_file_system_needs_no_recovery(guest: &Guest) {
    let image = fresh("ext4").join("image");
    let make = Cmd::new("mke2fs").args(["-q", "-t", "ext4"]).arg(&image).arg("8M");
    make.run().expect("mke2fs makes it");
    let packed = Cmd::new("gzip").arg("-9").stdin_file(&image).output().expect("it is packed").stdout;
    guest.write_file("/run/ext4.gz", &packed, 0o600).expect("written");
    // Whether the journal must be replayed: `needs_recovery`, among the incompatible features of the superblock.
    let unclean = "unclean() { python3 -c \"import struct; f = open('/dev/zvol/rpool/srv/$1', 'rb'); f.seek(1024 + 0x60); \
                   print(struct.unpack('<I', f.read(4))[0] >> 2 & 1)\"; }";
    let said = ok(
        guest,
        &format!(
            "{unclean}
             set -e; zfs create -s -V 8M rpool/srv/disk; udevadm settle; gunzip < /run/ext4.gz > /dev/zvol/rpool/srv/disk
             mkdir -p /mnt/disk; mount /dev/zvol/rpool/srv/disk /mnt/disk; echo written > /mnt/disk/file; sync
             ksnap rpool/srv/disk plain > /dev/null
             ksnap --before 'fsfreeze -f /mnt/disk' --after 'fsfreeze -u /mnt/disk' rpool/srv/disk frozen > /dev/null
             echo thawed > /mnt/disk/file; umount /mnt/disk
             for name in plain frozen; do
                 zfs clone $(zfs list -Ht snapshot -o name rpool/srv/disk | grep @$name-) rpool/srv/$name
             done
             udevadm settle; unclean plain; unclean frozen
             mount -o ro /dev/zvol/rpool/srv/frozen /mnt/disk; cat /mnt/disk/file; umount /mnt/disk"
        ),
    );
    assert_eq!(said, "1\n0\nwritten");
}

fn a_killed_swap_is_one_or_the_other(guest: &Guest) {
    ok(
        guest,
        "set -e; kdir --for logs /srv/sw; echo then > /srv/sw/file; ksnap rpool/srv/sw one
         echo now > /srv/sw/file; ksnap rpool/srv/sw two",
    );
    let (mut back, mut on) = (0, 0);
    // Seen from outside: the clone is there; the dataset has given its name away; a moment later.
    for (number, sign) in ["sw.incoming", "sw.before-", "sw.before-"].iter().enumerate() {
        let pause = if number == 2 { "sleep 0.3" } else { "true" };
        ok(
            guest,
            &format!(
                "systemd-run --quiet --unit=swap-{number} ksnap rollback --swap --yes /srv/sw one
                 for i in $(seq 2000); do zfs list -Ho name -r rpool/srv | grep -q '{sign}' && break
                     systemctl is-active -q swap-{number} || break; done; {pause}
                 systemctl kill --signal=KILL swap-{number} 2>/dev/null; sleep 0.5; kldload recover"
            ),
        );
        let state = ok(
            guest,
            "cat /srv/sw/file; findmnt -no SOURCE /srv/sw; zfs list -Ho name -r rpool/srv | grep -c 'sw.incoming'; true",
        );
        let aside = ok(guest, "zfs list -Ho name,canmount -r rpool/srv | grep 'sw.before-' || true");
        let marks =
            ok(guest, "zfs get -Hs local -t filesystem -o name org.kldload:swap; ls /var/lib/kldload/swaps");
        assert_eq!(marks, "", "{number}");
        if aside.is_empty() {
            back += 1;
            assert_eq!(state, "now\nrpool/srv/sw\n0", "{number}");
        } else {
            on += 1;
            assert_eq!(state, "then\nrpool/srv/sw\n0", "{number}");
            assert!(aside.ends_with("\tnoauto"), "{aside}");
            // Back to where it was, by hand, as the page says.
            ok(
                guest,
                "set -e; aside=$(zfs list -Ho name -r rpool/srv | grep 'sw.before-'); mkdir -p /run/kept
                 mount -t zfs -o zfsutil $aside /run/kept; grep -q now /run/kept/file; umount /run/kept
                 zfs promote $aside; zfs destroy -r rpool/srv/sw; zfs rename $aside rpool/srv/sw
                 zfs set canmount=on mountpoint=/srv/sw rpool/srv/sw; zfs mount rpool/srv/sw 2>/dev/null || true
                 grep -q now /srv/sw/file",
            );
        }
    }
    assert!(back + on == 3 && on > 0, "{back} {on}");
    ok(guest, "zfs create rpool/srv/sw/below");
    refused(guest, "ksnap rollback --swap --yes /srv/sw one", "the datasets below it would go aside");
    refused(guest, "ksnap rollback --swap --yes / x", "has no snapshot `x`");
}
