//! What must hold of environments on trial: whatever kills the machine on the way, and whatever the new system does, the
//! start after it is whole, and without a word from the new system it is the old one.

#![expect(clippy::print_stderr, reason = "how many deaths there were is a result")]

mod support;

use kld_boot::{
    BootError, Looked, Maker, Origin, Plan, Starts, Trial, activate, carry_out, create, fail_trial,
    is_on_trial, leftovers, pass_trial, plan_activate, plan_destroy, plan_pass_trial, try_out, unequal,
};
use support::deaths::{clear, name, starts};
use support::{Cut, ESPS, Fake, mark_good};

const OLD: &str = "rpool/ROOT/debian";
const NEW: &str = "rpool/ROOT/new";

/// A package manager that puts a new kernel into the clone, file by file; it can be killed between any two.
fn upgrade(fake: &Fake, dataset: &str) -> Result<Option<String>, BootError> {
    let files = [
        ("/boot/vmlinuz-6.12.2", b"kernel 6.12.2".to_vec()),
        ("/boot/initrd.img-6.12.2", "initrd 6.12.2".repeat(9).into_bytes()),
        ("/usr/lib/modules/6.12.2/modules.dep", b"x".to_vec()),
    ];
    for (path, bytes) in files {
        let mut state = fake.state();
        state.burn()?;
        let clone = state.disk.datasets.get_mut(dataset).expect("it was made");
        clone.files.insert(path.to_owned(), bytes);
    }
    Ok(Some("6.12.2".to_owned()))
}

fn kupgrade(fake: &Fake) -> Result<bool, BootError> {
    try_out(fake, &name("new"), &Origin::Running, |dataset| upgrade(fake, dataset), &mut |_| ())
}

/// A machine whose next start is the upgraded one.
fn upgraded() -> Fake {
    let fake = Fake::new();
    mark_good(&fake).expect("remembered");
    assert!(kupgrade(&fake).expect("upgraded"));
    fake
}

/// A machine that has started the upgraded one.
fn on_trial() -> Fake {
    let fake = upgraded();
    assert_eq!(fake.start().as_deref(), Ok(NEW));
    fake
}

fn trial(fake: &Fake) -> Option<Trial> {
    Looked::at(fake).expect("readable").environment("new").expect("it is there").trial.clone()
}

#[test]
fn it_is_started_once_and_then_everything_is_as_before() {
    let fake = upgraded();
    let looked = Looked::at(&fake).expect("readable");
    assert_eq!(looked.default_environment().map(|of| of.name()), Some("debian"));
    assert_eq!(looked.once().map(|of| of.name()), Some("new"));
    assert!(!looked.was_tried(looked.environment("new").expect("there")));
    let entry = &fake.disk().fat["/efi2/loader/entries/new+1.conf"];
    let entry = String::from_utf8_lossy(entry);
    assert!(entry.contains("version 6.12.2\n") && entry.ends_with("options panic=10\n"), "{entry}");
    // The kernel that runs is not touched.
    assert!(!fake.disk().datasets[OLD].files.contains_key("/boot/vmlinuz-6.12.2"));

    assert_eq!(fake.start().as_deref(), Ok(NEW));
    assert!(fake.disk().fat.contains_key("/efi/loader/entries/new+0-1.conf"));
    // It panics, it hangs, the power fails: it says nothing.
    for _ in 0..3 {
        assert_eq!(fake.start().as_deref(), Ok(OLD));
    }
    let looked = Looked::at(&fake).expect("readable");
    let new = looked.environment("new").expect("there");
    assert!(looked.was_tried(new) && new.trial == Some(Trial::Waiting));
    assert_eq!(leftovers(&looked).actions, [], "it is there to be looked into");
    carry_out(&fake, &plan_destroy(&looked, "new").expect("nobody needs it"), &mut |_| ()).expect("gone");
    assert_eq!(fake.start().as_deref(), Ok(OLD));
}

