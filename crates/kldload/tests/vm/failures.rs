//! Each way in which a step of an apply fails, with the tools' own words, and nothing left of it.

use kld_vm::Guest;

use crate::apply::{STATE, assert_same, give, kldload, make_package, rich_manifest};
use crate::fixture::{BOOT, say, webapp};

/// Where the manifests lie in the machine.
const DIR: &str = "/root/failing";

/// An apply that comes to nothing.
struct Case {
    name: &'static str,
    /// What the manifest says besides: texts of [`rich_manifest`] and others for them.
    replaced: &'static [(&'static str, &'static str)],
    /// What is done to the machine before, and what ends that.
    prepare: &'static str,
    end: &'static str,
    /// What failed, and what its tool says.
    says: &'static [&'static str],
}

/// What every apply says that was begun and undone.
const UNDONE: &str = "and everything is as it was before";

const CASES: [Case; 8] = [
    Case {
        name: "a dataset has no room for a file",
        replaced: &[(
            "  /usr/local/lib/webapp/app.py:  app.py\n",
            "  /usr/local/lib/webapp/app.py:  app.py\n  /srv/webapp/archive:  archive\n",
        )],
        prepare: "head -c 8M /dev/urandom > /root/failing/archive; \
             zfs set refquota=$(($(zfs get -Hp -o value referenced rpool/srv/webapp) + 2000000)) rpool/srv/webapp",
        end: "zfs set refquota=none rpool/srv/webapp; rm /root/failing/archive",
        says: &["failed at file /srv/webapp/archive", "Disk quota exceeded", UNDONE],
    },
    Case {
        name: "the pool has no room for a package",
        replaced: &[("curl, kld-probe,", "curl, kld-probe, kld-fat,")],
        // It says that it is small, and finds out what the reservation of another has left.
        prepare: "zpool sync; zfs create -o canmount=off \
             -o reservation=$(($(zfs get -Hp -o value available rpool) - (90 << 20))) rpool/hog",
        end: "zfs destroy rpool/hog",
        says: &["failed at package", "No space left on device", UNDONE],
    },
    Case {
        name: "a package's own script fails",
        replaced: &[("curl, kld-probe,", "curl, kld-probe, kld-broken,")],
        prepare: "",
        end: "",
        says: &["failed at package", "the probe cannot be set up", UNDONE],
    },
    Case {
        name: "a package is listed and not there",
        replaced: &[("curl, kld-probe,", "curl, kld-probe, kld-gone,")],
        prepare: "",
        end: "",
        says: &["failed at package", "kld-gone.deb", "File not found", UNDONE],
    },
    Case {
        name: "a package is not known",
        replaced: &[("curl, kld-probe,", "curl, kld-probe, kld-unknown,")],
        prepare: "",
        end: "",
        says: &["cannot plan `kld-probe, kld-unknown`", "Unable to locate package kld-unknown"],
    },
    Case {
        name: "another listens on the port",
        replaced: &[
            ("TCP 8000 guest book, TCP 8001 spare,", "TCP 8001 guest book,"),
            ("${WG0_ADDRESS}:8000", "${WG0_ADDRESS}:8001"),
            ("wg0:8000", "wg0:8001"),
        ],
        prepare: "install -d /run/empty; systemd-run --quiet --unit=the-other --working-directory=/run/empty \
             python3 -m http.server --bind 10.8.0.1 8001; \
             for i in $(seq 50); do ss -Hltn 'sport = :8001' | grep -q . && break; sleep 0.2; done",
        end: "systemctl is-active the-other && systemctl stop the-other",
        says: &["failed at verify", "the guest book answers", "404", UNDONE],
    },
    Case {
        name: "a unit does not start",
        replaced: &[(
            "/usr/bin/gunicorn --bind ${WG0_ADDRESS}:8000 --workers 1 --preload --chdir /usr/local/lib/webapp app:app",
            "/usr/bin/false",
        )],
        prepare: "",
        end: "",
        // Beside what may have failed before: snapshots that were due while the pool had no room.
        says: &["failed at verify", "services: ", "webapp.service ", UNDONE],
    },
    Case {
        name: "somebody is in a dataset that is to move",
        replaced: &[(
            "compression=zstd-3  atime=off",
            "compression=zstd-3  atime=off  mountpoint=/srv/elsewhere",
        )],
        prepare: "systemd-run --quiet --unit=the-other --working-directory=/srv/webapp sleep infinity",
        end: "systemctl is-active the-other && systemctl stop the-other",
        says: &["cannot plan `rpool/srv/webapp`", "is busy: ", "the-other.service works in /srv/webapp"],
    },
];

