//! A package in another version is in use once what runs it has started again.

use std::fs;

use kld_vm::Guest;

use crate::apply::{OFFER, give, kldload};
use crate::fixture::{BOOT, webapp, webapp_image};

const DIR: &str = "/root/replaced";

/// An archive that has `kld-greet`, a program that waits, in this version; what is installed stays.
fn offer(guest: &Guest, version: &str) {
    let script = format!(
        r#"
        set -e
        rm -rf /root/debs; mkdir -p /root/debs/p/DEBIAN /root/debs/p/usr/bin; cd /root/debs
        cp /usr/bin/sleep p/usr/bin/kld-greet; echo {version} >> p/usr/bin/kld-greet
        printf 'Package: kld-greet\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <n@example.com>\nDescription: waits\n' > p/DEBIAN/control
        {OFFER}"#
    );
    let made = guest.run_for(&script, BOOT).expect("it answers");
    assert!(made.is_ok(), "{}", made.error_text());
    let lock = fs::read_to_string(format!("{}.lock", webapp_image().display())).expect("it has one");
    let package =
        format!("\n[[package]]\nname = \"kld-greet\"\narchitecture = \"all\"\nversion = \"{version}\"\n");
    let path = format!("{DIR}/appliance.manifest.lock");
    guest.write_file(&path, (lock + &package).as_bytes(), 0o644).expect("written");
}

#[test]
fn a_service_whose_program_is_replaced_starts_again_and_no_other_does() {
    let guest = webapp();
    let service = "  - unit:         webapp.service\n";
    let greeter = "  - unit:         greet.service\n    command:      /usr/bin/kld-greet infinity\n    user:         webapp\n";
    let manifest =
        [("packages:  curl,", "packages:  curl, kld-greet,"), (service, &*format!("{greeter}{service}"))];
    give(&guest, DIR, &manifest);
    let run = |words: &str, want: i32| {
        let (status, said, error) = kldload(&guest, &format!("{words} {DIR}/appliance.manifest"));
        assert_eq!(status, want, "{words}: {said}\n{error}");
        said
    };
    let processes = || {
        let show = "systemctl show -P MainPID greet.service webapp.service postgresql@17-main.service";
        let said = guest.run_ok(show).expect("they run");
        said.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    offer(&guest, "1.0");
    run("apply --yes", 0);
    let before = processes();

    offer(&guest, "2.0");
    let said = run("plan", 3);
    let because = "because it runs /usr/bin/kld-greet, which its package replaces";
    assert!(said.contains("greet.service") && said.contains(because), "{said}");
    run("apply --yes", 0);
    let after = processes();
    assert!(before[0] != after[0] && before[1..] == after[1..], "{before:?}, then {after:?}");
    let runs = format!("readlink /proc/{}/exe; tail -c 4 /proc/{0}/exe; dpkg-query -W kld-greet", after[0]);
    assert_eq!(guest.run_ok(&runs).expect("it runs"), "/usr/bin/kld-greet\n2.0\nkld-greet\t2.0");
    run("plan", 0);
}