#[test]
fn when_it_is_well_it_stays() {
    let fake = on_trial();
    let before = fake.disk();
    let (planned, shown) = plan_pass_trial(&fake).expect("possible");
    assert_eq!(fake.disk(), before, "nothing is changed");
    let mut done = Vec::new();
    assert_eq!(pass_trial(&fake, &mut |action| done.push(action.clone())).expect("passed"), "new");
    assert_eq!((planned.actions, shown.as_str()), (done, "new"));
    assert_eq!(trial(&fake), None);
    for _ in 0..2 {
        assert_eq!(fake.start().as_deref(), Ok(NEW));
    }
    assert_eq!(starts(&fake), [NEW.to_owned()].into());
    let disk = fake.disk();
    for esp in ESPS {
        let entries: Vec<&str> =
            disk.fat.keys().filter_map(|of| of.strip_prefix(&format!("{esp}/loader/entries/"))).collect();
        assert_eq!(entries, ["debian.conf", "new.conf"]);
        let entry =
            String::from_utf8_lossy(&disk.fat[&format!("{esp}/loader/entries/new.conf")]).into_owned();
        assert!(!entry.contains("panic="), "{entry}");
    }
    let looked = Looked::at(&fake).expect("readable");
    assert_eq!(looked.last_good().map(|of| of.name()), Some("new"));
    assert_eq!(looked.default_id().as_deref(), Some("new.conf"));
    // What is made from it is not on trial.
    create(&fake, &name("next"), &Origin::Running, Maker::Person, &mut |_| ()).expect("made");
    assert_eq!(Looked::at(&fake).expect("readable").environment("next").expect("there").trial, None);
}

/// It counts tries there, and nothing says any more that it passed.
#[test]
fn a_boot_partition_that_was_away_while_it_passed_counts_no_tries() {
    for away in ESPS {
        let fake = on_trial();
        let before = fake.disk().fat;
        pass_trial(&fake, &mut |_| ()).expect("passed");
        fake.change(|state| {
            state.disk.fat.retain(|path, _| !path.starts_with(&format!("{away}/")));
            state
                .disk
                .fat
                .extend(before.into_iter().filter(|(path, _)| path.starts_with(&format!("{away}/"))));
        });
        let found = unequal(&Looked::at(&fake).expect("readable"));
        assert!(found.mended.contains(&format!("`{away}` still counts tries of `new`")), "{found:?}");
        assert_eq!(found.stays, [""; 0]);
        carry_out(&fake, &Plan { actions: found.actions, ..Plan::default() }, &mut |_| ()).expect("mended");
        let files: Vec<String> = fake.disk().fat.into_keys().collect();
        assert!(!files.iter().any(|path| path.contains('+')), "{files:?}");
        clear(&fake);
        assert_eq!(unequal(&Looked::at(&fake).expect("readable")), Default::default());
    }
}

/// Its units have no other way to know, and a system that must not be judged restarts for nothing.
#[test]
fn who_must_prove_itself_says_the_property_alone() {
    let is = |fake: &Fake| is_on_trial(fake).expect("the pool answers");
    let fake = on_trial();
    assert!(is(&fake));
    // A clone of it has its files, and nothing to prove.
    create(&fake, &name("clone"), &Origin::Running, Maker::Person, &mut |_| ()).expect("made");
    activate(&fake, "clone", Starts::Once, &mut |_| ()).expect("activated");
    fake.start().expect("it starts");
    assert!(!is(&fake));
    let fake = on_trial();
    pass_trial(&fake, &mut |_| ()).expect("passed");
    assert!(!is(&fake));
    // Without its boot partitions it is the same.
    fake.change(|state| state.disk.fat.clear());
    assert!(Looked::at(&fake).is_err() && !is(&fake));
    let fake = on_trial();
    fake.change(|state| state.disk.fat.clear());
    assert!(Looked::at(&fake).is_err() && is(&fake));
    // One that has failed is here to be looked into.
    fail_trial(&fake, "no", &mut |_| ()).expect_err("the reason is kept, and the rest cannot be seen");
    assert!(!is(&fake));
}

