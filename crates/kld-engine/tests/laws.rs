//! What must hold whatever happens: applying twice changes nothing, and a machine is as before or as planned.

mod support;

use std::path::Path;

use kld_engine::{
    ApplyError, CLOCK, CONFIRM_TIMER, Cause, Entry, History, Host as _, Node, Outcome, State, UndoError,
    User, undo,
};
use kld_host::Cmd;
use kld_system::RECOVERY_UNIT;
use support::fake::{Fake, Machine};
use support::{
    RECIPE, Silent, applied, apply, assert_same, changed, cleared, engine, environments, machine_for,
    plan_for, recipe, recover_dying, take_back, wanted,
};

#[test]
fn a_second_plan_is_empty() {
    let (fake, old, new) = applied();
    assert!(plan_for(&fake, &old).is_empty(), "{:#?}", plan_for(&fake, &old));
    assert_eq!(History::new(&fake).drift().expect("readable"), []);
    let plan = plan_for(&fake, &new);
    assert!(plan.steps.iter().all(|step| step.cause == Cause::Wish), "{plan:#?}");
    assert_eq!(apply(&fake, &plan), Outcome::Committed { number: 2 });
    let again = plan_for(&fake, &new);
    assert!(again.is_empty() && again.left.is_empty(), "{again:#?}");
    // Back to the old one: what was added by hand of the manifest stays, and is named.
    let back = plan_for(&fake, &old);
    let left = back.left.iter().filter(|left| left.kind != "file");
    let left: Vec<&str> = left.map(|left| left.name.as_str()).collect();
    assert_eq!(left, ["rpool/srv/vault", "rpool/srv/vault/app", "rpool/srv/webapp-cache", "git", "helper"]);
    assert!(back.left[2].remove_with.starts_with("zfs destroy -r rpool/srv/webapp-cache"));
    apply(&fake, &back);
    assert!(plan_for(&fake, &old).is_empty());
}

/// Changes of the recipe that may be combined as one likes.
const EDITS: [(&str, &str); 17] = [
    ("recordsize=128k  compression=lz4", "recordsize=1M  compression=zstd-3"),
    ("recordsize=8k ", "recordsize=16k "),
    ("mountpoint=/var/lib/postgresql\n", "mountpoint=/var/lib/postgresql  quota=20G\n"),
    ("  rpool/srv/webapp-db:", "  rpool/srv/cache:  recordsize=16k  atime=off\n  rpool/srv/webapp-db:"),
    ("  rpool/srv/webapp-db:", "  rpool/srv/media:  recordsize=1M\n  rpool/srv/webapp-db:"),
    ("TCP 8000 guest book,", "TCP 8000 guest book, TCP 8001 spare,"),
    ("TCP 9100 node_exporter", "TCP 9100 node_exporter, TCP 9187 exporter"),
    ("port=51822  over=wg0", "port=51832  over=wg0"),
    ("packages:  curl,", "packages:  curl, git, tmux,"),
    ("packages:  curl,", "packages:  curl, rsync,"),
    (
        "  webapp:  system  home=/srv/webapp",
        "  webapp:  system  home=/srv/webapp\n  helper:  system  home=/srv",
    ),
    ("--workers 2", "--workers 4"),
    ("frequent_period: 15 ", "frequent_period: 5 "),
    ("  daily:           30", "  daily:           7"),
    ("encryption=on  recordsize=64k  quota=1G", "encryption=on  recordsize=1M  compression=zstd-3"),
    ("  rpool/srv/webapp-db:", "  rpool/srv/vault:  encryption=aes-128-gcm\n  rpool/srv/webapp-db:"),
    ("  rpool/srv/webapp-db:", "  rpool/srv/safe/inner:  quota=2G\n  rpool/srv/webapp-db:"),
];

/// A manifest for each number: the bits say which edits are made.
fn generated(bits: u32) -> String {
    EDITS.iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0).fold(recipe(), |text, (_, edit)| {
        assert!(text.contains(edit.0), "{}", edit.0);
        text.replacen(edit.0, edit.1, 1)
    })
}

#[test]
fn any_manifest_after_any_other_leaves_nothing_to_do() {
    let every = wanted(&generated(u32::MAX));
    let fake = machine_for(&[&every, &wanted(RECIPE)]);
    let mut bits = 1u32;
    for number in 0..200 {
        // A linear congruence: every combination comes once before one comes again.
        bits = (bits * 5 + 3) % (1 << EDITS.len());
        let wanted = wanted(&generated(bits));
        let plan = plan_for(&fake, &wanted);
        assert_eq!(plan, plan_for(&fake, &wanted), "looking changes nothing");
        assert!(plan.steps.iter().all(|step| step.cause == Cause::Wish), "{number}: {plan:#?}");
        if !plan.is_empty() {
            assert!(matches!(apply(&fake, &plan), Outcome::Committed { .. }));
        }
        let again = plan_for(&fake, &wanted);
        assert!(again.is_empty(), "{number}, {bits:b}: {again:#?}");
        // What a manifest no longer says of a dataset is no longer so.
        let quota =
            fake.machine().datasets["rpool/srv/webapp-db"].get("quota").is_some_and(|quota| quota != "0");
        assert_eq!(quota, bits & 0b100 != 0, "{number}, {bits:b}");
        assert!(fake.keys_load(), "{number}, {bits:b}");
    }
}

