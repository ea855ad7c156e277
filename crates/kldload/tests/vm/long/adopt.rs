//! A directory becomes a dataset, on a machine that runs.

use kld_vm::Guest;

use crate::apply::{assert_same, give};
use crate::fixture::{BOOT, webapp};

/// A directory with one of everything, and a service that writes into it through a sandbox.
const PREPARE: &str = r#"
    set -e
    mkdir -p /srv/app/below /srv/app/empty
    cd /srv/app
    head -c 300000 /dev/urandom > data
    printf odd > "$(printf 'odd \\ name\nof ü')"
    ln data below/hard
    ln -s ../nowhere below/link
    truncate -s 64M sparse; echo end >> sparse
    echo program > below/program; chmod 4750 below/program
    mkfifo -m 600 pipe
    mknod null c 1 3
    python3 - <<'END'
import os, struct
os.setxattr("data", "user.note", b"seen")
acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, perm, who) for tag, perm, who in
    [(1, 6, 2**32 - 1), (2, 4, 1000), (4, 4, 2**32 - 1), (16, 4, 2**32 - 1), (32, 0, 2**32 - 1)])
os.setxattr("below", "system.posix_acl_default", acl)
os.setxattr("data", "system.posix_acl_access", acl)
os.setxattr("below/program", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))
END
    chown -h 1234:1235 below/link data
    touch -h -d '2001-02-03 04:05:06.789' below/link below empty .
    cat > /etc/systemd/system/the-writer.service <<'END'
[Service]
ProtectSystem=strict
ReadWritePaths=/srv/app
ExecStart=/bin/sh -c 'while :; do date > /srv/app/below/log; sleep 1; done'
END
    systemctl daemon-reload
"#;

/// Everything there is about a tree but for the writer's file, told by a program that shares nothing with ours.
const TREE: &str = r#"python3 - /srv/app <<'END'
import hashlib, os, stat, sys
root = sys.argv[1].encode()
first = {}
for at, folders, files in sorted(os.walk(root)):
    for name in [b"."] * (at == root) + sorted(folders + files):
        path = os.path.join(at, name)
        s = os.lstat(path)
        if path.endswith(b"/below/log"): continue
        said = [os.path.relpath(path, root), oct(s.st_mode), s.st_uid, s.st_gid, s.st_rdev]
        if not path.endswith(b"/below"): said.append(s.st_mtime_ns)
        said += [(n, os.getxattr(path, n, follow_symlinks=False)) for n in sorted(os.listxattr(path, follow_symlinks=False))]
        if stat.S_ISREG(s.st_mode):
            said += [s.st_size, s.st_nlink, first.setdefault(s.st_ino, path), hashlib.sha256(open(path, "rb").read()).hexdigest()]
        if stat.S_ISLNK(s.st_mode): said.append(os.readlink(path))
        print(*said)
END"#;

fn kldload(guest: &Guest, words: &str) -> (i32, String) {
    let output = guest.run_for(&format!("cd /; kldload {words} 2>&1"), BOOT).expect("it answers");
    (output.status, output.text())
}

fn tree(guest: &Guest) -> String {
    guest.run_ok(TREE).expect("readable")
}

fn source(guest: &Guest) -> String {
    guest.run_ok("findmnt -no SOURCE -T /srv/app").expect("it is somewhere").trim().to_owned()
}

/// Makes the directory; gives what is in it.
pub(crate) fn prepare(guest: &Guest) -> String {
    let made = guest.run_for(PREPARE, BOOT).expect("it answers");
    assert!(made.is_ok(), "{}", made.error_text());
    tree(guest)
}

