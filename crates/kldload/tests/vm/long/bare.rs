//! A machine that kldload has not built: stock Debian with a pool becomes the recipe's appliance, and itself again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kld_build::Cache;
use kld_host::Cmd;
use kld_vm::{Disk, DiskFormat, Guest};

use crate::apply::{RICH, STATE, assert_same, begin_within, give};
use crate::fixture::{BOOT, KLDLOAD, copy_of, core_image, fresh, machine_on, wait_until_well, webapp_image};
use crate::turn::Turn;

use super::crashes::{say_count, steps_of};

/// What apt takes for eighty packages on an emulated machine with others beside it.
pub(super) const LONG: Duration = Duration::from_secs(3600);

/// A disk with a tar on it: the program, and an archive of the packages that this image has.
pub(super) fn luggage_of(image: &Path) -> PathBuf {
    let dir = fresh("luggage");
    let debs = dir.join("debs");
    fs::create_dir(&debs).expect("writable");
    let lock = fs::read_to_string(format!("{}.lock", image.display())).expect("it has one");
    let kept = Cache::default_root().join("packages");
    let mut index = String::new();
    for entry in fs::read_dir(&kept).expect("packages are kept") {
        let path = entry.expect("readable").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((digest, name)) = name.split_once('_').filter(|(digest, _)| lock.contains(*digest)) else {
            continue;
        };
        fs::copy(&path, debs.join(name)).expect("copied");
        let control = Cmd::new("dpkg-deb").arg("-f").arg(&path).stdout_string().expect("a package");
        let size = fs::metadata(&path).expect("it is there").len();
        index += &format!("{}\nFilename: ./{name}\nSize: {size}\nSHA256: {digest}\n\n", control.trim_end());
    }
    fs::write(debs.join("Packages"), index).expect("written");
    fs::copy(KLDLOAD, dir.join("kldload")).expect("copied");
    let disk = dir.join("luggage.tar");
    Cmd::new("tar")
        .arg("-C")
        .arg(&dir)
        .arg("-cf")
        .arg(&disk)
        .args(["debs", "kldload"])
        .run()
        .expect("packed");
    let file = File::options().write(true).open(&disk).expect("it is there");
    file.set_len(file.metadata().expect("readable").len().next_multiple_of(1 << 20)).expect("rounded");
    disk
}

/// What ZFS's mount generator reads.
const CACHE: &str = "/etc/zfs/zfs-list.cache/rpool";

fn start(disk: &Path, luggage: &Path) -> Guest {
    let vm = machine_on(disk).disk(Disk::new(luggage, DiskFormat::Raw).volatile());
    let guest = vm.start().expect("QEMU starts");
    guest.wait_control(BOOT, |_| ()).expect("it boots");
    guest.wait_system(BOOT, |_| ()).expect("the units settle");
    guest
}

/// Stock Debian, with the program installed and an archive that apt knows.
pub(super) fn bare(disk: &Path, luggage: &Path) -> Guest {
    let guest = start(disk, luggage);
    let script = "set -e; cd /root; tar -xf /dev/vdb; install -m 755 kldload /usr/bin/kldload; rm kldload; \
                  mkdir sources; mv /etc/apt/sources.list* sources/; \
                  echo 'deb [trusted=yes] file:/root/debs ./' > /etc/apt/sources.list; apt-get update -q";
    let prepared = guest.run_for(script, BOOT).expect("it answers");
    assert!(prepared.is_ok(), "{}{}", prepared.text(), prepared.error_text());
    guest
}

/// A state but for the dataset of the journal, which is the one thing that a failed apply leaves behind.
pub(super) fn without_journal(state: &str) -> String {
    let is_journal = |line: &&str| line.starts_with("rpool/var/lib/kldload\t");
    state.lines().filter(|line| !is_journal(line)).collect::<Vec<_>>().join("\n")
}

/// The recipe in `/root/webapp` is applied: it works, and nothing is left to do.
pub(super) fn becomes_the_recipe(guest: &Guest) {
    let kldload = |words: &str| guest.run_for(&format!("kldload {words}"), LONG).expect("it answers");
    let journal = || guest.run("journalctl -b --no-pager | tail -300").expect("it answers").text();
    let applied = kldload("apply --yes --within 300 /root/webapp/appliance.manifest");
    assert_eq!(applied.status, 0, "{}{}\n{}", applied.text(), applied.error_text(), journal());
    wait_until_well(guest);
    guest.run_ok("curl -fsS -d text=kept http://10.8.0.1:8000/notes").expect("the application works");
    let again = kldload("plan /root/webapp/appliance.manifest");
    assert_eq!(again.status, 0, "{}{}", again.text(), again.error_text());
}

