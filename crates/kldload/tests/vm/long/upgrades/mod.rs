//! Upgrades on a real machine: docs/upgrades.md from its first line to its last, packages that would ruin a system, and power
//! cuts, with a stock Debian that knows nothing of kldload but the program.

mod ours;
mod repository;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kld_host::Cmd;
use kld_vm::{Disk, DiskFormat, Guest};
use serde_json::json;

use self::repository::{Archive, Content, cpio};
use crate::fixture::{BOOT, KLDLOAD, core_image, fresh, machine, say};
use crate::transcript::{commands, is_plain};
use crate::turn::Turn;

/// How long a system may take to come back after a start that failed: panics wait ten seconds, services a minute.
const BACK: Duration = Duration::from_secs(900);

/// Makes every package, and a file system with them and the program.
fn volume(name: &str) -> std::path::PathBuf {
    let folder = fresh(name);
    let mut archive = Archive::new(&folder.join("archive"));
    let unit = |program: &str| {
        format!(
            "[Unit]\nDescription=Made for a test\n[Service]\nType=oneshot\nExecStart={program}\n[Install]\nWantedBy=multi-user.target\n"
        )
    };
    let (fails, lost) = (unit("/bin/false"), unit("/usr/bin/not-there"));
    let wants = "etc/systemd/system/multi-user.target.wants/app.service";
    let panics = cpio("init", b"#!/bin/sh\nexit 1\n");
    let more = cpio("etc/made-for-a-test", &[b'x'; 4 << 20]);
    // The kernel reads an uncompressed archive behind a compressed one where it begins at a multiple of four.
    let append =
        "to=/boot/initrd.img-$(uname -r); truncate -s %4 $to; cat /usr/share/made-for-a-test/initrd >> $to";
    let mut add = |name: &str, version: &str, content: Content<'_>| {
        archive.add(name, version, &content, (name, version) != ("hello", "1.0"));
    };
    let hello = |version: &'static [u8]| [("usr/bin/hello-test", version)];
    add("hello", "1.0", Content { files: &hello(b"#!/bin/sh\necho 1.0\n"), ..Content::default() });
    add("hello", "2.0", Content { files: &hello(b"#!/bin/sh\necho 2.0\n"), ..Content::default() });
    let app = [("usr/lib/systemd/system/app.service", fails.as_bytes())];
    add(
        "app",
        "1.0",
        Content { files: &app, links: &[(wants, "/usr/lib/systemd/system/app.service")], postinst: "" },
    );
    let app = [("usr/lib/systemd/system/app.service", lost.as_bytes())];
    let links = [(wants, "/usr/lib/systemd/system/app.service")];
    add("bad-program", "1.0", Content { files: &app, links: &links, postinst: "" });
    // Never failed, and never there for long.
    let ends = "[Unit]\nDescription=Made for a test\n[Service]\nType=simple\nExecStart=/usr/bin/sleep 5\nRestart=always\nRestartSec=2\n[Install]\nWantedBy=multi-user.target\n";
    let app = [("usr/lib/systemd/system/app.service", ends.as_bytes())];
    add("ending-app", "1.0", Content { files: &app, links: &links, postinst: "" });
    let kernel: [(&str, &[u8]); 3] = [
        ("boot/vmlinuz-6.99.0-amd64", b"kernel"),
        ("boot/initrd.img-6.99.0-amd64", b"initrd"),
        ("usr/lib/modules/6.99.0-amd64/modules.dep", b""),
    ];
    add("linux-image-6.99.0-amd64", "1.0", Content { files: &kernel, ..Content::default() });
    let own: [(&str, &[u8]); 1] = [("usr/share/made-for-a-test/own", b"as packed\n")];
    add(
        "bad-files",
        "1.0",
        Content {
            files: &own,
            postinst: "echo other > /usr/share/made-for-a-test/own",
            ..Content::default()
        },
    );
    for (name, script) in [
        ("bad-initramfs", "echo none > /boot/initrd.img-$(uname -r)"),
        ("bad-postinst", "echo it cannot >&2; exit 1"),
        ("bad-fstab", "mkdir -p /data; echo 'LABEL=nosuch /data ext4 defaults 0 2' >> /etc/fstab"),
        ("dead-mount", "mkdir -p /data; echo 'tmpfs /data tmpfs size=banana 0 0' >> /etc/fstab"),
    ] {
        add(name, "1.0", Content { postinst: script, ..Content::default() });
    }
    for (name, bytes) in [("panics", &panics), ("large-initramfs", &more)] {
        let files = [("usr/share/made-for-a-test/initrd", bytes.as_slice())];
        add(name, "1.0", Content { files: &files, postinst: append, ..Content::default() });
    }

    let image = folder.join("volume.img");
    Cmd::new("mkfs.fat").arg("-C").arg(&image).arg("163840").run().expect("dosfstools is installed");
    Cmd::new("mcopy")
        .arg("-s")
        .arg("-i")
        .arg(&image)
        .arg(folder.join("archive"))
        .arg("::/")
        .run()
        .expect("mtools");
    Cmd::new("mcopy").arg("-i").arg(&image).args([KLDLOAD, "::/kldload"]).run().expect("mtools is installed");
    image
}

