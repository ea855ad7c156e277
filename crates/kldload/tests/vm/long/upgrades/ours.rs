//! Packages changed on a machine that kldload has built: services in sandboxes, data beside the clones.

use super::{restart, said};
use crate::apply::make_package;
use crate::fixture::{BOOT, boot_until_well, copy_of, machine_on, wait_until_well, webapp_image};
use crate::turn::Turn;

/// A package after which nobody would get in, beside the others of the archive.
const CLOSES_SSH: &str = r#"
    set -e; cd /root/debs
    mkdir -p p/DEBIAN p/etc/ssh/sshd_config.d
    printf 'Package: closes-ssh\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <n@example.com>\nDescription: a fault\n' > p/DEBIAN/control
    echo 'BadOption yes' > p/etc/ssh/sshd_config.d/90-closes.conf
    dpkg-deb --root-owner-group --build p closes-ssh.deb > /dev/null
    { echo; dpkg-deb -f closes-ssh.deb; echo "Filename: ./closes-ssh.deb"; echo "Size: $(stat -c %s closes-ssh.deb)"; echo "SHA256: $(sha256sum closes-ssh.deb | cut -d' ' -f1)"; } >> Packages
    rm -r p"#;

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
    let package = guest.run_for(CLOSES_SSH, BOOT).expect("it answers");
    assert!(package.is_ok(), "{}", package.error_text());
    let (status, text, error) = said(&guest, "kpkg install closes-ssh");
    assert!(status == 1 && error.contains("sshd: ") && error.contains("BadOption"), "{text}\n{error}");
    guest.run_ok("sshd -t && ! test -e /etc/ssh/sshd_config.d/90-closes.conf").expect("as before");
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
