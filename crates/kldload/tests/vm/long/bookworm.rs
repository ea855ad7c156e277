//! Debian 12, whose ZFS, systemd, nftables and apt are two years older: an image of it, and a stock one that becomes the recipe's
//! machine and itself again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use kld_vm::Guest;
use kld_vm::control::{PORT, SCRIPT};

use crate::apply::{STATE, assert_same, give};
use crate::fixture::{BOOT, RECIPE, copy_of, fresh, kldload, machine_on, scratch, wait_until_well};
use crate::turn::Turn;

use super::bare::{LONG, bare, becomes_itself_again, becomes_the_recipe, luggage_of, without_journal};

/// What the recipe's manifest says of its release. Workers of this gunicorn call setuid(2), to their own account.
const RELEASE: [(&str, &str); 4] = [
    ("distro:      Debian 13", "distro:      Debian 12"),
    ("postgresql@17-main", "postgresql@15-main"),
    ("full_page_writes=off 17 main", "full_page_writes=off 15 main"),
    ("NoNewPrivileges  PrivateTmp", "NoNewPrivileges  PrivateTmp  SystemCallFilter=@system-service"),
];

/// The channel into the machine, as files: this systemd takes no units from credentials.
const CHANNEL: &str = "  /usr/local/lib/kldload-control:  control.bash
  /etc/systemd/system/kldload-control.service:  control.service
  /etc/systemd/system/sysinit.target.d/kldload-control.conf:  control.conf
";

/// A directory with this manifest, what the recipe has beside its own, and the channel.
fn folder(name: &str, manifest: &str) -> PathBuf {
    let dir = fresh(name);
    let unit = "[Unit]\nDefaultDependencies=no\nConflicts=shutdown.target\nBefore=shutdown.target\n\
                [Service]\nExecStart=/bin/bash /usr/local/lib/kldload-control\nRestart=always\nRestartSec=1\n\
                Environment=LC_ALL=C.UTF-8 HOME=/root\n";
    let app = Path::new(RECIPE).with_file_name("app.py");
    fs::copy(app, dir.join("app.py")).expect("copied");
    assert!(SCRIPT.contains(PORT));
    for (file, text) in [
        ("appliance.manifest", manifest),
        ("control.bash", SCRIPT),
        ("control.service", unit),
        ("control.conf", "[Unit]\nWants=kldload-control.service\n"),
    ] {
        fs::write(dir.join(file), text).expect("written");
    }
    dir
}

fn build(name: &str, manifest: &str) -> PathBuf {
    let manifest = folder(name, manifest).join("appliance.manifest").display().to_string();
    let image = scratch().join(format!("{name}.img"));
    kldload(["build", &manifest, "--size", "6G", "--output", &image.display().to_string()]);
    image
}

/// The recipe made from Debian 12.
fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let text = fs::read_to_string(RECIPE).expect("it is there");
        let text = RELEASE.iter().fold(text, |text, (old, new)| text.replace(old, new));
        let file = "  /usr/local/lib/webapp/app.py:  app.py\n";
        assert!(text.contains(file) && text.contains(RELEASE[0].1), "{text}");
        build("webapp-12", &text.replace(file, &format!("{file}{CHANNEL}")))
    })
}

/// Stock Debian 12.
fn stock() -> PathBuf {
    let manifest = format!(
        "name: bookworm\npurpose: A Debian 12 that its owner looks after\nowner: Operations  ops@example.com\n\
         distro: Debian 12\nprofile: core\nfiles:\n{CHANNEL}"
    );
    build("stock-12", &manifest)
}

/// systemd passes over what it does not know, and says so.
fn assert_understood(guest: &Guest) {
    let asked = "journalctl -b --no-pager | grep -E 'Unknown (key|lvalue|section)|Failed to parse|, ignoring' \
                 | grep -i -e kldload -e webapp -e postgres || true";
    assert_eq!(guest.run_ok(asked).expect("it answers").trim(), "");
}

