//! Packages changed on a machine that kldload has built: services in sandboxes, data beside the clones.

use super::{restart, said};
use crate::apply::make_package;
use crate::fixture::{boot_until_well, copy_of, machine_on, wait_until_well, webapp_image};
use crate::turn::Turn;

#[test]
fn a_machine_of_ours_is_changed_and_taken_back_and_keeps_its_data() {
    let _turn = Turn::take();
    let disk = copy_of(webapp_image(), "changed.qcow2");
    let guest = boot_until_well(&machine_on(&disk));
    let write = |text: &str| {
        guest.run_ok(&format!("curl -fsS -d text={text} http://10.8.0.1:8000/notes")).expect("it is written");
    };
    let notes = || guest.run_ok("curl -fsS http://10.8.0.1:8000/notes").expect("it answers");
    write("before");
    make_package(&guest);
    let (status, text, error) = said(&guest, "kpkg install --name probed kld-probe");
    assert_eq!(status, 0, "{text}\n{error}");
    let absent = "! test -e /usr/share/kld-probe && ! id kldprobe";
    guest.run_ok(absent).expect("nothing of what runs has changed");

    assert_eq!(restart(&guest, "probed"), 1);
    wait_until_well(&guest);
    guest.run_ok("systemctl is-active kld-probe && id kldprobe").expect("its service runs");
    assert!(notes().contains("before"), "{}", notes());
    write("meanwhile");

    let (status, text, error) = said(&guest, "kbe activate debian");
    assert_eq!(status, 0, "{text}\n{error}");
    assert_eq!(restart(&guest, "debian"), 1);
    wait_until_well(&guest);
    guest.run_ok(absent).expect("it is as it was");
    assert!(notes().contains("before") && notes().contains("meanwhile"), "{}", notes());
}
