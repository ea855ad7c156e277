//! What must hold of the boot environments that applies make: each holds the machine as it was before, and nothing that a
//! person has or needs ever goes for one.

mod support;

use kld_boot::{Keep, Looked, Starts, activate, choose};
use kld_engine::{Engine, Event, History, Outcome, Progress, State, Step};
use support::fake::Fake;
use support::{RECIPE, Silent, applied, apply, engine, environments, plan_for, recipe, take_back, wanted};

/// What an apply says of its boot environment.
#[derive(Default)]
struct Told {
    made: Option<String>,
    why_not: Option<String>,
}

impl Progress for Told {
    fn environment(&mut self, name: &str) {
        self.made = Some(name.to_owned());
    }
    fn no_environment(&mut self, why: &str) {
        self.why_not = Some(why.to_owned());
    }
    fn step(&mut self, _: usize, _: usize, _: &Step) {}
    fn back(&mut self, _: &str) {}
    fn undo(&mut self, _: &Step) {}
    fn proving(&mut self) {}
}

fn file_in(fake: &Fake, environment: &str, path: &str) -> Option<String> {
    let files = fake.disk().datasets[&format!("rpool/ROOT/{environment}")].files.clone();
    files.get(path).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// The machine with `changed` applied, and what was told.
fn apply_told(fake: &Fake, manifest: &str) -> (Outcome, Told) {
    let mut told = Told::default();
    let plan = plan_for(fake, &wanted(manifest));
    let done = engine(fake).apply(&plan, "tester", None, &|| Ok(()), &mut told).expect("it ends");
    (done, told)
}

#[test]
fn each_apply_leaves_one_of_the_machine_as_it_was_before() {
    const UNIT: &str = "/etc/systemd/system/webapp.service";
    let (fake, _, new) = applied();
    assert_eq!(environments(&fake), ["apply-000001", "debian"]);
    assert_eq!(file_in(&fake, "apply-000001", UNIT), None, "there was no such service yet");
    let mut told = Told::default();
    let plan = plan_for(&fake, &new);
    engine(&fake).apply(&plan, "tester", None, &|| Ok(()), &mut told).expect("applied");
    assert_eq!((told.made.as_deref(), told.why_not), (Some("apply-000002"), None));
    assert!(file_in(&fake, "apply-000002", UNIT).expect("it was there").contains("--workers 2"));
    let record = History::new(&fake).record(2).expect("readable").expect("it is there");
    assert_eq!(record.environment.as_deref(), Some("apply-000002"));
    assert_eq!(record.environment_dataset().as_deref(), Some("rpool/ROOT/apply-000002"));
    // It can be started, and what starts by itself is what it was.
    activate(&fake, "apply-000002", Starts::Once, &mut |_| ()).expect("it has an entry and a kernel");
    assert_eq!(fake.disk().would_start("/efi").expect("it starts").1, "rpool/ROOT/apply-000002");
    fake.change_disks(|state| drop(state.disk.variables.remove("LoaderEntryOneShot")));
    assert_eq!(fake.disk().would_start("/efi2").expect("it starts").1, "rpool/ROOT/debian");
}

#[test]
fn a_change_of_datasets_alone_needs_none() {
    let (fake, ..) = applied();
    let text = recipe().replace("compression=lz4", "compression=zstd-3");
    let (done, told) = apply_told(&fake, &text);
    assert_eq!((done, told.made, told.why_not), (Outcome::Committed { number: 2 }, None, None));
    assert_eq!(environments(&fake), ["apply-000001", "debian"]);
    let record = History::new(&fake).record(2).expect("readable").expect("it is there");
    assert_eq!((record.environment, record.no_environment), (None, None));
}

#[test]
fn the_newest_three_stay_and_all_of_a_persons() {
    let (fake, old, new) = applied();
    let make = |name: &str| {
        let name = name.parse().expect("a name");
        let running = kld_boot::Origin::Running;
        kld_boot::create(&fake, &name, &running, kld_boot::Maker::Person, &mut |_| ()).expect("made");
    };
    make("mine");
    make("apply-of-mine");
    activate(&fake, "apply-000001", Starts::Always, &mut |_| ()).expect("activated");
    activate(&fake, "debian", Starts::Always, &mut |_| ()).expect("activated");
    for round in 2..=8 {
        let plan = plan_for(&fake, if round % 2 == 0 { &new } else { &old });
        assert_eq!(apply(&fake, &plan), Outcome::Committed { number: round });
    }
    let of_applies = ["apply-000006", "apply-000007", "apply-000008"];
    let others = ["apply-000001", "apply-of-mine", "debian", "mine"];
    let mut all: Vec<&str> = of_applies.into_iter().chain(others).collect();
    all.sort_unstable();
    assert_eq!(environments(&fake), all, "the first one was activated, and is a person's since");
    // One that would start next is none that goes.
    activate(&fake, "apply-000006", Starts::Once, &mut |_| ()).expect("activated");
    apply(&fake, &plan_for(&fake, &old));
    assert!(environments(&fake).contains(&"apply-000006".to_owned()));
    // Whoever prunes by hand prunes these, too.
    let chosen = choose(&Looked::at(&fake).expect("readable"), Keep::Newest(0));
    assert!(chosen.iter().any(|of| of.name == "apply-000008"), "{chosen:?}");
}

#[test]
fn what_is_undone_takes_its_own_along_unless_packages_stay() {
    let (fake, _, new) = applied();
    let before = fake.disk();
    let plan = plan_for(&fake, &new);
    let fail = || Err("the page is empty".to_owned());
    engine(&fake).apply(&plan, "tester", None, &fail, &mut Silent).expect("it goes back");
    assert_eq!(environments(&fake), ["apply-000001", "debian"]);
    assert_eq!(fake.disk().fat, before.fat, "nor anything on the boot partitions");
    // Packages stay after an undo, so what was before the apply is only there; and an undo is a change like any other.
    apply(&fake, &plan_for(&fake, &new));
    take_back(&fake);
    assert_eq!(environments(&fake), ["apply-000001", "apply-000003", "apply-000004", "debian"]);
}

#[test]
fn one_that_could_not_go_with_its_apply_goes_before_the_next_is_made() {
    let (fake, _, new) = applied();
    let plan = plan_for(&fake, &new);
    let look = || {
        fake.change_disks(|state| {
            state.mounts.push(("rpool/ROOT/apply-000002".to_owned(), "/mnt".to_owned()));
        });
        Err("no".to_owned())
    };
    engine(&fake).apply(&plan, "tester", None, &look, &mut Silent).expect("it goes back");
    let names =
        |number: u32| ["apply-000001".to_owned(), format!("apply-{number:06}"), "debian".to_owned()].to_vec();
    assert_eq!(environments(&fake), names(2), "somebody looks into it");
    fake.change_disks(|state| state.mounts.retain(|(_, place)| place != "/mnt"));
    apply(&fake, &plan_for(&fake, &new));
    assert_eq!(environments(&fake), names(3));
}

#[test]
fn what_keeps_one_from_being_made_is_said_and_does_not_stop_the_apply() {
    let text = RECIPE.replace("--workers 2", "--workers 1");
    let check = |fake: &Fake, want: &str| {
        let (done, told) = apply_told(fake, &text);
        assert_eq!((done, told.made), (Outcome::Committed { number: 2 }, None));
        let why = told.why_not.expect("it is said");
        assert!(why.contains(want), "{why}");
        let record = History::new(fake).record(2).expect("readable").expect("it is there");
        assert_eq!((record.environment, record.no_environment), (None, Some(why)));
    };
    // No room for a kernel that is not there yet.
    let (fake, ..) = applied();
    fake.change_disks(|state| {
        let files = &mut state.disk.datasets.get_mut("rpool/ROOT/debian").expect("it is there").files;
        files.insert("/boot/initrd.img-6.12.1".to_owned(), vec![7; 6 << 20]);
        state.disk.fat.insert("/efi2/other".to_owned(), vec![0; 5 << 20]);
    });
    let before = fake.disk();
    check(&fake, "`/efi2` has 5.00M free and 7.25M are needed (make the partition larger");
    assert_eq!(fake.disk().fat, before.fat);
    assert_eq!(environments(&fake), ["apply-000001", "debian"]);
    // Another loader.
    let (fake, ..) = applied();
    fake.change_disks(|state| {
        state.disk.fat.retain(|path, _| !path.contains("/loader/"));
        state.disk.variables.clear();
    });
    check(&fake, "this machine is not started by boot entries of systemd-boot");
    // A person has one of that name: it is nobody else's.
    let (fake, ..) = applied();
    let name = "apply-000002".parse().expect("a name");
    let running = kld_boot::Origin::Running;
    kld_boot::create(&fake, &name, &running, kld_boot::Maker::Person, &mut |_| ()).expect("made");
    check(&fake, "there is a boot environment `apply-000002` already");
    take_back(&fake);
    assert_eq!(environments(&fake), ["apply-000001", "apply-000002", "apply-000003", "debian"]);
}

#[test]
fn who_starts_one_keeps_it() {
    let (fake, _, new) = applied();
    activate(&fake, "apply-000001", Starts::Once, &mut |_| ()).expect("activated");
    fake.change_disks(|state| {
        state.mounts = vec![("rpool/ROOT/apply-000001".to_owned(), "/".to_owned())];
        state.disk.variables.remove("LoaderEntryOneShot");
    });
    fake.root(Some("rpool/ROOT/apply-000001 zfs"));
    assert_eq!(engine(&fake).while_starting().recover(&mut Silent).expect("nothing to undo"), None);
    // And back.
    fake.root(None);
    fake.change_disks(|state| state.mounts = vec![("rpool/ROOT/debian".to_owned(), "/".to_owned())]);
    let old = wanted(RECIPE);
    for round in 0..6 {
        apply(&fake, &plan_for(&fake, if round % 2 == 0 { &new } else { &old }));
    }
    assert!(environments(&fake).contains(&"apply-000001".to_owned()), "{:?}", environments(&fake));
    assert!(!environments(&fake).contains(&"apply-000002".to_owned()));
}

#[test]
fn the_journal_names_it_before_it_is_made() {
    let (fake, _, new) = applied();
    let plan = plan_for(&fake, &new);
    for fuel in 0..40 {
        let (fake, ..) = applied();
        fake.fuel(Some(fuel));
        let _ = engine(&fake).apply(&plan, "tester", None, &|| Ok(()), &mut Silent);
        let is_there = fake.disk().datasets.contains_key("rpool/ROOT/apply-000002");
        fake.fuel(None);
        let text = fake.text("/var/lib/kldload/applies/000002/journal");
        let journal = kld_engine::Journal::parse(&text);
        let named = journal.events.iter().any(|event| matches!(event, Event::Environment { .. }));
        assert!(named || !is_there, "{fuel}: {text}");
        // An engine that knows no environments leaves it to the next that does.
        Engine::new(&fake).recover(&mut Silent).expect("it goes back");
        let records = History::new(&fake).records().expect("readable");
        assert!(records.iter().all(|record| record.state != State::Interrupted));
        apply(&fake, &plan_for(&fake, &new));
        assert_eq!(environments(&fake).len(), 3, "{fuel}: {:?}", environments(&fake));
    }
}