/// A stock Debian with the program, the archive, and an older `hello`.
fn prepared(name: &str, number: u16) -> Guest {
    let volume = volume(name);
    let vm = machine(core_image(), number).disk(Disk::new(&volume, DiskFormat::Raw).volatile());
    let guest = vm.start().expect("QEMU starts");
    guest.wait_control(BOOT, |_| ()).expect("it boots");
    guest.wait_system(BOOT, |_| ()).expect("the units settle");
    let script = "set -e; mount -o ro /dev/vdb /mnt; install -m 755 /mnt/kldload /usr/bin/kldload
        mkdir -p /usr/local/archive; cp /mnt/archive/* /usr/local/archive/; umount /mnt
        for name in kbe kst kpkg kupgrade; do ln -s kldload /usr/bin/$name; done
        rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
        echo 'deb [trusted=yes] file:/usr/local/archive ./' > /etc/apt/sources.list
        dpkg -i /usr/local/archive/hello_1.0_all.deb; kbe good; sync";
    let output = guest.run_for(script, BOOT).expect("it answers");
    assert!(output.is_ok(), "{}{}", output.text(), output.error_text());
    guest
}

/// What runs.
fn running(guest: &Guest) -> Option<String> {
    let output = guest.run_for("findmnt -no SOURCE /", Duration::from_secs(20)).ok()?;
    output.text().trim().strip_prefix("rpool/ROOT/").map(str::to_owned)
}

/// Waits until one of these environments runs, has settled, and has nothing to prove.
fn wait_for<'a>(guest: &Guest, wanted: &[&'a str]) -> &'a str {
    let begun = Instant::now();
    let settled = "systemctl is-system-running; kpkg status --json";
    loop {
        let running = running(guest);
        if let Some(name) = wanted.iter().find(|name| running.as_deref() == Some(**name))
            && let Ok(output) = guest.run_for(settled, Duration::from_secs(60))
        {
            let text = output.text();
            let state = text.lines().next().unwrap_or_default();
            if ["running", "degraded"].contains(&state) && !text.contains("\"state\":\"running\"") {
                return name;
            }
        }
        if begun.elapsed() > BACK {
            let said = guest.run("kpkg status; kbe list; journalctl -b -p info --no-pager | tail -50");
            let said = said.map(|output| output.text()).unwrap_or_default();
            panic!("none of {wanted:?} runs:\n{said}\n{}", guest.console());
        }
        std::thread::sleep(Duration::from_secs(2));
    }
}

/// Restarts, waits until `wanted` runs and has settled, and counts the starts it took.
fn restart(guest: &Guest, wanted: &str) -> usize {
    guest.reboot(BOOT, |_| ()).unwrap_or_else(|error| panic!("{error}\n{}", guest.console()));
    wait_for(guest, &[wanted]);
    let more = || guest.with_qmp(|qmp| qmp.wait_event("RESET", Instant::now())).expect("QEMU answers");
    1 + std::iter::from_fn(more).count()
}

/// A command: its status, and what it says.
fn said(guest: &Guest, command: &str) -> (i32, String, String) {
    let output = guest.run_for(command, BOOT).expect("it answers");
    (output.status, output.text(), output.error_text())
}

/// What differs between files and the package database, a line each.
fn verify(guest: &Guest) -> BTreeSet<String> {
    said(guest, "dpkg --verify; dpkg --audit").1.lines().map(str::to_owned).collect()
}

/// Nothing differs that did not differ before. What did may be mended: a core image has no folders for apt's lists, and the
/// first command that needs them makes them.
fn assert_consistent(guest: &Guest, before: &BTreeSet<String>, why: &str) {
    let new: Vec<_> = verify(guest).difference(before).cloned().collect();
    assert!(new.is_empty(), "{why}: {new:#?}");
}

#[test]
fn an_upgrade_stays_when_it_is_well_and_goes_when_it_is_not() {
    let _turn = Turn::take();
    let guest = prepared("upgrades", 6);
    let consistent = verify(&guest);
    let begun = Instant::now();
    let mut expected = "debian".to_owned();
    for (command, wanted) in commands(include_str!("../../../../../../docs/upgrades.md")) {
        let at = Instant::now();
        if command == "reboot" {
            let starts = restart(&guest, if expected == "with-app" { "august" } else { &expected });
            say(format_args!("{:6.1} s: reboot, {starts} starts", at.elapsed().as_secs_f64()));
            assert_eq!(starts, if expected == "with-app" { 2 } else { 1 });
            assert_consistent(&guest, &consistent, &expected);
            continue;
        }
        let (status, text, error) = said(&guest, &command);
        say(format_args!("{:6.1} s: {command}", at.elapsed().as_secs_f64()));
        let refused = wanted.iter().find(|line| line.starts_with("error: "));
        match refused {
            Some(line) => {
                assert!(status == 1 && error.contains(line.as_str()), "{command}: {text}\n{error}");
                assert!(error.contains("hint: "), "{command}: {error}");
            }
            None => {
                let failed = command == "kpkg status" && wanted.iter().any(|line| line.contains("failed"));
                let code = if command.contains("--dry-run") { 3 } else { i32::from(failed) };
                assert_eq!(status, code, "{command}: {text}\n{error}");
                assert_eq!(text.contains("failed"), failed, "{command}: {text}\n{error}");
            }
        }
        for line in wanted.iter().filter(|line| is_plain(line)) {
            assert!(
                text.contains(line.trim()) || error.contains(line.trim()),
                "{command}: {line}: {text}\n{error}"
            );
        }
        if let Some((_, rest)) = command.split_once("--name ").filter(|_| refused.is_none()) {
            expected = rest.split(' ').next().expect("a name").to_owned();
            assert_ne!(running(&guest).as_deref(), Some(&*expected), "nothing of what runs has changed");
            guest
                .run_ok("test $(hello-test) = 1.0 || test $(findmnt -no SOURCE /) = rpool/ROOT/august")
                .expect("as before");
            guest
                .run_ok("! findmnt /run/kbe/.inside && ! pgrep -x apt-get")
                .expect("nothing is left of the work");
        }
    }
    assert_eq!(guest.run_ok("hello-test").expect("it runs").trim(), "2.0");
    let left = guest.run_ok("find /etc/systemd /etc/kldload -name '*trial*' 2>/dev/null; ls /usr/sbin/policy-rc.d 2>/dev/null; true");
    assert_eq!(left.expect("searched").trim(), "", "the units of the trial are gone");
    // What a clone of a system on trial has of them goes when there is nothing to prove.
    let stray = "mkdir -p /etc/kldload /etc/systemd/system/multi-user.target.wants && echo '{}' > /etc/kldload/trial.json && \
                 printf '[Unit]\nConditionPathExists=/etc/kldload/trial.json\n[Service]\nExecStart=true\n' > /etc/systemd/system/kldload-trial.service && \
                 ln -s ../kldload-trial.service /etc/systemd/system/multi-user.target.wants/ && systemctl daemon-reload && \
                 kpkg judge && ! find /etc/systemd /etc/kldload -name '*trial*' 2>/dev/null | grep .";
    let (status, text, error) = said(&guest, stray);
    assert!(status == 0 && text.trim().is_empty(), "{text}\n{error}");
    let entries = guest.run_ok("ls /efi/loader/entries").expect("readable");
    assert_eq!(entries.split_whitespace().collect::<Vec<_>>(), ["august.conf", "debian.conf"]);
    let (status, text, error) = said(&guest, "kupgrade; kbe list --json");
    assert!(status == 0 && error.contains("nothing to do") && !text.contains("upgrade-"), "{text}\n{error}");
    let (status, text, error) = said(&guest, "kpkg upgrade --full --dry-run");
    assert!(status == 0 && error.contains("nothing to do"), "{text}\n{error}");
    let (status, text, error) = said(&guest, "kpkg remove --reboot --name lean hello");
    assert!(status == 0 && text.contains("hello"), "{text}\n{error}");
    wait_for(&guest, &["lean"]);
    guest.run_ok("! command -v hello-test").expect("it is removed");
    assert_consistent(&guest, &consistent, "lean");
    say(format_args!("the documentation: {:.0} s", begun.elapsed().as_secs_f64()));
}

#[test]
fn what_would_ruin_a_system_is_refused_or_left_after_one_start() {
    let _turn = Turn::take();
    let guest = prepared("ruins", 7);
    let consistent = verify(&guest);
    let environments =
        || guest.run_ok("zfs list -H -r -t all -o name rpool/ROOT; ls -R /efi").expect("listed");
    let before = environments();
    let refused = [
        ("linux-image-6.99.0-amd64", "kernel: 6.99.0-amd64 has no zfs.ko"),
        ("bad-initramfs", "initramfs: `/boot/initrd.img-"),
        ("bad-postinst", "apt-get"),
        ("bad-fstab", "fstab: /data: unreachable on boot required source: LABEL=nosuch"),
        ("bad-program", "programs: app.service starts `/usr/bin/not-there`: there is no such program"),
        ("bad-files", "packages: `/usr/share/made-for-a-test/own` is not as its package says"),
        ("large-initramfs", "`/efi` has "),
    ];
    for (package, reason) in refused {
        if package == "large-initramfs" {
            let fill = "dd if=/dev/zero of=/efi/fill bs=64K count=$(($(df --output=avail -k /efi | tail -1) / 64 - 320)) status=none; sync";
            guest.run_ok(fill).expect("filled");
        }
        let at = Instant::now();
        let (status, text, error) = said(&guest, &format!("kpkg install {package}"));
        assert!(status == 1 && error.contains(reason), "{package}: {text}\n{error}");
        say(format_args!("{:6.1} s: {package} is refused", at.elapsed().as_secs_f64()));
        guest.run_ok("rm -f /efi/fill").expect("removed");
        assert_eq!(environments(), before, "{package}");
    }
    // A pool without room takes no other system, and keeps the one that it has.
    guest
        .run_ok(
            "zfs create -o reservation=$(($(zfs get -Hpo value available rpool) - (256 << 10))) rpool/hog",
        )
        .expect("made");
    let (status, text, error) = said(&guest, "kupgrade");
    let all = format!("{text}{error}").to_lowercase();
    assert!(status == 1 && (all.contains("space") || all.contains("room")), "{text}\n{error}");
    guest.run_ok("zfs destroy rpool/hog").expect("destroyed");
    assert_eq!(environments(), before, "a full pool");
    assert_consistent(&guest, &consistent, "after refusals");
    say(format_args!("{0} of {0} are refused, and nothing is left of them", refused.len()));

    let left = [
        ("panics", "it was started and never said a word"),
        ("app", "services: app.service failed"),
        ("ending-app", "services: app.service keeps ending"),
        ("dead-mount", "it started in emergency mode: data.mount failed"),
    ];
    for (package, reason) in left {
        if package == "app" {
            // What had failed before hides nothing that fails after.
            let old = "printf '[Service]\\nExecStart=false\\n' > /run/systemd/system/old.service; systemctl start old.service
                 until systemctl is-failed -q old.service; do sleep 0.1; done";
            guest.run_ok(old).expect("it has failed");
        }
        let at = Instant::now();
        let (status, text, error) = said(&guest, &format!("kpkg install --name ruined {package}"));
        assert_eq!(status, 0, "{package}: {text}\n{error}");
        let starts = restart(&guest, "debian");
        let (status, text, _) = said(&guest, "kpkg status");
        assert!(status == 1 && text.contains(reason), "{package}: {text}");
        assert_eq!(starts, 2, "{package}: the ruined one, and the old one");
        assert_consistent(&guest, &consistent, package);
        let (status, text, error) = said(&guest, "kbe destroy --yes ruined");
        assert_eq!(status, 0, "{package}: {text}\n{error}");
        assert_eq!(environments(), before, "{package}");
        say(format_args!("{:6.1} s: {package} is left after one start", at.elapsed().as_secs_f64()));
    }
    say(format_args!("{0} of {0} are left after one failed start", left.len()));
}

#[test]
fn a_power_cut_at_any_time_of_an_upgrade_starts_a_whole_system() {
    let _turn = Turn::take();
    let guest = prepared("cuts", 8);
    let consistent = verify(&guest);
    let at = Instant::now();
    let (status, text, error) = said(&guest, "kupgrade --name cut");
    assert_eq!(status, 0, "{text}\n{error}");
    let whole = at.elapsed();
    say(format_args!("an upgrade takes {:.1} s", whole.as_secs_f64()));
    guest.run_ok("bootctl set-oneshot ''; kbe destroy --yes cut").expect("destroyed");
    const CUTS: u32 = 10;
    let mut during = 0;
    for cut in 1..=CUTS {
        // The last one comes when the loader has been told; so do others where the machine has become faster meanwhile.
        let after = if cut == CUTS { whole * 3 } else { whole * cut / CUTS };
        guest.run_ok("systemd-run --quiet --collect --unit=cut kupgrade --name cut").expect("begun");
        std::thread::sleep(after);
        guest.with_qmp(|qmp| qmp.execute("system_reset", json!({}))).expect("QEMU answers");
        guest.wait_control(BOOT, |_| ()).expect("it boots");
        let runs = wait_for(&guest, if cut == CUTS { &["cut"] } else { &["debian", "cut"] });
        let (status, text, error) = said(&guest, "kbe prune --yes");
        assert_eq!(status, 0, "{cut}: {text}\n{error}");
        let (status, text, error) = said(&guest, "kbe list");
        assert!(status == 0 && !text.contains("half-"), "{cut}: {text}\n{error}");
        assert_consistent(&guest, &consistent, &format!("cut {cut}"));
        say(format_args!("cut {cut} of {CUTS}, after {:.1} s: `{runs}` is whole", after.as_secs_f64()));
        if runs == "cut" && cut != CUTS {
            guest.run_ok("kbe activate debian").expect("it has an entry");
            restart(&guest, "debian");
            // Else the last good one is the other, and stays.
            guest.run_ok("kbe good").expect("a person may say so");
        } else {
            during += 1;
        }
        // None where the power failed before there was one.
        if text.lines().any(|line| line.starts_with("cut ")) && cut != CUTS {
            guest.run_ok("bootctl set-oneshot ''; kbe destroy --yes cut").expect("destroyed");
        }
    }
    assert!(during >= CUTS / 2, "{during} of {CUTS} came before the end");
    say(format_args!("{CUTS} of {CUTS} power cuts start a whole system"));
}