#[test]
fn when_it_is_not_well_the_reason_is_kept() {
    let fake = on_trial();
    fail_trial(&fake, "services: app.service\n failed", &mut |_| ()).expect("remembered");
    assert_eq!(trial(&fake), Some(Trial::Failed("services: app.service failed".to_owned())));
    assert_eq!(fake.start().as_deref(), Ok(OLD));
    // Somebody has made it the default, and it is not well: it makes way for the last that was.
    let fake = on_trial();
    activate(&fake, "new", Starts::Always, &mut |_| ()).expect("activated");
    assert_eq!(fake.start().as_deref(), Ok(NEW));
    fail_trial(&fake, "no", &mut |_| ()).expect("remembered");
    assert_eq!(fake.start().as_deref(), Ok(OLD));
    assert_eq!(starts(&fake), [OLD.to_owned()].into());
}

/// Machines whose loader takes what was started last for the default, by `loader.conf` or by its variable, old and new.
fn saving() -> [fn() -> Fake; 4] {
    [
        || Fake::new().with_saved_default(false),
        || Fake::new().with_saved_default(true),
        || Fake::new().with_saved_default(false).with_new_loader(),
        || Fake::new().with_saved_default(true).with_new_loader(),
    ]
}

#[test]
fn what_was_tried_is_not_what_was_started_last() {
    for begin in saving() {
        let fake = begin();
        assert!(kupgrade(&fake).expect("upgraded"));
        assert_eq!(fake.start().as_deref(), Ok(NEW));
        for _ in 0..2 {
            assert_eq!(fake.start().as_deref(), Ok(OLD));
        }
        // Somebody has made it so again, and tries once more, with a boot partition that lacks it.
        let again = fake.with_saved_default(true);
        again.change(|state| state.disk.fat.retain(|path, _| !path.starts_with("/efi2/loader/entries/new")));
        let shown = plan_activate(&again, "new", Starts::Once).expect("possible");
        let done = activate(&again, "new", Starts::Once, &mut |_| ()).expect("activated");
        assert_eq!(shown.actions, done.actions);
        assert_eq!(again.start().as_deref(), Ok(NEW));
        assert_eq!(again.start().as_deref(), Ok(OLD));

        let fake = begin();
        assert!(kupgrade(&fake).expect("upgraded"));
        assert_eq!(fake.start().as_deref(), Ok(NEW));
        pass_trial(&fake, &mut |_| ()).expect("passed");
        assert_eq!(fake.start().as_deref(), Ok(NEW));
        assert_eq!(starts(&fake), [NEW.to_owned()].into());
    }
}

#[test]
fn another_try_of_one_that_failed_starts_no_other_of_a_longer_name() {
    let fake = on_trial();
    assert_eq!(fake.start().as_deref(), Ok(OLD));
    create(&fake, &name("new.er"), &Origin::Running, Maker::Person, &mut |_| ()).expect("made");
    activate(&fake, "new", Starts::Once, &mut |_| ()).expect("activated");
    assert_eq!(fake.start().as_deref(), Ok(NEW));
    assert_eq!(fake.start().as_deref(), Ok(OLD));
}

#[test]
fn a_change_that_changes_nothing_or_fails_leaves_nothing() {
    for result in [Ok(None), Err(BootError::NotMounted { name: "x".to_owned() })] {
        let fake = Fake::new();
        let before = fake.disk();
        let is_error = result.is_err();
        let tried = try_out(&fake, &name("new"), &Origin::Running, |_| result, &mut |_| ());
        assert_eq!(tried.ok(), (!is_error).then_some(false));
        assert_eq!(fake.disk(), before);
    }
    // A boot partition without room is seen when the kernel is known, and nothing is written.
    let fake = Fake::new();
    fake.change(|state| {
        state.disk.fat.insert("/efi2/other".to_owned(), vec![0; 8 << 20]);
    });
    let before = fake.disk();
    let large = |dataset: &str| -> Result<Option<String>, BootError> {
        let release = upgrade(&fake, dataset)?;
        fake.change(|state| {
            let clone = state.disk.datasets.get_mut(dataset).expect("it was made");
            clone.files.insert("/boot/initrd.img-6.12.2".to_owned(), vec![7; 6 << 20]);
        });
        Ok(release)
    };
    let tried = try_out(&fake, &name("new"), &Origin::Running, large, &mut |_| ());
    assert!(matches!(tried, Err(BootError::Full { ref mount, .. }) if mount == "/efi2"), "{tried:?}");
    assert_eq!(fake.disk(), before);
    // Without the variable nothing would start it once.
    let fake = Fake::new();
    fake.change(|state| state.disk.variables.clear());
    let before = fake.disk();
    assert!(matches!(kupgrade(&fake), Err(BootError::NoOneShot { .. })));
    assert_eq!(fake.disk(), before);
}