#[test]
fn an_image_of_debian_12_is_the_same_machine() {
    let _turn = Turn::take();
    let disk = copy_of(image(), "image-12.qcow2");
    let guest = machine_on(&disk).start().expect("QEMU starts");
    guest.wait_control(BOOT, |_| ()).expect("it boots");
    wait_until_well(&guest);
    let versions = guest.run_ok("cat /sys/module/zfs/version /etc/debian_version").expect("it says");
    assert!(versions.starts_with("2.1.") && versions.contains("\n12."), "{versions}");
    guest.run_ok("curl -fsS -d text=kept http://10.8.0.1:8000/notes").expect("the application works");
    assert_understood(&guest);
    // It is what its manifest says, and can be changed.
    let channel = [("app.py:  app.py\n", &*format!("app.py:  app.py\n{CHANNEL}"))];
    let replaced: Vec<_> = RELEASE.into_iter().chain(channel).collect();
    give(&guest, "/root/webapp", &replaced);
    let copy = "cd /root/webapp; cp /usr/local/lib/kldload-control control.bash; cd /etc/systemd/system; \
                cp kldload-control.service /root/webapp/control.service; \
                cp sysinit.target.d/kldload-control.conf /root/webapp/control.conf";
    guest.run_ok(copy).expect("copied");
    let plan = guest.run_for("kldload plan /root/webapp/appliance.manifest", LONG).expect("it answers");
    assert_eq!(plan.status, 0, "{}{}", plan.text(), plan.error_text());
    // The daily words.
    let made = guest.run_for("kbe create before-work && kbe activate before-work", LONG).expect("it answers");
    assert!(made.is_ok(), "{}{}", made.text(), made.error_text());
    guest.reboot(BOOT, |_| ()).expect("it starts");
    wait_until_well(&guest);
    let root = guest.run_ok("findmnt -no SOURCE /").expect("mounted");
    assert_eq!(root.trim(), "rpool/ROOT/before-work");
    let notes = guest.run_ok("curl -fsS http://10.8.0.1:8000/notes").expect("the application works");
    assert!(notes.contains("kept"), "{notes}");
}

#[test]
fn stock_debian_12_becomes_the_recipe_and_itself_again() {
    let _turn = Turn::take();
    let (disk, luggage) = (copy_of(&stock(), "bare-12.qcow2"), luggage_of(image()));
    let guest = bare(&disk, &luggage);
    let state = STATE.replace("@17-", "@15-");
    give(&guest, "/root/webapp", &RELEASE);
    give(&guest, "/root/trixie", &[]);
    let kldload = |words: &str| guest.run_for(&format!("kldload {words}"), LONG).expect("it answers");
    let journal = || guest.run("journalctl -b --no-pager | tail -300").expect("it answers").text();
    guest.run_ok("hostnamectl hostname webapp").expect("renamed");
    let refused = kldload("plan /root/trixie/appliance.manifest");
    assert_eq!(refused.status, 1, "{}", refused.text());
    assert!(refused.error_text().contains("`distro: debian 12`"), "{}", refused.error_text());
    let before = guest.run_ok(&state).expect("readable");

    let plan = kldload("plan /root/webapp/appliance.manifest");
    assert_eq!(plan.status, 3, "{}{}", plan.text(), plan.error_text());
    assert_eq!(guest.run_ok(&state).expect("readable"), before, "a plan touches nothing");

    give(
        &guest,
        "/root/bad",
        &[&RELEASE[..], &[("expect:   postgresql", "expect:   something else")]].concat(),
    );
    let failed = kldload("apply --yes --within 5 /root/bad/appliance.manifest");
    assert_eq!(failed.status, 1, "{}{}", failed.text(), failed.error_text());
    assert!(
        failed.error_text().contains("everything is as it was before"),
        "{}\n{}",
        failed.error_text(),
        journal()
    );
    guest.run_ok("zfs destroy -r rpool/srv/webapp-db.undone-000001; sleep 5").expect("removed");
    let after = guest.run_ok(&state).expect("readable");
    assert_same(&without_journal(&before), &without_journal(&after));

    becomes_the_recipe(&guest);
    assert_understood(&guest);
    let after = becomes_itself_again(&guest, &state);
    assert!(after.contains("rpool/srv/webapp-db.undone-") && after.contains("postgresql-15"), "{after}");
}
