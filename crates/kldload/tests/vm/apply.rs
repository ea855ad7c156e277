//! Changing a machine that runs: looked at, planned, applied, undone.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kld_vm::Guest;

use crate::fixture::{BOOT, RECIPE, webapp};

/// Puts the recipe into the machine, with these texts replaced in its manifest.
fn give(guest: &Guest, dir: &str, replaced: &[(&str, &str)]) {
    let recipe = Path::new(RECIPE).parent().expect("it lies in a directory");
    let mut manifest = fs::read_to_string(RECIPE).expect("it is there");
    for (old, new) in replaced {
        assert!(manifest.contains(old), "{old}");
        manifest = manifest.replace(old, new);
    }
    let app = fs::read(recipe.join("app.py")).expect("it is there");
    for (name, bytes) in [("appliance.manifest", manifest.as_bytes()), ("app.py", &app)] {
        let text = STANDARD.encode(bytes);
        guest.run_ok(&format!("mkdir -p {dir}; base64 -d > {dir}/{name} <<<'{text}'")).expect("written");
    }
}

/// Runs kldload in the machine: its status, what it says on stdout and on stderr.
fn kldload(guest: &Guest, words: &str) -> (i32, String, String) {
    let output = guest.run_for(&format!("kldload {words}"), BOOT).expect("it answers");
    (output.status, output.text(), output.error_text())
}

#[test]
fn a_machine_that_was_just_built_needs_no_change() {
    let guest = webapp();
    give(&guest, "/root/webapp", &[]);
    let (status, said, error) = kldload(&guest, "plan /root/webapp/appliance.manifest");
    assert_eq!(
        (status, said.as_str()),
        (0, "webapp: as the manifest says, nothing to do"),
        "{said}\n{error}"
    );
}

#[test]
fn a_change_is_shown_made_and_undone_when_a_proof_fails() {
    let guest = webapp();
    let wish = [
        (
            "recordsize=128k  compression=lz4  atime=off\n",
            "recordsize=1M  compression=zstd-3  atime=off\n  rpool/srv/webapp-cache:  recordsize=16k\n",
        ),
        ("TCP 8000 guest book,", "TCP 8000 guest book, TCP 8001 spare,"),
        ("--workers 2", "--workers 1"),
    ];
    give(&guest, "/root/new", &wish);
    let (status, said, _) = kldload(&guest, "plan /root/new/appliance.manifest");
    assert_eq!(status, 3, "{said}");
    for line in ["recordsize 128K → 1M", "+ dataset  rpool/srv/webapp-cache", "/etc/nftables.conf"] {
        assert!(said.contains(line), "{line:?} in {said}");
    }
    let state = "zfs get -Hp -o name,property,value recordsize,compression,mountpoint -r rpool/srv; nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'; \
                 cat /etc/nftables.conf /etc/systemd/system/webapp.service; systemctl show -p ActiveState webapp";
    let before = guest.run_ok(state).expect("it answers");

    // A proof that fails: everything is as it was.
    let bad = [("expect:   postgresql", "expect:   something else"), wish[0], wish[1], wish[2]];
    give(&guest, "/root/bad", &bad);
    let (status, said, error) = kldload(&guest, "apply --yes --within 15 /root/bad/appliance.manifest");
    assert_eq!(status, 1, "{said}\n{error}");
    assert!(error.contains("failed at verify, and everything is as it was before"), "{error}");
    assert_eq!(guest.run_ok(state).expect("it answers"), before);

    let (status, said, error) = kldload(&guest, "apply --yes /root/new/appliance.manifest");
    assert_eq!(status, 0, "{said}\n{error}");
    let after = guest.run_ok(state).expect("it answers");
    assert!(after.contains("rpool/srv/webapp\trecordsize\t1048576") && after.contains("8001"), "{after}");
    assert!(after.contains("/srv/webapp-cache"), "{after}");
    let (status, said, _) = kldload(&guest, "plan /root/new/appliance.manifest");
    assert_eq!(status, 0, "{said}");
    // What somebody changes by hand is told apart.
    guest
        .run_ok("zfs set recordsize=64k rpool/srv/webapp; echo '# mine' >> /etc/nftables.conf")
        .expect("done");
    let (status, said, _) = kldload(&guest, "plan /root/new/appliance.manifest");
    assert_eq!(status, 3);
    assert!(said.contains("changed by hand since the last apply"), "{said}");
    assert!(said.contains("recordsize 64K → 1M") && said.contains("+0 −1 lines"), "{said}");
    let history = guest.run_ok("kldload history").expect("it answers");
    assert!(history.contains("undone") && history.contains("committed"), "{history}");
}
