//! Boot environments on a real machine: docs/boot-environments.md from its first line to its last, with a stock Debian that
//! knows nothing of kldload but the program.

use std::time::{Duration, Instant};

use kld_host::Cmd;
use kld_vm::{Disk, DiskFormat, Guest};

use crate::fixture::{BOOT, KLDLOAD, core_image, fresh, machine, say};
use crate::transcript::{commands, is_plain};
use crate::turn::Turn;

/// A file system with the program on it.
fn program_volume() -> std::path::PathBuf {
    let image = fresh("kbe").join("program.img");
    Cmd::new("mkfs.fat").arg("-C").arg(&image).arg("131072").run().expect("dosfstools is installed");
    Cmd::new("mcopy").arg("-i").arg(&image).args([KLDLOAD, "::/kldload"]).run().expect("mtools is installed");
    image
}

/// What runs and whether the loader's own tool agrees.
fn running(guest: &Guest) -> String {
    let root = guest.run_ok("findmnt -no SOURCE /").expect("mounted");
    let name = root.trim().strip_prefix("rpool/ROOT/").expect("an environment").to_owned();
    let entries = guest.run_ok("bootctl list --json=short").expect("bootctl answers");
    let entry = entries.split("},{").find(|entry| entry.contains("\"isSelected\":true"));
    assert!(entry.is_some_and(|entry| entry.contains(&format!("{name}.conf"))), "{name}: {entries}");
    name
}

/// The entry that the loader's own tool expects next.
fn next(guest: &Guest) -> String {
    let entries = guest.run_ok("bootctl list --json=short").expect("bootctl answers");
    let entry = entries.split("},{").find(|entry| entry.contains("\"isDefault\":true"));
    let entry = entry.unwrap_or_else(|| panic!("no default in {entries}"));
    let id = entry.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next());
    id.unwrap_or_else(|| panic!("no id in {entry}")).to_owned()
}

fn reboot(guest: &Guest) -> Duration {
    let begun = Instant::now();
    guest.reboot(BOOT, |_| ()).expect("it reboots");
    assert_eq!(guest.wait_system(BOOT, |_| ()).expect("the units settle").trim(), "running");
    begun.elapsed()
}

/// `kbe` with these words: its status, and what it says.
fn kbe(guest: &Guest, words: &str) -> (i32, String, String) {
    let output = guest.run_for(&format!("kbe {words}"), BOOT).expect("it answers");
    (output.status, output.text(), output.error_text())
}