#[test]
fn a_directory_is_adopted_confirmed_and_brought_back() {
    let guest = webapp();
    // A pool that takes no writes keeps nothing from its end.
    guest
        .run_ok("set -e; truncate -s 200M /root/backup.img; zpool create backup /root/backup.img; zpool export backup; zpool import -o readonly=on -d /root/backup.img backup")
        .expect("imported");
    let before = prepare(&guest);
    let root = source(&guest);
    // The moment at which the two change places; `long/crashes.rs` has all.
    a_kill_leaves_one_or_the_other(&guest, &before, &["swapping"]);
    assert_eq!(source(&guest), root);

    // A service that sees it through a sandbox of its own is in the way, and is named.
    guest.run_ok("systemctl start the-writer; sleep 2; test -s /srv/app/below/log").expect("it writes");
    let (status, said) = kldload(&guest, "adopt --yes /srv/app");
    assert!(
        status == 1 && said.contains("of the-writer.service") && said.contains("systemctl stop"),
        "{said}"
    );
    assert_same(&before, &tree(&guest));
    whoever_tells_it_to_stop_has_everything_as_it_was(&guest);
    assert_same(&before, &tree(&guest));
    users_without_a_process_are_named(&guest);

    // The manifest's dataset would hide files; adopting is the way.
    give(
        &guest,
        "/root/app",
        &[(
            "  rpool/srv/webapp-db:",
            "  rpool/srv/app:  recordsize=16k  compression=zstd\n  rpool/srv/webapp-db:",
        )],
    );
    let (status, said) = kldload(&guest, "plan /root/app/appliance.manifest");
    assert!(status == 1 && said.contains("`kldload adopt /srv/app --manifest FILE`"), "{said}");
    let (status, said) =
        kldload(&guest, "adopt --yes --stop-services --manifest /root/app/appliance.manifest /srv/app");
    assert_eq!(status, 0, "{said}");
    assert_eq!(source(&guest), "rpool/srv/app", "{said}");
    assert_same(&before, &tree(&guest));
    let (status, said) = kldload(&guest, "plan /root/app/appliance.manifest");
    assert!(matches!(status, 0 | 3) && !said.contains("dataset  rpool/srv/app "), "{said}");
    // The service writes into the dataset, which the next start will mount.
    let state = guest.run_ok("systemctl is-active the-writer; sleep 2; find /srv/app/below/log -newermt '-2 seconds' | wc -l; \
         zfs get -H -o value,source mountpoint,canmount,recordsize rpool/srv/app; \
         grep -c '^rpool/srv/app\t/srv/app\ton\t' /etc/zfs/zfs-list.cache/rpool; systemctl show -P FragmentPath srv-app.mount; \
         du -k /srv/app/sparse | cut -f1");
    let state = state.expect("it answers");
    let lines: Vec<&str> = state.lines().collect();
    assert_eq!(lines[..5], ["active", "1", "/srv/app\tlocal", "on\tlocal", "16K\tlocal"], "{state}");
    assert_eq!(lines[5..7], ["1", "/run/systemd/generator/srv-app.mount"], "{state}");
    assert!(lines[7].parse::<u32>().expect("a number") < 1000, "sparse files stay sparse: {state}");

    // Back: the directory as it was, and what was written since is kept.
    let (status, said) = kldload(&guest, "adopt --yes --undo /srv/app");
    assert!(status == 1 && said.contains("the-writer.service"), "{said}");
    guest.run_ok("echo precious > /srv/app/new; systemctl stop the-writer").expect("written");
    let (status, said) = kldload(&guest, "adopt --yes --undo /srv/app");
    assert!(status == 0 && said.contains("new") && said.contains("rpool/srv/app.undone-adopt-"), "{said}");
    assert_same(&before, &tree(&guest));
    assert_eq!(source(&guest), root);
    let kept = guest.run_ok(
        "set -e; kept=$(zfs list -H -o name | grep undone-adopt | tail -1); mkdir /run/kept; mount -t zfs $kept /run/kept; cat /run/kept/new; umount /run/kept",
    );
    assert_eq!(kept.expect("it is kept").trim(), "precious");
    let left = guest.run_ok("ls -A /srv | grep '[.]app'; true").expect("listed");
    assert_eq!(left.trim(), "", "nothing is left beside it");

    guest.run_ok("cp -a /srv/app /srv/app2").expect("another one");
    the_documentation_says_what_works(&guest);
    assert_same(&before, &tree(&guest));
    assert_eq!(source(&guest), "rpool/srv/app");
    assert_eq!(
        guest.run_ok("ls -A /srv | grep -c '[.]app'; true").expect("listed").trim(),
        "0",
        "confirmed means gone"
    );
    let refused = ["/etc", "/srv/app", "/srv/webapp/nothing", "/usr/share", "/srv/app/data"];
    for path in refused {
        let (status, said) = kldload(&guest, &format!("adopt --yes {path}"));
        assert!(status == 1 && said.contains("cannot adopt") && said.contains("hint:"), "{path}: {said}");
    }
}