/// Packages beside that of [`make_package`]: one whose script fails, one that the archive has lost, one of 120 MB that says
/// that it takes nothing.
const MORE_PACKAGES: &str = r#"
    set -e
    cd /root/debs
    for name in kld-broken kld-gone kld-fat; do
        mkdir -p p/DEBIAN p/usr/share/$name
        printf 'Package: %s\nVersion: 1.0\nArchitecture: all\nInstalled-Size: 10\nMaintainer: nobody <n@example.com>\nDescription: a probe\n' $name > p/DEBIAN/control
        case $name in
            kld-broken)
                printf '#!/bin/sh\necho the probe cannot be set up >&2\nexit 7\n' > p/DEBIAN/postinst
                chmod 755 p/DEBIAN/postinst;;
            kld-fat)
                for i in 1 2 3 4 5 6; do head -c 20M /dev/urandom > p/usr/share/$name/$i; done;;
        esac
        dpkg-deb -Znone --root-owner-group --build p $name.deb > /dev/null
        { echo; dpkg-deb -f $name.deb; echo "Filename: ./$name.deb"; echo "Size: $(stat -c %s $name.deb)"; echo "SHA256: $(sha256sum $name.deb | cut -d' ' -f1)"; } >> Packages
        rm -r p
    done
    rm kld-gone.deb
    apt-get update -q
"#;

#[test]
fn an_apply_that_fails_leaves_nothing_whatever_fails() {
    let guest = webapp();
    make_package(&guest);
    what_is_refused_touches_nothing(&guest);
    run(&guest, MORE_PACKAGES);
    for case in CASES {
        let replaced: Vec<_> = rich_manifest().into_iter().chain(case.replaced.iter().copied()).collect();
        give(&guest, DIR, &replaced);
        run(&guest, case.prepare);
        let before = guest.run_ok(STATE).expect("readable");
        let (status, said, error) =
            kldload(&guest, &format!("apply --yes --within 12 {DIR}/appliance.manifest"));
        assert_eq!(status, 1, "{}: {said}\n{error}", case.name);
        for words in case.says {
            assert!(error.contains(words), "{}: {words:?} in {error}", case.name);
        }
        say(format_args!("{}", case.name));
        assert_same(&before, &guest.run_ok(STATE).expect("readable"));
        run(&guest, case.end);
    }
    // None of them is in the way of the next one.
    let history = guest.run_ok("kldload history --json").expect("it answers");
    assert!(!history.contains("interrupted") && !history.contains("committed"), "{history}");
    who_has_enough_goes_back_at_once(&guest);
    the_next_apply_takes_back_what_was_killed(&guest);
    a_start_takes_back_what_nobody_has_confirmed(&guest);
}

/// Pools that are not there or cannot, and who does not say yes.
fn what_is_refused_touches_nothing(guest: &Guest) {
    give(guest, DIR, &rich_manifest());
    let before = guest.run_ok(STATE).expect("readable");
    let history = guest.run_ok("kldload history --json").expect("it answers");
    let told = |words: &str| kldload(guest, &format!("{words} {DIR}/appliance.manifest < /dev/null"));
    let (status, said, error) = told("apply --dry-run");
    assert!(status == 3 && said.contains("+ package  kld-probe"), "{said}\n{error}");
    let (status, said, error) = told("apply");
    assert!(status == 1 && error.contains("nothing was changed: not confirmed"), "{said}\n{error}");
    let tank = [rich_manifest(), vec![("rpool/", "tank/")]].concat();
    give(guest, DIR, &tank);
    for verb in ["plan", "apply --yes"] {
        let (status, said, error) = told(verb);
        assert!(status == 1 && error.contains("there is no pool `tank`"), "{verb}: {said}\n{error}");
    }
    let elsewhere = [tank, vec![("mountpoint=/var/lib/postgresql", "mountpoint=/srv/elsewhere")]].concat();
    give(guest, DIR, &elsewhere);
    // A pool of the first version that there were features in, with none of them.
    run(guest, "truncate -s 96M /var/tmp/tank && zpool create -d -O mountpoint=none tank /var/tmp/tank");
    for verb in ["plan", "apply --yes"] {
        let (status, said, error) = told(verb);
        for words in ["the pool has no feature `", "which `", "` needs", "`zpool set feature@"] {
            assert!(status == 1 && error.contains(words), "{verb}: {words:?} in {said}\n{error}");
        }
    }
    let datasets = guest.run_ok("zfs list -H -o name -r tank").expect("it is there");
    assert_eq!(datasets, "tank", "nothing was made in it");
    run(guest, "zpool destroy tank && rm /var/tmp/tank");
    assert_eq!(guest.run_ok("kldload history --json").expect("it answers"), history, "nothing was begun");
    assert_same(&before, &guest.run_ok(STATE).expect("readable"));
}

