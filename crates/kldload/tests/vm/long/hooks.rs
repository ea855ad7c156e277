//! Commands around a snapshot, whatever ends it, and swaps that are killed at any moment, on the shared machine.

use kld_host::Cmd;
use kld_vm::Guest;

use crate::apply::{give, kldload};
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
    what_services_want_is_done_around_every_snapshot(&guest);
}

/// By `ksnap` and by sanoid; and no snapshot is taken of a database that cannot do its part.
fn what_services_want_is_done_around_every_snapshot(guest: &Guest) {
    let listens = "    listens:      localhost:5432\n";
    let hooks = "    before_snapshot: /usr/sbin/runuser -u postgres -- psql -c CHECKPOINT\n    \
                 after_snapshot: /usr/bin/touch /var/log/postgresql/after\n";
    ok(guest, "systemctl reset-failed");
    give(guest, "/root/hooked", &[(listens, &format!("{listens}{hooks}"))]);
    let (status, said, error) = kldload(guest, "apply --yes /root/hooked/appliance.manifest");
    assert_eq!(status, 0, "{said}\n{error}");
    assert!(!error.contains("zfs-list.cache"), "datasets made by hand are nobody's business: {error}");
    let unit = "kldload-before-snapshot-postgresql@17-main.service";
    let (status, _, error) = run(guest, "ksnap --dry-run rpool/srv/webapp-db asked");
    assert!(status == 3 && error.contains(&format!("before: systemctl start -- {unit}")), "{error}");

    let taken = |by: &str| {
        let list = format!("zfs list -Ht snapshot -o name rpool/srv/webapp-db | grep -c @{by} || true");
        ok(guest, &list).parse::<usize>().expect("a number")
    };
    // Sanoid takes one when it finds none.
    let sanoid =
        "zfs list -Ht snapshot -o name rpool/srv/webapp-db | grep @autosnap_ | xargs -rn1 zfs destroy
                  rm -rf /var/cache/sanoid/*; systemctl start sanoid.service || true";
    let log = format!("journalctl -b -u {unit} | grep -c CHECKPOINT");
    let words = format!("journalctl -b -u {unit} -u postgresql@17-main --no-pager -o cat | tail -20 >&2");
    ok(
        guest,
        &format!("ksnap rpool/srv/webapp-db asked && rm /var/log/postgresql/after || {{ {words}; exit 1; }}"),
    );
    assert_eq!(taken("asked-"), 1);
    assert_ne!(ok(guest, &log), "0");
    ok(guest, sanoid);
    ok(guest, "rm /var/log/postgresql/after");
    assert!(taken("autosnap_") > 0);

    ok(guest, "systemctl stop postgresql@17-main");
    // systemd starts what comes after by itself, in a moment.
    let after =
        "for i in $(seq 60); do rm /var/log/postgresql/after 2>/dev/null && exit 0; sleep 0.5; done; exit 1";
    refused(
        guest,
        "ksnap rpool/srv/webapp-db asked",
        "the command before the snapshot has failed, and none was made",
    );
    ok(guest, after);
    ok(guest, sanoid);
    ok(guest, after);
    assert_eq!((taken("asked-"), taken("autosnap_")), (1, 0));
    ok(guest, "ksnap --no-hooks rpool/srv/webapp-db asked; test ! -e /var/log/postgresql/after");
    assert_eq!(taken("asked-"), 2);
    ok(guest, "systemctl start postgresql@17-main; systemctl reset-failed");
    let (status, said, error) = kldload(guest, "undo --yes");
    assert_eq!(status, 0, "{said}\n{error}");
    ok(guest, &format!("test ! -e /etc/systemd/system/{unit}"));
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
    // What no start mounts, and somebody had mounted, is there afterwards.
    ok(
        guest,
        "set -e; zfs set canmount=noauto rpool/srv/sw; ksnap rollback --swap --yes /srv/sw one; grep -q then /srv/sw/file
         test \"$(zfs get -Ho value canmount rpool/srv/sw)\" = noauto
         zfs destroy -r $(zfs list -Ho name -r rpool/srv | grep 'sw.before-')",
    );
    ok(guest, "zfs create rpool/srv/sw/below");
    refused(guest, "ksnap rollback --swap --yes /srv/sw one", "the datasets below it would go aside");
    refused(guest, "ksnap rollback --swap --yes / x", "has no snapshot `x`");
}