/// Killed at several points of an adoption: nothing is lost, and recovery ends it.
pub(crate) fn a_kill_leaves_one_or_the_other(guest: &Guest, before: &str, events: &[&str]) {
    let journal = "$(ls -d /var/lib/kldload/adoptions/* 2>/dev/null | tail -1)/journal";
    for (number, event) in (1..).zip(events) {
        let folder = format!("/var/lib/kldload/adoptions/{number:06}");
        let script = format!(
            "systemd-run --quiet --unit=the-adopt-{number} kldload adopt --yes /srv/app; \
             for i in $(seq 3000); do test -d {folder} && grep -qs '\"{event}\"' {journal} && break; sleep 0.02; done; \
             systemctl kill --signal=KILL the-adopt-{number}; sleep 0.5; kldload recover 2>&1; cat {journal}"
        );
        let said = guest.run_for(&script, BOOT).expect("it answers");
        assert!(said.is_ok() && said.text().contains(&format!("\"{event}\"")), "{event}: {}", said.text());
        assert_same(before, &tree(guest));
        let (_, list) = kldload(guest, "adopt --list");
        let last = list.lines().last().unwrap_or_default().to_owned();
        if last.contains("unconfirmed") {
            assert_eq!(source(guest), "rpool/srv/app", "{event}: {list}");
            let (status, said) = kldload(guest, "adopt --yes --undo /srv/app");
            assert_eq!(status, 0, "{event}: {said}");
        } else {
            assert!(last.contains("taken back"), "{event}: {list}");
        }
        assert_same(before, &tree(guest));
        let left = guest.run_ok("zfs list -H -o name | grep -c srv/app; ls -A /srv | grep -c '[.]app'; true");
        assert_eq!(left.expect("listed").split_whitespace().collect::<Vec<_>>(), ["0", "0"], "{event}");
    }
}

/// Told to stop while it copies: the directory is as it was, and its service runs. A terminal that goes away stops nothing.
fn whoever_tells_it_to_stop_has_everything_as_it_was(guest: &Guest) {
    guest.run_ok("head -c 200M /dev/urandom > /srv/app/large; sync").expect("written");
    let before = tree(guest);
    // Slow enough to be told in the middle.
    let script = "systemd-run --quiet --unit=the-stop --property=CPUQuota=10% kldload adopt --yes --stop-services /srv/app; \
        for i in $(seq 3000); do grep -qs ' /run/kldload/adopt-' /proc/mounts && break; sleep 0.02; done; \
        systemctl is-active the-writer; \
        systemctl kill --kill-whom=main --signal=HUP the-stop; sleep 0.1; systemctl is-active the-stop; \
        systemctl kill --kill-whom=main --signal=TERM the-stop; \
        for i in $(seq 1200); do systemctl is-active --quiet the-stop || break; sleep 0.1; done; \
        systemctl is-active the-writer; journalctl -u the-stop -o cat --no-pager; systemctl reset-failed the-stop";
    let said = guest.run_for(script, BOOT).expect("it answers").text();
    assert!(said.starts_with("inactive\nactive\nactive\n"), "{said}");
    assert!(said.contains("told to stop, and `/srv/app` is as it was"), "{said}");
    assert_same(&before, &tree(guest));
    guest.run_ok("rm /srv/app/large; touch -d '2001-02-03 04:05:06.789' /srv/app").expect("as before");
}

/// Overlays and exports are users, and so is whoever could put a link in the place of a directory.
fn users_without_a_process_are_named(guest: &Guest) {
    let refused = |words: &str, part: &str| {
        let (status, said) = kldload(guest, &format!("adopt --yes {words}"));
        assert!(status == 1 && said.contains(part), "{words}: {said}");
    };
    guest
        .run_ok(
            "mkdir /run/merged && mount -t overlay -o lowerdir=/srv/app/below:/usr/share/doc o /run/merged",
        )
        .expect("mounted");
    refused("--stop-services /srv/app", "kernel has /srv/app/below in the overlay on /run/merged");
    guest
        .run_ok("umount /run/merged; mkdir -p /var/lib/nfs; echo '/srv/app *(rw,sync)' > /var/lib/nfs/etab")
        .expect("exported");
    refused("--stop-services /srv/app", "kernel exports /srv/app over NFS");
    guest
        .run_ok("rm -r /var/lib/nfs; mkdir -p /home/ada/photos; touch /home/ada/photos/a; chown -R 1234 /home/ada")
        .expect("hers");
    refused("--dataset rpool/srv/photos /home/ada/photos", "`/home/ada` does not belong to root");
    let hers =
        "SUDO_UID=1234 kldload adopt --dry-run --dataset rpool/srv/photos /home/ada/photos; test $? = 3";
    guest.run_ok(hers).expect("it is hers");
}

/// Every command of docs/datasets.md that adopts, in order.
fn the_documentation_says_what_works(guest: &Guest) {
    let text = include_str!("../../../../../docs/datasets.md");
    let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("$ kldload adopt ")).collect();
    assert!(commands.len() > 6, "{commands:?}");
    for words in commands {
        let (status, said) = kldload(guest, &format!("adopt {words}"));
        assert!(matches!(status, 0 | 3), "{words}: {said}");
    }
}