/// Begins an apply, and sends it and all its children a signal, as a terminal does, when it makes its fifth step.
fn signalled(guest: &Guest, signal: &str) -> (i32, String) {
    let script = format!(
        "setsid kldload apply --yes {DIR}/appliance.manifest > /run/signalled 2>&1 & process=$!
         until grep -q '^\\[5/' /run/signalled; do kill -0 $process || exit 99; sleep 0.05; done
         kill -{signal} -- -$process; sleep 0.5; kldload history > /run/history; wait $process; status=$?; cat /run/signalled; exit $status"
    );
    let output = guest.run_for(&script, BOOT).expect("it answers");
    (output.status, output.text())
}

/// Ctrl-C is an answer at once. A connection that is lost is none: it may be what the change is about.
fn who_has_enough_goes_back_at_once(guest: &Guest) {
    give(guest, DIR, &rich_manifest());
    let before = guest.run_ok(STATE).expect("readable");
    for signal in ["INT", "TERM"] {
        let (status, said) = signalled(guest, signal);
        for words in ["told to stop: ", " was stopped before ", UNDONE] {
            assert!(status == 1 && said.contains(words), "{signal}: {words:?} in {said}");
        }
        assert!(!said.contains("[7/"), "{signal}: {said}");
        assert_same(&before, &guest.run_ok(STATE).expect("readable"));
    }
    let history = guest.run_ok("kldload history --json").expect("it answers");
    assert!(history.contains("told to stop before ") && !history.contains("interrupted"), "{history}");
    let (status, said) = signalled(guest, "HUP");
    assert!(status == 0 && said.contains("is done: the machine is as the manifest says"), "{said}");
    run(guest, "grep ' under way ' /run/history && ! grep interrupted /run/history");
    run(guest, "kldload undo --yes --overwrite");
}

/// Nobody need know of `kldload recover`: the same command again is enough.
fn the_next_apply_takes_back_what_was_killed(guest: &Guest) {
    let (status, said) = signalled(guest, "KILL");
    assert!(status == 137 && !said.contains(" is done"), "{status}: {said}");
    run(guest, "grep ' interrupted ' /run/history && ! grep 'under way' /run/history");
    let (status, said, error) = kldload(guest, &format!("apply --yes {DIR}/appliance.manifest"));
    assert!(status == 0 && error.contains(" was interrupted"), "{said}\n{error}");
    assert!(said.contains("+ dataset  rpool/srv/webapp-cache"), "planned on what was before: {said}");
    let (status, said, error) = kldload(guest, &format!("plan {DIR}/appliance.manifest"));
    assert_eq!(status, 0, "{said}\n{error}");
    run(guest, "kldload undo --yes --overwrite");
}

/// Whoever is locked out presses reset.
fn a_start_takes_back_what_nobody_has_confirmed(guest: &Guest) {
    let state = || {
        // Packages stay, and the environment of before them.
        let state = guest.run_ok(STATE).expect("readable");
        let lines = state.lines().filter(|line| !line.contains("rpool/ROOT/apply-"));
        lines.collect::<Vec<_>>().join("\n")
    };
    // The package has stayed, switched on as at any first installation: the next start would start its service, too.
    run(guest, "systemctl is-enabled kld-probe.service && systemctl start kld-probe.service");
    let before = state();
    run(guest, &format!("kldload apply --yes --confirm-within 1h {DIR}/appliance.manifest"));
    guest.reboot(BOOT, |_| ()).expect("it reboots");
    guest.wait_system(BOOT, |_| ()).expect("the units settle");
    let history = guest.run_ok("kldload history").expect("it answers");
    assert!(history.contains("nobody has confirmed it: taken back by kldload"), "{history}");
    assert_same(&before, &state());
}

fn run(guest: &Guest, script: &str) {
    let output = guest.run_for(script, BOOT).expect("it answers");
    assert!(output.is_ok(), "{script}: {}", output.error_text());
}
