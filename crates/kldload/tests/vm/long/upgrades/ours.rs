//! Packages changed on a machine that kldload has built: services in sandboxes, data beside the clones.

use super::{restart, said};
use crate::apply::make_package;
use crate::fixture::{BOOT, boot_until_well, copy_of, machine_on, wait_until_well, webapp_image};
use crate::turn::Turn;

/// Beside the others of the archive: a package after which nobody would get in, and one with files that images leave out.
const MORE: &str = r#"
    set -e; cd /root/debs
    control() {
        mkdir -p p/DEBIAN
        printf 'Package: %s\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <n@example.com>\nDescription: made for a test\n' $1 > p/DEBIAN/control
    }
    add() {
        dpkg-deb --root-owner-group --build p $1.deb > /dev/null
        { echo; dpkg-deb -f $1.deb; echo "Filename: ./$1.deb"; echo "Size: $(stat -c %s $1.deb)"; echo "SHA256: $(sha256sum $1.deb | cut -d' ' -f1)"; } >> Packages
        rm -r p
    }
    control closes-ssh; mkdir -p p/etc/ssh/sshd_config.d
    echo 'BadOption yes' > p/etc/ssh/sshd_config.d/90-closes.conf
    add closes-ssh
    control documented; mkdir -p p/usr/share/doc/documented p/usr/share/man/man1
    for file in doc/documented/README doc/documented/copyright man/man1/documented.1; do echo x > p/usr/share/$file; done
    (cd p; find usr -type f -exec md5sum {} + > DEBIAN/md5sums)
    add documented"#;

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
    let package = guest.run_for(MORE, BOOT).expect("it answers");
    assert!(package.is_ok(), "{}", package.error_text());
    let (status, text, error) = said(&guest, "kpkg install closes-ssh");
    assert!(status == 1 && error.contains("sshd: ") && error.contains("BadOption"), "{text}\n{error}");
    guest.run_ok("sshd -t && ! test -e /etc/ssh/sshd_config.d/90-closes.conf").expect("as before");
    let (status, text, error) = said(&guest, "kpkg install --name probed kld-probe documented");
    assert_eq!(status, 0, "{text}\n{error}");
    let absent = "! test -e /usr/share/kld-probe && ! id kldprobe";
    guest.run_ok(absent).expect("nothing of what runs has changed");

    assert_eq!(restart(&guest, "probed"), 1);
    wait_until_well(&guest);
    guest.run_ok("systemctl is-active kld-probe && id kldprobe").expect("its service runs");
    // What an image leaves out is left out here too, and nothing is wrong with that.
    let left_out = "cd /usr/share; test -e doc/documented/copyright && ! test -e doc/documented/README && ! test -e man/man1/documented.1";
    guest.run_ok(left_out).expect("as the image says");
    assert!(notes().contains("before"), "{}", notes());
    write("meanwhile");

    let (status, text, error) = said(&guest, "kbe activate debian");
    assert_eq!(status, 0, "{text}\n{error}");
    assert_eq!(restart(&guest, "debian"), 1);
    wait_until_well(&guest);
    guest.run_ok(absent).expect("it is as it was");
    assert!(notes().contains("before") && notes().contains("meanwhile"), "{}", notes());
}