/// From nothing to each manifest of the project, and from there to each other one.
#[test]
fn every_manifest_of_the_project_is_applied_once() {
    const VAULT: &str = include_str!("../../kldload/tests/vm/vault/appliance.manifest");
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let entries = std::fs::read_dir(recipes).expect("there are recipes");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("readable").path().join("appliance.manifest");
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let mut texts: Vec<String> = entries.map(read).collect();
    texts.sort();
    assert!(texts.contains(&RECIPE.to_owned()));
    // The machine in memory counts directives, which is not how systemd rates them. And no dataset is encrypted otherwise than
    // it was made: one name is one algorithm.
    let vault = VAULT.replace("max_exposure:  2.0", "max_exposure:  9.0");
    texts.extend([recipe(), changed(), vault.replace("lz4  encryption=on", "lz4  encryption=aes-128-gcm")]);
    // A machine keeps its name whatever it becomes.
    let named = |text: &String| -> String {
        let line = |line: &str| {
            if line.starts_with("name:") { "name: webapp\n".to_owned() } else { format!("{line}\n") }
        };
        text.lines().map(line).collect()
    };
    let all: Vec<_> = texts.iter().map(|text| wanted(&named(text))).collect();
    let fresh = || {
        let fake = machine_for(&all.iter().collect::<Vec<_>>());
        fake.publish("localhost/greeter:1");
        let sealed = Entry { node: Node::File(b"sealed".to_vec()), mode: 0o600, uid: 0, gid: 0 };
        fake.put("/etc/kldload/secrets/answer.cred", &sealed).expect("written");
        fake
    };
    for (number, first) in all.iter().enumerate() {
        for second in all.iter().skip(number) {
            let fake = fresh();
            for wanted in [first, second, first] {
                // Nothing at all may be left to do.
                let plan = plan_for(&fake, wanted);
                if !plan.is_empty() {
                    assert!(matches!(apply(&fake, &plan), Outcome::Committed { .. }));
                }
                let again = plan_for(&fake, wanted);
                assert!(again.is_empty(), "{number}: {again:#?}");
            }
        }
    }
}

#[test]
fn keys_come_before_the_network_and_the_network_before_services() {
    let (fake, ..) = applied();
    let moved =
        RECIPE.replace("port=51822  over=wg0", "port=51832  over=wg0").replace("--workers 2", "--workers 1");
    let plan = plan_for(&fake, &wanted(&moved));
    let told: Vec<&str> =
        plan.all().filter(|step| step.kind == "service").map(|step| step.name.as_str()).collect();
    let at =
        |name: &str| told.iter().position(|told| *told == name).unwrap_or_else(|| panic!("{name}: {told:?}"));
    let order = ["systemd", "kldload-identity.service", "systemd-networkd.service", "webapp.service"].map(at);
    assert!(order.is_sorted(), "{told:?}");
}

/// A unit that requires another one stops with it for a moment, and would be taken for one that has not run.
#[test]
fn what_runs_is_asked_before_anything_is_told() {
    let (fake, _, new) = applied();
    let plan = plan_for(&fake, &new);
    fake.take_log();
    apply(&fake, &plan);
    let log = fake.take_log();
    let asked =
        log.iter().rposition(|line| line.contains("systemctl show") && line.contains("webapp.service"));
    let told = log.iter().position(|line| line.starts_with("systemctl restart"));
    assert!(asked.expect("it is asked") < told.expect("it is told"), "{log:#?}");
}

/// What services put into a directory of kldload's, as they do with keys: gone with an apply that came to nothing, kept when
/// peers have known them.
#[test]
fn keys_go_with_an_apply_that_failed_and_stay_with_one_that_held() {
    const KEY: &str = "/etc/kldload/wireguard/wg0.key";
    // First steps are done again: what they made is put aside with its dataset.
    const STEPS: &str = "/var/lib/kldload/setup";
    let fake = machine_for(&[&wanted(RECIPE)]);
    let plan = plan_for(&fake, &wanted(RECIPE));
    let born = || {
        let entry = Entry { node: Node::File(b"key".to_vec()), mode: 0o640, uid: 0, gid: 0 };
        fake.put(KEY, &entry).expect("written");
        fake.put(&format!("{STEPS}/webapp/done"), &entry).expect("written");
        // Another service's, which this apply knows nothing of.
        fake.put(&format!("{STEPS}/gitea/done"), &entry).expect("written");
    };
    let steps = || fake.list(STEPS).expect("readable");
    let fails = || {
        born();
        Err("it does not hold".to_owned())
    };
    engine(&fake).apply(&plan, "tester", None, &fails, &mut Silent).expect("it goes back");
    assert_eq!((fake.text(KEY), fake.list("/etc/kldload").expect("readable")), (String::new(), vec![]));
    assert_eq!(steps(), ["gitea"]);
    apply(&fake, &plan_for(&fake, &wanted(RECIPE)));
    born();
    take_back(&fake);
    assert_eq!(fake.text(KEY), "key");
    assert_eq!(steps(), ["gitea"]);
    assert!(fake.take_log().iter().any(|line| line == "networkctl delete wg0"));
}