/// Taken back: what is there then, of which packages stay, and the notes, in a dataset that is out of the way.
pub(super) fn becomes_itself_again(guest: &Guest, state: &str) -> String {
    let undone = guest.run_for("kldload undo --yes", LONG).expect("it answers");
    assert_eq!(undone.status, 0, "{}{}", undone.text(), undone.error_text());
    let after = guest.run_ok(state).expect("readable");
    for part in ["kldload-identity.service", "/etc/nftables.conf ", "rpool/srv/webapp-db\t"] {
        assert!(!after.contains(part), "{part:?} in {after}");
    }
    after
}

#[test]
fn stock_debian_becomes_the_recipe_and_itself_again() {
    let _turn = Turn::take();
    let (disk, luggage) = (copy_of(core_image(), "bare.qcow2"), luggage_of(webapp_image()));
    let guest = bare(&disk, &luggage);
    give(&guest, "/root/webapp", &[]);
    let kldload = |words: &str| guest.run_for(&format!("kldload {words}"), LONG).expect("it answers");

    // It is somebody else's machine until its owner says otherwise.
    let refused = kldload("plan /root/webapp/appliance.manifest");
    assert_eq!(refused.status, 1, "{}", refused.text());
    assert!(refused.error_text().contains("`hostnamectl hostname webapp`"), "{}", refused.error_text());
    guest.run_ok("hostnamectl hostname webapp").expect("renamed");
    let before = guest.run_ok(STATE).expect("readable");
    let mounts = guest.run_ok(&format!("sort {CACHE}")).expect("readable");

    let plan = kldload("plan /root/webapp/appliance.manifest");
    assert_eq!(plan.status, 3, "{}{}", plan.text(), plan.error_text());

    // A proof that fails: stock Debian, to the last package. Only the dataset of the journal is new.
    give(&guest, "/root/bad", &[("expect:   postgresql", "expect:   something else")]);
    let failed = kldload("apply --yes --within 5 /root/bad/appliance.manifest");
    let journal = || guest.run("journalctl -b --no-pager | tail -300").expect("it answers").text();
    assert_eq!(failed.status, 1, "{}{}", failed.text(), failed.error_text());
    for part in ["the guest book answers with data from PostgreSQL", "everything is as it was before"] {
        assert!(failed.error_text().contains(part), "{}\n{}", failed.error_text(), journal());
    }
    // The database wrote into its dataset, which is put aside and not destroyed.
    let aside = "rpool/srv/webapp-db.undone-000001";
    assert!(failed.error_text().contains(&format!("`zfs destroy -r {aside}`")), "{}", failed.error_text());
    guest.run_ok(&format!("zfs destroy -r {aside}; sleep 5; zfs list -H -o name")).expect("removed");
    let after = guest.run_ok(STATE).expect("readable");
    assert_same(&without_journal(&before), &without_journal(&after));
    // It is mounted by the next start, as all others are.
    let cached =
        guest.run_ok(&format!("grep -v '^rpool/var/lib/kldload\t' {CACHE} | sort")).expect("readable");
    assert_same(&mounts, &cached);

    // Killed while apt is at work, and when most is done. Then without power: nothing is there yet that would undo it at the
    // start, so a person does.
    give(&guest, RICH, &[]);
    let steps = steps_of(&guest);
    let install = 1 + steps.iter().position(|kind| kind == "package").expect("it installs");
    let points = [install, steps.len() * 2 / 3];
    let is_as_before = |guest: &Guest, said: &str| {
        let recovered = guest.run_for("kldload recover", LONG).expect("it answers");
        assert!(recovered.is_ok(), "{said}: {}{}", recovered.text(), recovered.error_text());
        guest.run_ok("sleep 5").expect("the mount cache follows");
        assert_same(&without_journal(&before), &without_journal(&guest.run_ok(STATE).expect("readable")));
    };
    for step in points {
        begin_within(&guest, step, LONG);
        guest
            .run("systemctl kill --signal=KILL the-apply; sleep 0.5; systemctl reset-failed the-apply")
            .expect("it answers");
        is_as_before(&guest, &format!("killed at {step}"));
    }
    begin_within(&guest, points[1], LONG);
    guest.cut_power();
    let guest = start(&disk, &luggage);
    is_as_before(&guest, "without power");
    say_count("faults on bare Debian", points.len() + 1);

    becomes_the_recipe(&guest);
    let after = becomes_itself_again(&guest, STATE);
    assert!(
        after.contains("rpool/srv/webapp-db.undone-000005") && after.contains("postgresql-17"),
        "{after}"
    );
    let rules =
        guest.run_ok("nft list ruleset; systemctl is-active webapp.service || true").expect("it answers");
    assert_eq!(rules.trim(), "inactive");
}
