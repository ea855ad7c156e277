//! The boot environment of an apply, started as somebody would whose machine no longer starts.

use kld_vm::Guest;

use crate::apply::{give, kldload};
use crate::fixture::{BOOT, boot_until_well, copy_of, machine_on, webapp_image};
use crate::turn::Turn;

/// What runs, and with how many workers the service starts there.
fn running(guest: &Guest) -> (String, String) {
    let said = guest
        .run_ok("findmnt -no SOURCE /; grep -o 'workers [0-9]' /etc/systemd/system/webapp.service")
        .expect("readable");
    let (root, workers) = said.split_once('\n').expect("two lines");
    (root.trim().to_owned(), workers.trim().to_owned())
}

fn answers(guest: &Guest) {
    let ask = "for i in $(seq 60); do curl -fsS http://10.8.0.1:8000/notes && exit 0; sleep 2; done; exit 1";
    assert!(guest.run_for(ask, BOOT).expect("it answers").is_ok(), "the service does not answer");
}

#[test]
fn a_machine_is_started_as_it_was_before_an_apply_and_that_is_somebodys_then() {
    let _turn = Turn::take();
    let disk = copy_of(webapp_image(), "environments.qcow2");
    let guest = boot_until_well(&machine_on(&disk));
    give(&guest, "/root/less", &[("--workers 2", "--workers 1")]);
    let (status, said, error) = kldload(&guest, "apply --yes /root/less/appliance.manifest");
    assert_eq!(status, 0, "{said}\n{error}");
    assert_eq!(running(&guest), ("rpool/ROOT/debian".to_owned(), "workers 1".to_owned()));
    let maker = "zfs get -H -o value org.kldload:kbe-by rpool/ROOT/apply-000001";
    assert_eq!(guest.run_ok(maker).expect("it is there"), "apply");

    guest.run_ok("kldload be activate --once apply-000001").expect("it has an entry");
    guest.reboot(BOOT, |_| ()).expect("it reboots");
    guest.wait_system(BOOT, |_| ()).expect("the units settle");
    assert_eq!(running(&guest), ("rpool/ROOT/apply-000001".to_owned(), "workers 2".to_owned()));
    answers(&guest);
    assert_eq!(guest.run_ok(maker).expect("it is there"), "-", "whoever starts it keeps it");
    let (status, said, _) = kldload(&guest, "plan /root/less/appliance.manifest");
    assert!(status == 3 && said.contains("/etc/systemd/system/webapp.service"), "{said}");

    // The next start is as before.
    guest.reboot(BOOT, |_| ()).expect("it reboots");
    guest.wait_system(BOOT, |_| ()).expect("the units settle");
    assert_eq!(running(&guest), ("rpool/ROOT/debian".to_owned(), "workers 1".to_owned()));
    answers(&guest);
}