/// A package that makes a database by itself would be in the way of first steps.
#[test]
fn what_packages_read_when_they_come_is_there_before_them_as_in_an_image() {
    const PREPARED: &str = "/etc/postgresql-common/createcluster.d/kldload.conf";
    for root in [None, Some("/dev/vda2 ext4")] {
        let fake = machine_for(&[&wanted(RECIPE)]);
        fake.root(root);
        let there = |path: &str| fake.entry(path).expect("readable").is_some();
        let plan = plan_for(&fake, &wanted(RECIPE));
        let said = plan.steps.iter().flat_map(|step| &step.notes).any(|note| note.contains(PREPARED));
        assert!(said, "a stranger reads of it: {plan:#?}");
        apply(&fake, &plan);
        assert!(there(PREPARED) && !there("/etc/postgresql/17/main"));
        let fails = || Err("it does not hold".to_owned());
        let fake = machine_for(&[&wanted(RECIPE)]);
        fake.root(root);
        engine(&fake).apply(&plan, "tester", None, &fails, &mut Silent).expect("it goes back");
        assert!(fake.entry(PREPARED).expect("readable").is_none(), "{root:?}");

        // One that was there before stays.
        let mine = Entry { node: Node::File(b"mine".to_vec()), mode: 0o644, uid: 0, gid: 0 };
        fake.put(PREPARED, &mine).expect("written");
        let plan = plan_for(&fake, &wanted(RECIPE));
        engine(&fake).apply(&plan, "tester", None, &fails, &mut Silent).expect("it goes back");
        assert_eq!(fake.text(PREPARED), "mine", "{root:?}");
    }
}

/// The cache of mounts belongs to ZFS's event daemon, too: what somebody makes with `zfs create` is mounted by the next start.
#[test]
fn datasets_that_the_manifest_does_not_know_go_on_being_mounted() {
    const CACHE: &str = "/etc/zfs/zfs-list.cache/rpool";
    const MINE: &str = "rpool/mine\t/mine\ton\n";
    let (fake, old, new) = applied();
    let add = |line: &str| {
        let entry = fake.entry(CACHE).expect("readable").expect("it is there");
        let text = fake.text(CACHE) + line;
        fake.put(CACHE, &Entry { node: Node::File(text.into_bytes()), ..entry }).expect("written");
    };
    add(MINE);
    assert!(plan_for(&fake, &old).is_empty(), "{:#?}", plan_for(&fake, &old));
    assert_eq!(History::new(&fake).drift().expect("readable"), []);
    apply(&fake, &plan_for(&fake, &new));
    let text = fake.text(CACHE);
    assert!(text.contains(MINE) && text.contains("rpool/srv/webapp-cache\t"), "{text}");
    add("rpool/later\t/later\ton\n");
    take_back(&fake);
    let text = fake.text(CACHE);
    assert!(text.contains(MINE) && text.contains("rpool/later\t"), "{text}");
    assert!(!text.contains("rpool/srv/webapp-cache\t"), "{text}");
}

#[test]
fn a_machine_that_dies_anywhere_is_as_before_or_as_planned() {
    let (fake, _, new) = applied();
    let (before, before_it) = (fake.machine(), cleared(&fake));
    let start = fake.changes();
    let plan = plan_for(&fake, &new);
    apply(&fake, &plan);
    let (after, length) = (fake.machine(), fake.changes() - start);
    let after_it = cleared(&fake);
    let (mut as_before, mut as_planned) = (0, 0);
    for fuel in 0..=length {
        let (fake, _, new) = applied();
        let plan = plan_for(&fake, &new);
        fake.fuel(Some(fuel));
        let outcome = engine(&fake).apply(&plan, "tester", None, &|| Ok(()), &mut Silent);
        assert!(outcome.is_ok() || fuel < length, "{fuel} of {length}: {outcome:?}");
        recover_dying(&fake, fuel);
        let now = fake.machine();
        if now == after {
            as_planned += 1;
            assert_eq!(cleared(&fake), after_it, "{fuel}");
        } else {
            assert_same(&now, &before, fuel);
            as_before += 1;
            assert_eq!(cleared(&fake), before_it, "{fuel}");
        }
        let records = History::new(&fake).records().expect("readable");
        assert!(records.iter().all(|record| record.state != State::Interrupted), "{fuel}: {records:?}");
        assert!(fake.keys_load(), "{fuel}");
        // And it can be brought there all the same.
        let plan = plan_for(&fake, &new);
        apply(&fake, &plan);
        assert_same(&fake.machine(), &after, fuel);
        assert_eq!(environments(&fake).len(), after_it.0.len(), "{fuel}");
    }
    assert!(
        as_planned >= 1 && as_before + as_planned == length + 1,
        "{as_before} + {as_planned} of {length}"
    );
}

