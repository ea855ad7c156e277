//! A machine with three environments, what may be done with it, and what kills it meanwhile.

use std::collections::BTreeSet;

use kld_boot::{BootError, Looked, Maker, Origin, Plan, carry_out, create, leftovers, plan_destroy};

use super::{Cut, Disk, ESPS, Fake};

pub(crate) type Begin = fn() -> Fake;
pub(crate) type Act = fn(&Fake) -> Result<(), BootError>;

pub(crate) fn name(text: &str) -> kld_boot::BootEnvironmentName {
    text.parse().expect("a name")
}

pub(crate) fn make(fake: &Fake, what: &str, from: &Origin) -> Result<(), BootError> {
    create(fake, &name(what), from, Maker::Person, &mut |_| ())
}

pub(crate) fn run(fake: &Fake, plan: &Plan) -> Result<(), BootError> {
    Ok(carry_out(fake, plan, &mut |_| ())?)
}

pub(crate) fn destroy(fake: &Fake, what: &str) -> Result<(), BootError> {
    run(fake, &plan_destroy(&Looked::before_change(fake)?, what)?)
}

pub(crate) fn clear(fake: &Fake) {
    let actions = leftovers(&Looked::before_change(fake).expect("readable")).actions;
    run(fake, &Plan { actions, ..Plan::default() }).expect("it is cleared");
    let again = leftovers(&Looked::at(fake).expect("readable"));
    assert_eq!(again.actions, [], "clearing clears all of it");
}

/// Debian, an upgraded clone with a kernel of its own, and a clone of the first that shares everything.
pub(crate) fn three() -> Fake {
    let fake = Fake::new();
    make(&fake, "upgraded", &Origin::Running).expect("made");
    fake.install_kernel("rpool/ROOT/upgraded", "6.12.2");
    fake.change(|state| {
        // As `kupgrade` will, and as an administrator does: the entry of the new kernel comes with it.
        state.disk.fat.retain(|path, _| !path.ends_with("upgraded.conf"));
    });
    fake.make_entry("rpool/ROOT/upgraded", "6.12.2");
    make(&fake, "spare", &Origin::Running).expect("made");
    fake
}

/// One boot partition was replaced by an empty one.
pub(crate) fn replaced() -> Fake {
    let fake = three();
    fake.change(|state| {
        let keep = |path: &str| {
            path.contains("systemd") || path.contains("debian.conf") || path.ends_with("loader.conf")
        };
        let needed: Vec<String> =
            state.disk.fat.keys().filter(|path| path.starts_with("/efi2/EFI/kldload")).cloned().collect();
        let of_debian = [b"kernel 6.12.1".to_vec(), "initrd 6.12.1".repeat(9).into_bytes()];
        for path in needed {
            if !of_debian.contains(&state.disk.fat[&path]) {
                state.disk.fat.remove(&path);
            }
        }
        state.disk.fat.retain(|path, _| !path.starts_with("/efi2/loader") || keep(path));
    });
    fake
}

/// What each boot partition starts.
pub(crate) fn starts(fake: &Fake) -> BTreeSet<String> {
    let disk = fake.disk();
    let start = |esp| disk.would_start(esp).unwrap_or_else(|error| panic!("{esp}: {error}\n{disk:#?}")).1;
    ESPS.map(start).into()
}

/// Kills `act` after each of its changes, in each way a file can be cut off; after each start, clears, and acts again.
pub(crate) fn dies_anywhere(what: &str, begin: Begin, act: Act, is_refused_when_done: bool) {
    let fake = begin();
    let before = starts(&fake);
    act(&fake).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let after = starts(&fake);
    let done = fake.disk();
    let mut deaths = 0;
    for cut in [Cut::Old, Cut::Empty, Cut::New] {
        for fuel in 0.. {
            let fake = begin();
            fake.die_after(fuel, cut);
            if act(&fake).is_ok() {
                break;
            }
            deaths += 1;
            let context = format!("{what}, dead after {fuel}, {cut:?}");
            for started in starts(&fake) {
                assert!(before.contains(&started) || after.contains(&started), "{context}: {started}");
            }
            fake.start().unwrap_or_else(|error| panic!("{context}: {error}"));
            // Before anybody has cleared anything, and after.
            starts(&fake);
            clear(&fake);
            let cleared = starts(&fake);
            assert!(
                cleared.iter().all(|of| before.contains(of) || after.contains(of)),
                "{context}: {cleared:?}"
            );
            match act(&fake) {
                Ok(()) => {}
                Err(BootError::Exists { .. } | BootError::NoSuch { .. }) if is_refused_when_done => {}
                Err(error) => panic!("{context}: {error:?}"),
            }
            let now = fake.disk();
            assert_eq!(starts(&fake), after, "{context}");
            let names = |disk: &Disk| disk.datasets.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&now), names(&done), "{context}");
            let origins = |disk: &Disk| disk.snapshots.len();
            assert_eq!(origins(&now), origins(&done), "{context}");
            let files = |disk: &Disk| disk.fat.keys().cloned().collect::<Vec<_>>();
            assert_eq!(files(&now), files(&done), "{context}");
            assert!(
                now.datasets.values().all(|of| !of.own.contains_key("org.kldload:kbe-state")),
                "{context}"
            );
        }
    }
    assert!(deaths >= 3, "{what} changes something: {deaths}");
}