#[test]
fn a_machine_that_dies_while_it_is_upgraded_starts_as_before() {
    let mut deaths = 0;
    let begins = [Fake::new as fn() -> Fake].into_iter().chain(saving()).enumerate();
    for ((which, begin), cut) in
        begins.flat_map(|begin| [Cut::Old, Cut::Empty, Cut::New].map(|cut| (begin, cut)))
    {
        for fuel in 0.. {
            let fake = begin();
            fake.die_after(fuel, cut);
            if kupgrade(&fake).is_ok() {
                break;
            }
            deaths += 1;
            let context = format!("machine {which}, dead after {fuel}, {cut:?}");
            assert_eq!(starts(&fake), [OLD.to_owned()].into(), "{context}");
            assert_eq!(fake.start().as_deref(), Ok(OLD), "{context}");
            clear(&fake);
            assert_eq!(starts(&fake), [OLD.to_owned()].into(), "{context}");
            match kupgrade(&fake) {
                Ok(tried) => assert!(tried, "{context}"),
                // It was finished, and the loader not told: a person tells it, or makes another one.
                Err(BootError::Exists { .. }) => {
                    activate(&fake, "new", Starts::Once, &mut |_| ()).expect("it is whole");
                }
                Err(error) => panic!("{context}: {error:?}"),
            }
            assert_eq!(fake.start().as_deref(), Ok(NEW), "{context}");
            assert_eq!(fake.start().as_deref(), Ok(OLD), "{context}");
        }
    }
    assert!(deaths >= 150, "{deaths}");
    eprintln!("{deaths} of {deaths} deaths of an upgrade start the old system");
}

#[test]
fn a_machine_that_dies_while_it_is_judged_starts_the_old_or_the_new() {
    let mut deaths = 0;
    for cut in [Cut::Old, Cut::Empty, Cut::New] {
        for fuel in 0.. {
            let fake = on_trial();
            fake.die_after(fuel, cut);
            if pass_trial(&fake, &mut |_| ()).is_ok() {
                break;
            }
            deaths += 1;
            let context = format!("passing, dead after {fuel}, {cut:?}");
            starts(&fake);
            let running = fake.start().unwrap_or_else(|error| panic!("{context}: {error}"));
            clear(&fake);
            starts(&fake);
            // Its own unit says it again; or it is for a person to say.
            if running == OLD {
                activate(&fake, "new", Starts::Always, &mut |_| ()).expect("it is whole");
                assert_eq!(fake.start().as_deref(), Ok(NEW), "{context}");
            }
            pass_trial(&fake, &mut |_| ()).unwrap_or_else(|error| panic!("{context}: {error:?}"));
            clear(&fake);
            let reference = on_trial();
            pass_trial(&reference, &mut |_| ()).expect("passed");
            let files = |fake: &Fake| fake.disk().fat.keys().cloned().collect::<Vec<_>>();
            assert_eq!(files(&fake), files(&reference), "{context}");
            assert_eq!(starts(&fake), [NEW.to_owned()].into(), "{context}");
        }
        for fuel in 0.. {
            let fake = on_trial();
            fake.die_after(fuel, cut);
            if fail_trial(&fake, "no", &mut |_| ()).is_ok() {
                break;
            }
            deaths += 1;
            assert_eq!(fake.start().as_deref(), Ok(OLD), "failing, dead after {fuel}, {cut:?}");
        }
    }
    assert!(deaths >= 20, "{deaths}");
    eprintln!("{deaths} of {deaths} deaths of a verdict start a whole system");
}