#[test]
fn a_change_that_fails_is_undone_with_all_before_it() {
    let (fake, _, new) = applied();
    let start = fake.changes();
    let plan = plan_for(&fake, &new);
    apply(&fake, &plan);
    let after = fake.machine();
    let length = fake.changes() - start;
    for number in 0..length {
        let (fake, _, new) = applied();
        let before = fake.machine();
        let plan = plan_for(&fake, &new);
        fake.refuse(Some(number));
        match engine(&fake).apply(&plan, "tester", None, &|| Ok(()), &mut Silent) {
            Ok(Outcome::RolledBack { error, .. }) => assert!(error.contains("no space left"), "{error}"),
            // Old snapshots could not be destroyed: no reason to go back.
            Ok(Outcome::Committed { .. }) => assert_same(&fake.machine(), &after, number),
            // Before anything was done, or after all of it: the journal itself could not be written.
            Err(ApplyError::Journal(_)) => {
                engine(&fake).recover(&mut Silent).expect("it has room again");
            }
            other => panic!("{number} of {length}: {other:?}"),
        }
        assert!(fake.keys_load(), "{number}");
        let committed = History::new(&fake)
            .records()
            .expect("readable")
            .iter()
            .filter(|r| r.state == State::Committed)
            .count();
        if committed < 2 {
            assert_same(&fake.machine(), &before, number);
        }
    }
}

#[test]
fn a_proof_that_fails_undoes_everything_and_says_why() {
    let (fake, _, new) = applied();
    let before = fake.machine();
    let plan = plan_for(&fake, &new);
    let outcome = engine(&fake)
        .apply(&plan, "tester", None, &|| Err("the guest book does not answer".to_owned()), &mut Silent)
        .expect("it goes back");
    // Files go back when nobody is at work on packages.
    let log = fake.take_log();
    let at = |part: &str| log.iter().rposition(|line| line.contains(part));
    assert!(at(" check").is_some_and(|waited| Some(waited) < at("zfs diff")), "{log:#?}");
    let error = "the guest book does not answer".to_owned();
    assert_eq!(outcome, Outcome::RolledBack { number: 2, what: "verify".to_owned(), error: error.clone() });
    assert_same(&fake.machine(), &before, 0);
    let records = History::new(&fake).records().expect("readable");
    assert_eq!(records[1].state, State::Undone);
    assert_eq!(records[1].failure, Some(error));
}

#[test]
fn what_was_applied_is_taken_back_and_what_nobody_confirmed_goes_back_at_the_next_start() {
    let (fake, old, new) = applied();
    let before = fake.machine();
    let plan = plan_for(&fake, &new);
    let confirmed = |seconds| {
        let outcome = engine(&fake).apply(&plan, "tester", seconds, &|| Ok(()), &mut Silent);
        assert!(matches!(outcome, Ok(Outcome::Committed { .. })), "{outcome:?}");
    };
    confirmed(Some(60));
    let again = engine(&fake).apply(&plan, "tester", None, &|| Ok(()), &mut Silent);
    assert!(matches!(again, Err(ApplyError::Waits { number: 2 })), "{again:?}");
    assert!(fake.machine().active.contains(CONFIRM_TIMER));
    assert_eq!(History::new(&fake).records().expect("readable")[1].state, State::Unconfirmed);
    // A start while it waits: the clock that would take it back is gone, so it goes back now.
    fake.change(|machine| machine.active.retain(|unit| ![CONFIRM_TIMER, "extra.service"].contains(&&**unit)));
    engine(&fake).while_starting().recover(&mut Silent).expect("it goes back");
    let stayed = |machine: &Machine| -> Machine {
        // Packages stay.
        let mut machine = machine.clone();
        machine.files.retain(|path, _| !path.contains("git") && !path.contains("dpkg"));
        machine.files.retain(|path, _| !path.starts_with("/etc/systemd/fake-state"));
        machine
    };
    assert_same(&stayed(&fake.machine()), &stayed(&before), 0);
    assert!(plan_for(&fake, &old).is_empty(), "what was wanted before is wanted again");

    let plan = plan_for(&fake, &new);
    let outcome = engine(&fake).apply(&plan, "tester", Some(60), &|| Ok(()), &mut Silent);
    assert_eq!(outcome.expect("applied"), Outcome::Committed { number: 3 });
    assert!(engine(&fake).confirm().expect("written"));
    assert!(!engine(&fake).confirm().expect("nothing waits"));
    assert!(!fake.machine().active.contains(CONFIRM_TIMER));
    engine(&fake).while_starting().recover(&mut Silent).expect("nothing to do");
    assert!(plan_for(&fake, &new).is_empty());

    assert_eq!(take_back(&fake), Outcome::Committed { number: 4 });
    assert!(plan_for(&fake, &old).is_empty());
    take_back(&fake);
    assert!(matches!(undo(&fake, None), Err(UndoError::Nothing)));
    let again = engine(&fake).take_back("not confirmed", "tester", &mut Silent);
    assert!(matches!(again, Err(ApplyError::NothingWaits)), "{again:?}");
}

