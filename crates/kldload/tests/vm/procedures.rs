//! Upgrades and recoveries on a real machine: steps, branches, a kill in the middle, what is measured.

use kld_vm::Guest;

use crate::apply::give;
use crate::fixture::{BOOT, webapp};

/// The procedures of the recipe, which need other commands than those under test.
const UPGRADE: &str = "  1. kbe create pre-webapp-upgrade
  2. ksnap rpool/srv/webapp-db pre-upgrade
  3. apt-get -y upgrade
  4. Verify: kst
  5. If failed: kbe activate pre-webapp-upgrade && reboot
";
const DR: &str = "  RTO: 10 minutes  RPO: 15 minutes
  1. kldload build recipes/webapp/appliance.manifest --output webapp.img
  2. Boot it, then syncoid the datasets back from the replica
  3. Verify: kst
";

/// Those of docs/procedures.md.
fn documented(which: &str) -> String {
    let text = include_str!("../../../../docs/procedures.md");
    let from = text.find(which).expect("it is documented") + which.len();
    let lines = text[from..].lines().skip(1).take_while(|line| line.starts_with("  "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Runs kldload in the machine: its status, what it says on stdout and on stderr.
fn kldload(guest: &Guest, words: &str) -> (i32, String, String) {
    let output = guest.run_for(&format!("cd /root/good; kldload {words}"), BOOT).expect("it answers");
    (output.status, output.text(), output.error_text())
}

#[test]
fn procedures_are_carried_out_and_measured() {
    let guest = webapp();
    give(
        &guest,
        "/root/good",
        &[(UPGRADE, &documented("upgrade_procedure:")), (DR, &documented("dr_procedure:"))],
    );
    guest.run_ok("zfs snapshot rpool/srv/webapp@kept rpool/srv/webapp-db@kept").expect("snapshots are made");

    // Every command of the documentation: an upgrade with an apply in it, a recovery in time.
    let text = include_str!("../../../../docs/procedures.md");
    let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("$ kldload ")).collect();
    assert!(commands.len() > 6, "{commands:?}");
    for words in commands {
        let (status, said, error) = kldload(&guest, words);
        let wanted = if words.contains("--dry-run") { 3 } else { 0 };
        assert_eq!(status, wanted, "{words}: {said}\n{error}");
    }
    let (_, said, _) = kldload(&guest, "upgrade --report 1");
    for part in ["upgrade 1 of webapp: done", "4  verify          done", "5  if failed: run  not taken"] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    guest.run_ok("zfs list rpool/srv/webapp@before-upgrade").expect("the first step was carried out");
    let (_, said, _) = kldload(&guest, "dr --report 2");
    for part in [
        "target 10m 00s: met (from the start until step 2 held)",
        "target 1h 00m: met (age of `rpool/srv/webapp",
    ] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    let report = "/var/lib/kldload/procedures/000002";
    let modes = guest
        .run_ok(&format!("stat -c %a {report} {report}/report.json {report}/report.txt {report}/journal"));
    assert_eq!(
        modes.expect("they are there").split_whitespace().collect::<Vec<_>>(),
        ["700", "600", "600", "600"]
    );

    // A target that is missed, and a person who is not there.
    give(&guest, "/root/late", &[(DR, &documented("dr_procedure:").replace("1 hour", "1 second"))]);
    let (status, said, error) = kldload(&guest, "dr --yes --answer done /root/late/appliance.manifest");
    assert_eq!(status, 1, "{said}\n{error}");
    assert!(said.contains("target 1.0s: missed") && error.contains("a target was missed"), "{said}\n{error}");
    let (status, _, error) = kldload(&guest, "dr --yes");
    assert_eq!(status, 1, "{error}");
    assert!(error.contains("is for a person, and nobody is at the terminal"), "{error}");
    assert!(error.contains("`kldload dr --from 2`"), "{error}");
    let (status, said, error) = kldload(&guest, "dr --yes --from 2 --json");
    assert_eq!(status, 0, "{said}\n{error}");
    assert!(said.contains("\"continues\": 4"), "{said}");

    a_proof_that_fails_takes_its_branch(&guest);
    the_clock_does_not_wait_for_a_person(&guest);
    a_kill_is_remembered(&guest);
}

/// A step's apply has cut somebody off, and the procedure waits for him.
fn the_clock_does_not_wait_for_a_person(guest: &Guest) {
    let other = "recordsize=64k  compression=lz4  atime=off";
    give(guest, "/root/other", &[("recordsize=128k  compression=lz4  atime=off", other)]);
    let size = "zfs get -Ho value recordsize rpool/srv/webapp";
    let waits = format!("for i in $(seq 120); do sleep 1; test $({size}) = 64K || exit 0; done; exit 1\n");
    guest.write_file("/root/waits.sh", waits.as_bytes(), 0o644).expect("written");
    let steps = format!(
        "  1. kldload apply --yes --confirm-within 5s /root/other/appliance.manifest && test $({size}) = 64K
  2. sh /root/waits.sh
"
    );
    give(guest, "/root/waits", &[(UPGRADE, &steps)]);
    let (status, said, error) = kldload(guest, "upgrade --yes /root/waits/appliance.manifest");
    assert_eq!(status, 0, "{said}\n{error}");
    assert_eq!(guest.run_ok(size).expect("it is there").trim(), "128K");
    // It may still be at work on the rest.
    guest.run_for("flock /run/kldload-apply-within.lock true", BOOT).expect("it answers");
}

fn a_proof_that_fails_takes_its_branch(guest: &Guest) {
    let bad = "  1. systemctl stop webapp.service
  2. Verify: curl -fsS http://${WG0_ADDRESS}:8000/healthz
  3. If failed: systemctl start webapp.service
  4. touch /root/never
";
    give(guest, "/root/bad", &[(UPGRADE, bad)]);
    let (status, said, error) = kldload(guest, "upgrade --yes --within 4 /root/bad/appliance.manifest");
    assert_eq!(status, 1, "{said}\n{error}");
    assert!(error.contains("failed in step 2 `Verify: curl"), "{error}");
    assert!(error.contains("Failed to connect") || error.contains("Could not connect"), "{error}");
    for part in ["2  verify          failed", "3  if failed: run  done", "4  run             not begun"] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    guest
        .run_ok("systemctl is-active webapp.service && test ! -e /root/never")
        .expect("the branch was taken");
}

fn a_kill_is_remembered(guest: &Guest) {
    let long = "  1. logger begin\n  2. touch /run/begun && sleep 600\n  3. touch /root/finished\n";
    give(guest, "/root/long", &[(UPGRADE, long)]);
    guest
        .run_ok(
            "systemd-run --quiet --unit=the-upgrade kldload upgrade --yes /root/long/appliance.manifest; \
             until test -e /run/begun; do sleep 0.2; done",
        )
        .expect("it has begun");
    let upgrade = "upgrade --yes /root/long/appliance.manifest";
    let (status, _, error) = kldload(guest, upgrade);
    assert!(
        status == 1 && error.contains("is locked by process") && error.contains("kldload upgrade"),
        "{error}"
    );
    let (status, _, error) = kldload(guest, "apply --yes /root/long/appliance.manifest");
    assert!(status == 1 && error.contains("is locked by process"), "{error}");
    guest.run_ok("systemctl kill --signal=KILL the-upgrade; sleep 0.5").expect("killed");
    let (status, _, error) = kldload(guest, upgrade);
    assert_eq!(status, 1, "{error}");
    assert!(
        error.contains("was interrupted in step 2 `touch /run/begun && sleep 600`")
            && error.contains("--from 3"),
        "{error}"
    );
    guest.run_ok("test ! -e /root/finished").expect("nothing runs before somebody has looked");
    let (status, said, error) = kldload(guest, &format!("{upgrade} --from 3"));
    assert_eq!(status, 0, "{said}\n{error}");
    assert!(said.contains("goes on with"), "{said}");
    guest.run_ok("test -e /root/finished").expect("it went on");
}