/// A row of `kbe list`.
fn row(guest: &Guest, name: &str) -> Vec<String> {
    let (status, said, error) = kbe(guest, "list");
    assert_eq!(status, 0, "{error}");
    assert!(!error.contains("interrupted"), "{error}");
    let line = said.lines().find(|line| line.split_whitespace().next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {said}"));
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_stock_debian_goes_back_to_what_it_was() {
    let _turn = Turn::take();
    let volume = program_volume();
    let vm = machine(core_image(), 5).disk(Disk::new(&volume, DiskFormat::Raw).volatile());
    let guest = vm.start().expect("QEMU starts");
    guest.wait_control(BOOT, |_| ()).expect("it boots");
    guest.wait_system(BOOT, |_| ()).expect("the units settle");
    let copied = guest.run_for(
        "mount -o ro /dev/vdb /mnt && install -m 755 /mnt/kldload /usr/bin/kldload && umount /mnt && \
         ln -s kldload /usr/bin/kbe && ln -s kldload /usr/bin/kst && sync",
        BOOT,
    );
    assert!(copied.expect("it answers").is_ok());
    let plain = reboot(&guest);
    assert_eq!((running(&guest).as_str(), next(&guest).as_str()), ("debian", "debian.conf"));
    let mut activated = None;
    let (mut making, mut activating) = (Duration::ZERO, Duration::ZERO);

    for (command, said) in commands(include_str!("../../../../../docs/boot-environments.md")) {
        if command == "reboot" {
            let took = reboot(&guest);
            let before = activated.take();
            match before.as_deref() {
                Some("activate before-upgrade") => {
                    say(format_args!(
                        "kbe create {:.1} s, activate + reboot {:.1} + {:.1} s, a plain reboot {:.1} s",
                        making.as_secs_f64(),
                        activating.as_secs_f64(),
                        took.as_secs_f64(),
                        plain.as_secs_f64()
                    ));
                    assert_eq!(running(&guest), "before-upgrade");
                    assert_eq!(next(&guest), "before-upgrade.conf");
                    guest.run_ok("! test -e /etc/after-the-environment").expect("it is as it was");
                    assert_eq!(row(&guest, "before-upgrade")[1], "NR");
                }
                Some(_) => {
                    assert_eq!(running(&guest), "before-upgrade");
                    assert_eq!(next(&guest), "debian.conf");
                    assert_eq!(row(&guest, "before-upgrade")[1], "N");
                    assert_eq!(row(&guest, "debian")[1], "R");
                    guest.run_ok("! test -e /etc/after-the-environment").expect("it is as it was");
                }
                None => {
                    assert_eq!((running(&guest).as_str(), next(&guest).as_str()), ("debian", "debian.conf"));
                    guest.run_ok("test -e /etc/after-the-environment").expect("nothing is lost");
                }
            }
            continue;
        }
        let begun = Instant::now();
        let output = guest.run_for(&command, BOOT).expect("it answers");
        let (text, error) = (output.text(), output.error_text());
        let wanted = said.iter().find(|line| line.starts_with("error: "));
        match wanted {
            Some(wanted) => {
                assert!(output.status != 0 && error.contains(wanted), "{command}: {text}\n{error}");
                assert!(error.contains("hint: "), "{command}: {error}");
            }
            None => {
                let expected = if command.contains("--dry-run") { 3 } else { 0 };
                assert_eq!(output.status, expected, "{command}: {text}\n{error}");
            }
        }
        for line in said.iter().filter(|line| is_plain(line)) {
            assert!(text.contains(line.trim()) || error.contains(line.trim()), "{line}: {text}\n{error}");
        }
        match command.as_str() {
            "kbe create before-upgrade" => {
                making = begun.elapsed();
                guest.run_ok("touch /etc/after-the-environment").expect("written");
                the_new_one_is_what_it_should_be(&guest);
            }
            "kbe activate --once before-upgrade" => {
                assert_eq!(next(&guest), "before-upgrade.conf");
                assert_eq!(row(&guest, "before-upgrade")[1], "T");
                assert_eq!(row(&guest, "debian")[1], "NR");
                let (status, _, error) = kbe(&guest, "destroy --yes before-upgrade");
                assert_eq!(status, 1);
                assert!(error.contains("starts next, once"), "{error}");
                activated = Some("activate --once before-upgrade".to_owned());
            }
            "kbe activate before-upgrade" => {
                activating = begun.elapsed();
                assert_eq!(next(&guest), "before-upgrade.conf");
                activated = Some("activate before-upgrade".to_owned());
            }
            "kbe mount fresh" => {
                guest
                    .run_ok("test -e /run/kbe/fresh/usr/bin/zfs && ! test -e /run/kbe/fresh/usr/bin/kbe")
                    .expect("as installed");
            }
            _ => {}
        }
    }
    nothing_is_left_but_what_runs(&guest);
    interrupted_commands_are_named_and_cleared(&guest);
    another_machines_boot_partition_is_left_alone(&guest);
    a_second_boot_partition_gets_what_it_lacks(&guest);
    assert!(reboot(&guest) > Duration::ZERO);
    assert_eq!(running(&guest), "before-upgrade");
}

fn the_new_one_is_what_it_should_be(guest: &Guest) {
    let own = guest
        .run_ok("zfs get -H -o property,value,source canmount,mountpoint,compression rpool/ROOT/before-upgrade | tr '\\t' ' '")
        .expect("it is there");
    assert!(own.contains("canmount noauto local") && own.contains("mountpoint / local"), "{own}");
    // The same kernel is there once.
    let kernels = guest
        .run_ok("ls /efi/EFI/kldload | wc -l; grep -h ^linux /efi/loader/entries/*.conf | sort -u | wc -l");
    assert_eq!(kernels.expect("readable").split_whitespace().collect::<Vec<_>>(), ["2", "1"]);
    let entry = guest.run_ok("cat /efi/loader/entries/before-upgrade.conf").expect("it is there");
    assert!(entry.contains("root=ZFS=rpool/ROOT/before-upgrade"), "{entry}");
    assert!(entry.contains("title Debian GNU/Linux 13 (trixie), before-upgrade"), "{entry}");
    for (words, part) in [
        ("destroy --yes debian", "it is running"),
        ("rename debian other", "it is running"),
        ("create Debian", "there is a boot environment `debian` already"),
        ("activate nosuch", "there are: debian, before-upgrade"),
        ("create x --from @nosuch", "there is no snapshot"),
    ] {
        let (status, said, error) = kbe(guest, words);
        assert!(status == 1 && error.contains(part) && error.contains("hint: "), "{words}: {said}\n{error}");
    }
    let (status, _, error) = kbe(guest, "create -- -r");
    assert!(status == 2 && error.contains("no name for a boot environment"), "{error}");
    let (status, json, _) = kbe(guest, "list --json");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((status, json["items"].as_array().map(Vec::len)), (0, Some(2)), "{json}");
}

fn nothing_is_left_but_what_runs(guest: &Guest) {
    let left = guest.run_ok("zfs list -H -r -d 1 -t filesystem -o name rpool/ROOT; ls /efi/loader/entries; zfs get -H -o value origin rpool/ROOT/before-upgrade");
    assert_eq!(left.expect("readable"), "rpool/ROOT\nrpool/ROOT/before-upgrade\nbefore-upgrade.conf\n-");
    let taken = guest.run_ok("zfs list -H -r -t snapshot -o name rpool/ROOT").expect("readable");
    assert_eq!(taken, "rpool/ROOT/before-upgrade@install");
}

/// What a kill in the middle leaves, made by hand: named by `list`, cleared by the next command.
fn interrupted_commands_are_named_and_cleared(guest: &Guest) {
    guest
        .run_ok(
            "zfs snapshot -o org.kldload:kbe-for=half rpool/ROOT/before-upgrade@half-1; \
             zfs clone -o org.kldload:kbe-state=making -o canmount=noauto -o mountpoint=/ rpool/ROOT/before-upgrade@half-1 rpool/ROOT/half; \
             mkdir -p /efi/EFI/kldload/0123456789abcdef; head -c 1000 /dev/zero > /efi/EFI/kldload/0123456789abcdef/linux; \
             : > /efi/loader/entries/half.conf; sync",
        )
        .expect("made");
    let (status, said, error) = kbe(guest, "list");
    assert_eq!(status, 0, "{error}");
    assert!(said.contains("half-made") && error.contains("`half` is half-made"), "{said}\n{error}");
    let (status, said, error) = kbe(guest, "create half");
    assert_eq!(status, 0, "{said}\n{error}");
    assert_eq!(row(guest, "half").len(), 12);
    guest.run_ok("! test -e /efi/EFI/kldload/0123456789abcdef").expect("it is cleared");
    // Killed for real, as early and as late as it comes. What it had started goes on without it for a moment.
    for after in ["0.05", "0.4", "1", "2"] {
        let kill = format!(
            "kbe create killed & made=$!; sleep {after}; kill -9 $made; wait $made; \
             while readlink /proc/[0-9]*/exe | grep -qE '/(zfs|mount|mount.zfs)$'; do sleep 0.1; done"
        );
        guest.run_for(&kill, BOOT).expect("it answers");
        let (status, said, error) = kbe(guest, "prune --yes");
        assert_eq!(status, 0, "{said}\n{error}");
        let (_, said, error) = kbe(guest, "list");
        assert!(error.is_empty() && !said.contains("half-"), "{after}: {said}\n{error}");
        kbe(guest, "destroy --yes killed");
    }
}

/// The disk that brought the program has a boot partition of a machine like this, with an entry and a kernel that nothing here needs.
fn another_machines_boot_partition_is_left_alone(guest: &Guest) {
    guest
        .run_ok(
            "mount /dev/vdb /mnt && rm /mnt/kldload && mkdir -p /mnt/loader/entries /mnt/EFI/kldload/0123456789abcdef && \
             cp -r /efi/EFI/systemd /efi/EFI/BOOT /mnt/EFI/ && echo kernel > /mnt/EFI/kldload/0123456789abcdef/linux && \
             printf 'linux /EFI/kldload/0123456789abcdef/linux\noptions root=ZFS=rpool/ROOT/theirs\n' \
             > /mnt/loader/entries/theirs.conf && sync",
        )
        .expect("made");
    let (status, json, error) = kbe(guest, "prune --json");
    let items: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((status, items["items"].as_array().map(Vec::len)), (0, Some(0)), "{json}\n{error}");
    guest
        .run_ok("test -e /mnt/loader/entries/theirs.conf -a -e /mnt/EFI/kldload/0123456789abcdef/linux")
        .expect("it is left alone");
    let (status, said, error) = kbe(guest, "list");
    assert!(status == 0 && error.is_empty(), "{said}\n{error}");
}

/// It is the machine's as soon as `/etc/fstab` names it.
fn a_second_boot_partition_gets_what_it_lacks(guest: &Guest) {
    guest
        .run_ok(
            "umount /mnt && mkdir /efi2 && echo '/dev/vdb /efi2 vfat umask=0077,nofail 0 2' >> /etc/fstab && \
             systemctl daemon-reload && mount /efi2",
        )
        .expect("mounted");
    let (status, said, error) = kbe(guest, "list");
    let lacks = "`/efi2` does not start `before-upgrade`: `kbe prune` mends that";
    assert!(status == 0 && error.contains(lacks), "{said}\n{error}");
    let (status, said, error) = kbe(guest, "prune");
    assert!(status == 0 && error.contains("the boot partitions have what they lacked"), "{said}\n{error}");
    let is_equal = "diff -r /efi/loader/entries /efi2/loader/entries && diff -r /efi/EFI/kldload /efi2/EFI/kldload && \
                    grep -x 'default before-upgrade.conf' /efi2/loader/loader.conf";
    guest.run_ok(is_equal).expect("they are equal");
    let (status, said, error) = kbe(guest, "list");
    assert!(status == 0 && error.is_empty(), "{said}\n{error}");

    // One that cannot be written is named last, and keeps nothing that has no entry there.
    guest
        .run_ok(
            "kbe create doomed && kbe create kept && rm /efi2/loader/entries/half.conf /efi2/loader/entries/doomed.conf \
             /efi2/loader/entries/kept.conf && sync && mount -o remount,ro /efi2",
        )
        .expect("read-only");
    let (status, said, error) = kbe(guest, "prune --keep 2 --yes");
    let gone = error.find("2 environments are gone");
    assert!(status == 1 && gone.is_some() && gone < error.find("/efi2/loader/entries"), "{said}\n{error}");
    guest.run_ok("! zfs list rpool/ROOT/half && ! zfs list rpool/ROOT/doomed").expect("they are gone");
    guest.run_ok("mount -o remount,rw /efi2").expect("it can be written");
    let (status, said, error) = kbe(guest, "prune");
    assert_eq!(status, 0, "{said}\n{error}");
    guest.run_ok(is_equal).expect("they are equal");
    guest
        .run_ok("umount /efi2 && rmdir /efi2 && sed -i '/efi2/d' /etc/fstab && systemctl daemon-reload")
        .expect("as it was");
}