#[test]
fn snapshots_of_applies_do_not_fill_the_pool() {
    let (fake, old, new) = applied();
    fake.change(|machine| {
        for dataset in ["rpool/backup", "rpool/backup/web"] {
            machine.datasets.insert(dataset.to_owned(), Default::default());
        }
    });
    // As replication brings them.
    let of_another =
        ["rpool/backup/web@kldload-apply-000001", "rpool/backup/web@kldload-apply-000002-packages"];
    fake.run(&Cmd::new("zfs").arg("snapshot").args(of_another)).expect("made");
    for round in 0..12 {
        let plan = plan_for(&fake, if round % 2 == 0 { &new } else { &old });
        apply(&fake, &plan);
    }
    let of = |name: &str| fake.snapshots().iter().filter(|snapshot| snapshot.contains(name)).count();
    assert_eq!(of("rpool/srv/webapp@kldload-apply-000003"), 0, "{:?}", fake.snapshots());
    for other in of_another {
        assert_eq!(of(other), 1, "{:?}", fake.snapshots());
    }
    assert!(of("@kldload-apply-000004") > 0 && of("@kldload-apply-000013") > 0, "{:?}", fake.snapshots());
    assert_eq!(of("debian@kldload-apply-000002-packages"), 0, "{:?}", fake.snapshots());
}

#[test]
fn a_clone_keeps_the_name_it_was_given() {
    let (fake, old, _) = applied();
    fake.change(|machine| {
        let hostname = machine.files.get_mut("/etc/hostname").expect("it is there");
        hostname.node = kld_engine::Node::File(b"web-7\n".to_vec());
    });
    assert!(plan_for(&fake, &old).is_empty());
}

#[test]
fn what_was_changed_by_hand_is_told_apart() {
    let (fake, old, _) = applied();
    fake.change(|machine| {
        machine
            .datasets
            .get_mut("rpool/srv/webapp")
            .expect("there")
            .insert("atime".to_owned(), "on".to_owned());
        machine.files.remove("/etc/nftables.conf");
    });
    let drift = History::new(&fake).drift().expect("readable");
    let drift: Vec<&str> = drift.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(drift, ["atime of rpool/srv/webapp", "/etc/nftables.conf"]);
    let plan = plan_for(&fake, &old);
    let names: Vec<(&str, Cause)> = plan.steps.iter().map(|step| (step.name.as_str(), step.cause)).collect();
    assert_eq!(names, [("rpool/srv/webapp", Cause::Drift), ("/etc/nftables.conf", Cause::Drift)]);
    assert!(plan.restarts.iter().any(|step| step.name == "nftables.service"));
}

#[test]
fn what_is_new_in_a_manifest_does_not_hide_what_was_changed_by_hand() {
    let (fake, old, _) = applied();
    fake.change(|machine| {
        let own = machine.datasets.get_mut("rpool/srv/webapp").expect("there");
        own.insert("atime".to_owned(), "on".to_owned());
        machine.active.remove("webapp.service");
        let status = machine.files.get_mut("/var/lib/dpkg/status").expect("there");
        let Node::File(text) = &status.node else { panic!("a file") };
        let text = String::from_utf8_lossy(text).replace("curl 1.0\n", "").replace("gunicorn 1.0\n", "");
        status.node = Node::File(text.into_bytes());
    });
    let causes = |plan: &kld_engine::Plan| -> Vec<(String, Cause)> {
        let all = plan.all().filter(|step| !step.name.starts_with("systemd"));
        all.map(|step| (format!("{} {}", step.name, step.summary), step.cause)).collect()
    };
    let plan = plan_for(&fake, &old);
    let by_hand = |text: &str| (text.to_owned(), Cause::Drift);
    assert_eq!(
        causes(&plan),
        [
            by_hand("rpool/srv/webapp atime on → off"),
            by_hand("curl, gunicorn install"),
            by_hand("webapp.service starts again"),
        ]
    );
    let more = RECIPE
        .replace("recordsize=128k  compression=lz4", "recordsize=1M  compression=lz4")
        .replace("packages:  curl,", "packages:  curl, git,");
    let plan = plan_for(&fake, &wanted(&more));
    let datasets = plan.steps.iter().filter(|step| step.kind == "dataset");
    let datasets: Vec<_> = datasets.map(|step| (step.summary.as_str(), step.cause)).collect();
    assert_eq!(datasets, [("atime on → off", Cause::Drift), ("recordsize 128K → 1M", Cause::Wish)]);
    let package = plan.steps.iter().find(|step| step.kind == "package").expect("one is new");
    assert_eq!(
        (package.cause, package.notes[0].as_str()),
        (Cause::Wish, "removed by hand since the last apply: curl, gunicorn")
    );
}

#[test]
fn rules_that_somebody_has_flushed_or_changed_in_the_kernel_are_loaded_again() {
    let (fake, old, _) = applied();
    let loaded = fake.machine().rules;
    assert!(loaded.contains("policy drop"), "{loaded}");
    let flush = |rules: &mut String| rules.clear();
    let add = |rules: &mut String| {
        let (chain, rest) = rules.split_once("policy drop;\n").expect("a chain");
        *rules = format!("{chain}policy drop;\n\t\taccept\n{rest}");
    };
    let open = |rules: &mut String| *rules = rules.replacen("policy drop", "policy accept", 1);
    let changes: [&dyn Fn(&mut String); 3] = [&flush, &add, &open];
    for (number, change) in changes.into_iter().enumerate() {
        fake.change(|machine| change(&mut machine.rules));
        let plan = plan_for(&fake, &old);
        let told: Vec<_> = plan.restarts.iter().map(|step| (step.name.as_str(), step.cause)).collect();
        assert_eq!(told, [("nftables.service", Cause::Drift)], "{number}");
        assert!(plan.steps.is_empty() && plan.restarts[0].because.reason.contains("in the kernel"));
        apply(&fake, &plan);
        assert_eq!(fake.machine().rules, loaded, "{number}");
        assert!(plan_for(&fake, &old).is_empty(), "{number}");
    }
    // With the unit stopped, which flushes them, too.
    fake.change(|machine| {
        machine.active.remove("nftables.service");
        machine.rules.clear();
    });
    let plan = plan_for(&fake, &old);
    let confirm = |seconds| {
        let done = engine(&fake).apply(&plan, "tester", seconds, &|| Ok(()), &mut Silent);
        assert!(matches!(done, Ok(Outcome::Committed { .. })), "{done:?}");
        assert_eq!(fake.machine().rules, loaded);
    };
    // Somebody may have flushed them to let himself in.
    confirm(Some(60));
    engine(&fake).take_back("nobody has confirmed it", CLOCK, &mut Silent).expect("it goes back");
    assert!(fake.machine().rules.is_empty() && !fake.machine().active.contains("nftables.service"));
    // What was done and is taken back is no reason to open the machine again.
    confirm(None);
    take_back(&fake);
    assert_eq!(fake.machine().rules, loaded);
    // What others have loaded is theirs.
    fake.change(|machine| machine.rules += "table inet podman {\n\tchain x {\n\t\taccept\n\t}\n}\n");
    assert!(plan_for(&fake, &old).is_empty());
}

#[test]
fn a_plan_is_refused_before_anything_is_touched() {
    let (fake, old, _) = applied();
    let check = |manifest: &str, want: &str| {
        let before = fake.machine();
        let error = kld_engine::plan(&fake, &wanted(manifest), &Default::default()).expect_err("refused");
        let text = format!("{error} / {}", error.hint().unwrap_or_default());
        assert!(text.contains(want), "{text}");
        assert_same(&fake.machine(), &before, 0);
    };
    check(&RECIPE.replace("name:        webapp", "name:        other"), "this machine is `webapp`");
    check(
        &RECIPE.replace("packages:  curl,", "packages:  no-such-thing,"),
        "Unable to locate package no-such-thing",
    );
    fake.change(|machine| {
        let entry = machine.files["/etc/passwd"].clone();
        machine.files.insert("/srv/full/of/files".to_owned(), entry);
    });
    let hidden =
        RECIPE.replace("  rpool/srv/webapp-db:", "  rpool/srv/full:  recordsize=16k\n  rpool/srv/webapp-db:");
    check(&hidden, "`kldload adopt /srv/full --manifest FILE`");
    check(&RECIPE.replace("rpool/", "tank/"), "there is no pool `tank`");
    let loose =
        RECIPE.replace("--workers 2", "--workers 1").replace("max_exposure: 4.0", "max_exposure: 0.1");
    check(&loose, "and the manifest accepts 0.1 / tighten its `hardening:`");
    fake.room(Some(64 << 20));
    check(
        &changed(),
        "cannot plan `git`: its packages take 100K, and `/` has 64M left / make room: `zfs list -o space`",
    );
    fake.room(None);
    let state = "/proc/spl/kstat/zfs/rpool/state";
    let suspended = Node::File(b"SUSPENDED\n".to_vec());
    fake.put(state, &Entry { node: suspended, mode: 0o644, uid: 0, gid: 0 }).expect("writable");
    check(
        &changed(),
        "cannot plan `rpool`: the pool is SUSPENDED, and would not answer / `zpool status rpool`",
    );
    fake.remove(state).expect("it was there");
    fake.lacks(Some("large_blocks"));
    check(
        &changed(),
        "the pool has no feature `large_blocks`, which `recordsize=1M` needs / `zpool set feature@large_blocks=enabled rpool`",
    );
    fake.lacks(None);
    a_busy_dataset_is_not_moved(&fake, &check);
    assert!(plan_for(&fake, &old).is_empty());
}

/// Its users are named; the tool itself would refuse it in the middle of the apply.
fn a_busy_dataset_is_not_moved(fake: &Fake, check: &dyn Fn(&str, &str)) {
    let moved = RECIPE.replace(
        "recordsize=128k  compression=lz4  atime=off",
        "recordsize=128k  compression=lz4  atime=off  mountpoint=/srv/elsewhere",
    );
    let user = |name: &str, process, unit: Option<&str>| {
        let does = "works in /srv/webapp/a".to_owned();
        User { name: name.to_owned(), process: Some(process), unit: unit.map(str::to_owned), does }
    };
    let (shell, service) = (user("bash", 812, None), user("gunicorn", 733, Some("webapp.service")));
    fake.hold(&[("/srv/webapp/a", service.clone()), ("/srv/webapp-db", shell.clone())]);
    check(
        &moved,
        "cannot plan `rpool/srv/webapp`: it must be unmounted from `/srv/webapp`, and is busy: gunicorn (process 733) of \
         webapp.service works in /srv/webapp/a / `systemctl stop webapp.service`, and plan again",
    );
    let set = Cmd::new("zfs").args(["set", "mountpoint=/srv/elsewhere", "rpool/srv/webapp"]);
    let error = fake.run(&set).expect_err("it is busy").to_string();
    assert!(error.contains("cannot unmount '/srv/webapp': pool or dataset is busy"), "{error}");
    fake.hold(&[("/srv/webapp", shell), ("/srv/webapp/a", service)]);
    check(&moved, "bash (process 812) works in /srv/webapp/a; gunicorn (process 733)");
    check(&moved, "end what uses `/srv/webapp`, or leave it, and plan again");
    fake.hold(&[]);
    // Another dataset that has a place of its own in it.
    let create = Cmd::new("zfs").args(["create", "-o", "mountpoint=/srv/webapp/inner", "rpool/inner"]);
    fake.run(&create).expect("made");
    check(&moved, "is busy: `rpool/inner` is mounted in it / `zfs unmount rpool/inner`, and plan again");
    assert!(fake.run(&set).is_err());
    fake.run(&Cmd::new("zfs").args(["destroy", "rpool/inner"])).expect("it goes");
    let plan = plan_for(fake, &wanted(&moved));
    assert!(plan.steps.iter().any(|step| step.summary == "mountpoint /srv/webapp → /srv/elsewhere"));
}

#[test]
fn a_manifest_that_another_has_replaced_is_known() {
    let (old, new) = (wanted(RECIPE), wanted(&changed()));
    let fake = machine_for(&[&old, &new]);
    let replaced_manifest = |manifest: &str| {
        let plan = plan_for(&fake, &wanted(manifest));
        let found = History::new(&fake).replaced(&plan).expect("readable");
        found.map(|found| (found.was.number, found.next, found.by.number))
    };
    let replaced = |which: &str| match which {
        "old" => {
            // However it is written.
            let as_it_was = replaced_manifest(RECIPE);
            let spaced = RECIPE.replace("\npackages:", "\n\n// Once more.\npackages:");
            let turned = RECIPE.replace("curl, gunicorn,", "gunicorn, curl,");
            assert_eq!([replaced_manifest(&spaced), replaced_manifest(&turned)], [as_it_was; 2]);
            as_it_was
        }
        "new" => replaced_manifest(&changed()),
        _ => replaced_manifest(&RECIPE.replace("--workers 2", "--workers 3")),
    };
    assert_eq!(replaced("old"), None, "nothing was applied");
    apply(&fake, &plan_for(&fake, &old));
    assert_eq!(replaced("old"), None, "it is the last");
    let plan = plan_for(&fake, &new);
    let failed = engine(&fake).apply(&plan, "tester", None, &|| Err("no".to_owned()), &mut Silent);
    assert!(matches!(failed, Ok(Outcome::RolledBack { number: 2, .. })), "{failed:?}");
    assert_eq!((replaced("old"), replaced("new")), (None, None), "what went back has replaced nothing");
    apply(&fake, &plan_for(&fake, &new));
    assert_eq!((replaced("old"), replaced("new"), replaced("other")), (Some((1, 3, 3)), None, None));
    // Applies of old know the text of their manifest, and nothing of what it says.
    let path = "/var/lib/kldload/applies/000001/plan.json";
    let text = fake.text(path);
    let mut old_plan: serde_json::Value = serde_json::from_str(&text).expect("a plan");
    old_plan.as_object_mut().expect("a map").remove("meaning").expect("it is there");
    let put = |text: String| {
        let entry = Entry { node: Node::File(text.into_bytes()), mode: 0o600, uid: 0, gid: 0 };
        fake.put(path, &entry).expect("writable");
    };
    put(old_plan.to_string());
    assert_eq!(replaced_manifest(RECIPE), Some((1, 3, 3)));
    assert_eq!(replaced_manifest(&RECIPE.replace("\npackages:", "\n\npackages:")), None);
    put(text);
    take_back(&fake);
    assert_eq!(replaced("old"), None, "it holds again");
}

#[test]
fn packages_go_again_where_the_root_is_no_dataset() {
    let (fake, _, new) = applied();
    fake.root(Some("/dev/vda2 ext4"));
    let before = fake.machine();
    let plan = plan_for(&fake, &new);
    let package = plan.steps.iter().find(|step| step.kind == "package").expect("it installs git");
    assert!(package.notes.iter().any(|note| note.starts_with("`/` is not on ZFS")), "{:?}", package.notes);
    let outcome =
        engine(&fake).apply(&plan, "tester", None, &|| Err("the page is empty".to_owned()), &mut Silent);
    assert!(matches!(outcome, Ok(Outcome::RolledBack { .. })), "{outcome:?}");
    assert_same(&fake.machine(), &before, 0);
}

#[test]
fn a_pool_that_an_apply_does_not_touch_is_not_asked_whether_all_is_on_disk() {
    let (fake, _, new) = applied();
    fake.change(|machine| drop(machine.datasets.insert("backup".to_owned(), [].into())));
    fake.take_log();
    apply(&fake, &plan_for(&fake, &new));
    take_back(&fake);
    let log = fake.take_log();
    let synced: Vec<&str> = log.iter().filter_map(|command| command.strip_prefix("zpool sync")).collect();
    assert_eq!(synced, [" rpool", " rpool"], "{log:#?}");
}

#[test]
fn a_plan_says_what_it_costs_and_how_exposed_services_become() {
    let (fake, _, new) = applied();
    let plan = plan_for(&fake, &new);
    assert_eq!(plan.takes, 100 << 10);
    let package = plan.steps.iter().find(|step| step.kind == "package").expect("it installs git");
    assert_eq!(package.notes, ["downloads 24.4K, takes 100K"]);
    let exposures: Vec<_> = plan.exposures.iter().map(|e| (e.unit.as_str(), e.limit)).collect();
    let changed_ones = [("extra.service", None), ("webapp.service", Some(40))];
    assert_eq!(exposures, changed_ones, "the other services' files stay");
    let webapp = &plan.exposures[1];
    assert!(webapp.then.is_some() && webapp.then == webapp.now, "{webapp:?}");
    let tighter = changed().replace("PrivateTmp", "PrivateTmp  ProtectKernelLogs=no");
    let plan = plan_for(&fake, &wanted(&tighter));
    assert_ne!(plan.exposures[1].then, plan.exposures[1].now, "{:?}", plan.exposures);
    assert!(!fake.machine().files.keys().any(|path| path.starts_with("/run/kldload-plan")));
}

#[test]
fn what_recovers_is_there_before_anything_that_it_would_undo() {
    let recipe = wanted(RECIPE);
    let file = format!("/etc/systemd/system/{RECOVERY_UNIT}");
    for at in 0.. {
        let fake = machine_for(&[&recipe]);
        let plan = plan_for(&fake, &recipe);
        let bare = fake.machine().files;
        fake.fuel(Some(at));
        let _ = engine(&fake).apply(&plan, "tester", None, &|| Ok(()), &mut Silent);
        fake.fuel(None);
        let files = fake.machine().files;
        if files.contains_key(&format!("/etc/systemd/fake-state/{RECOVERY_UNIT}")) {
            break;
        }
        let mut new = files.into_iter().filter(|(path, entry)| bare.get(path) != Some(entry));
        // And the directories above it and the journal.
        let other = new.find(|(path, _)| !file.starts_with(path) && !"/var/lib/kldload".starts_with(path));
        assert!(other.is_none(), "{at}: nothing would undo {other:?}");
    }
    let fake = machine_for(&[&recipe]);
    apply(&fake, &plan_for(&fake, &recipe));
    let back = undo(&fake, None).expect("it can go back");
    let last: Vec<&str> = back.steps.iter().rev().take(2).map(|step| step.name.as_str()).collect();
    assert_eq!(last, [file.as_str(), RECOVERY_UNIT]);
}
