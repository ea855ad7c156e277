//! What a machine takes from outside: the release it must be, packages in locked versions, secrets that people give.

mod support;

use std::collections::BTreeMap;

use kld_engine::{
    Action, Cause, Entry, History, Host as _, Locked, LockedPackage, Node, OffLock, Outcome, Plan, PlanError,
    Wanted, plan, undo,
};
use support::fake::packages::digest_of;
use support::fake::{Deb, Fake};
use support::{RECIPE, Silent, apply, engine, machine_for, plan_for, wanted};

const OS_RELEASE: &str = "/usr/lib/os-release";

fn text(text: &str) -> Entry {
    Entry { node: Node::File(text.as_bytes().to_vec()), mode: 0o644, uid: 0, gid: 0 }
}

/// Why there is no plan, and what to do; nothing was touched.
fn refused(fake: &Fake, wanted: &Wanted) -> String {
    let before = (fake.machine(), fake.changes());
    let error = plan(fake, wanted, &BTreeMap::new()).expect_err("it is refused");
    assert_eq!((fake.machine(), fake.changes()), before, "nothing is touched");
    format!("{error}\n{}", error.hint().unwrap_or_default())
}

#[test]
fn a_manifest_for_another_release_is_refused() {
    let wanted = wanted(RECIPE);
    let fake = machine_for(&[&wanted]);
    for (release, said) in [
        ("ID=debian\nVERSION_ID=\"12\"\n", "this machine runs debian 12, and the manifest is for debian 13"),
        ("ID=ubuntu\nVERSION_ID=\"13\"\n", "this machine runs ubuntu 13,"),
        ("ID=debian\n", "this machine runs debian without a release,"),
        ("NAME=x\n", "this machine runs something that has no os-release,"),
    ] {
        fake.put(OS_RELEASE, &text(release)).expect("written");
        let error = refused(&fake, &wanted);
        assert!(error.starts_with(said) && error.contains("those of debian 13"), "{error}");
    }
    // A file in place of the link wins.
    fake.put("/etc/os-release", &text("ID=debian\nVERSION_ID=13\n")).expect("written");
    assert!(!plan_for(&fake, &wanted).is_empty());
}

/// A machine whose archive has several versions of `curl`, which needs `libcurl`.
fn archive() -> (Fake, Wanted) {
    let wanted = wanted(RECIPE);
    let fake = machine_for(&[&wanted]);
    fake.change_archive(|archive| {
        let curl = archive.get_mut("curl").expect("the recipe asks for it");
        curl.files.extend([("/usr/bin/curl", "curl"), ("/etc/curl.conf", "default")]);
        (curl.depends, curl.versions) = (vec!["libcurl"], vec!["8.2-1", "8.1-1", "8.0-1"]);
        archive.insert("libcurl".to_owned(), Deb { versions: vec!["4.2", "4.1"], ..Deb::default() });
    });
    (fake, wanted)
}

/// A lock file of everything that the manifest asks for, as its archive has it, and of these.
fn locked(wanted: &Wanted, versions: &[(&str, &str)]) -> Wanted {
    let pairs = wanted.system.packages.iter().map(|item| (item.value.as_str(), "1.0"));
    let package = |name: &str, version: &str| LockedPackage {
        version: version.to_owned(),
        sha256: Some(digest_of(name, version)),
    };
    let packages = pairs.chain(versions.iter().copied());
    let packages = packages.map(|(name, version)| (name.to_owned(), package(name, version))).collect();
    wanted.clone().locked(Some(Locked { file: "appliance.manifest.lock".to_owned(), packages }))
}

fn package_step(plan: &Plan) -> &kld_engine::Step {
    plan.steps.iter().find(|step| step.kind == "package").expect("it installs")
}

fn installed(fake: &Fake) -> String {
    fake.text("/var/lib/dpkg/status")
}

#[test]
fn packages_come_in_locked_versions_with_what_they_need() {
    let (fake, wanted) = archive();
    let wanted = locked(&wanted, &[("curl", "8.1-1"), ("libcurl", "4.1")]);
    let plan = plan_for(&fake, &wanted);
    let step = package_step(&plan);
    assert!(step.notes.iter().any(|note| note == "curl 8.1-1 (locked)"), "{step:#?}");
    assert!(plan.off_lock.is_empty(), "{:?}", plan.off_lock);
    fake.take_log();
    apply(&fake, &plan);
    let log = fake.take_log();
    let install = log.iter().find(|line| line.contains(" install ")).expect("it installs");
    assert!(install.contains(" curl=8.1-1 ") && install.contains(" libcurl=4.1"), "{install}");
    assert!(installed(&fake).contains("curl 8.1-1\n") && installed(&fake).contains("libcurl 4.1\n"));
    assert!(plan_for(&fake, &wanted).is_empty(), "{:#?}", plan_for(&fake, &wanted));

    // Without a lock file, whatever the archive offers, and what is there is good.
    let (fake, wanted) = archive();
    let plan = plan_for(&fake, &wanted);
    assert!(!package_step(&plan).notes.iter().any(|note| note.contains("locked")));
    apply(&fake, &plan);
    assert!(installed(&fake).contains("curl 8.2-1\n") && installed(&fake).contains("libcurl 4.2\n"));
}

#[test]
fn another_version_than_the_locked_one_is_a_change_that_goes_back() {
    let (fake, wanted) = archive();
    let old = locked(&wanted, &[("curl", "8.1-1"), ("libcurl", "4.2")]);
    apply(&fake, &plan_for(&fake, &old));
    // Up, and down.
    for (version, now) in [("8.2-1", "8.1-1"), ("8.0-1", "8.1-1")] {
        let new = locked(&wanted, &[("curl", version), ("libcurl", "4.1")]);
        let plan = plan_for(&fake, &new);
        let step = package_step(&plan);
        assert_eq!((step.name.as_str(), step.action), ("curl", Action::Change));
        assert_eq!(step.summary, "change the version");
        assert_eq!(step.notes[0], format!("curl {now} → {version} (locked)"));
        let off = OffLock { name: "libcurl".into(), installed: "4.2".into(), locked: "4.1".into() };
        assert_eq!(plan.off_lock, [off], "said, and left alone");
        let before = fake.machine();
        let fails = || Err("it does not hold".to_owned());
        let outcome = engine(&fake).apply(&plan, "tester", None, &fails, &mut Silent);
        assert!(matches!(outcome, Ok(Outcome::RolledBack { .. })), "{outcome:?}");
        assert!(fake.machine() == before, "{version}");
    }
    let new = locked(&wanted, &[("curl", "8.0-1"), ("libcurl", "4.2")]);
    apply(&fake, &plan_for(&fake, &new));
    assert_eq!(fake.text("/usr/bin/curl"), "curl 8.0-1");
    assert_eq!(fake.text("/etc/curl.conf"), "default 8.1-1", "what is somebody's stays");
    assert_eq!(History::new(&fake).drift().expect("readable"), []);
    // An undo leaves it, as all packages: it was there before, and is not to be purged.
    let back = undo(&fake, None).expect("it can be taken back");
    let commands: Vec<&str> = back.left.iter().map(|left| left.remove_with.as_str()).collect();
    assert_eq!(commands, ["apt-get install --allow-downgrades curl=8.1-1"]);
    // Somebody upgrades it by hand, and removes another one.
    let status = installed(&fake).replace("curl 8.0-1", "curl 8.2-1");
    fake.put("/var/lib/dpkg/status", &text(&status)).expect("written");
    assert_eq!(History::new(&fake).drift().expect("readable").len(), 1);
    assert_eq!(package_step(&plan_for(&fake, &new)).cause, Cause::Drift);
    let status = status.replace("gunicorn 1.0\n", "");
    fake.put("/var/lib/dpkg/status", &text(&status)).expect("written");
    let plan = plan_for(&fake, &new);
    let step = package_step(&plan);
    assert_eq!((step.name.as_str(), step.cause), ("curl, gunicorn", Cause::Drift));
    assert!(step.notes.iter().any(|note| note == "curl 8.2-1 → 8.0-1 (locked)"), "{step:#?}");
    let removed = "removed by hand since the last apply: gunicorn";
    assert!(step.notes.iter().any(|note| note == removed), "{step:#?}");
}

#[test]
fn a_service_starts_again_when_what_it_runs_is_replaced() {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libcurl.so.4";
    let (fake, wanted) = archive();
    fake.change_archive(|archive| {
        // Where packages of old say that it is.
        let own = LIBRARY.strip_prefix("/usr").expect("it is below");
        archive.get_mut("curl").expect("it is there").files.push((own, "library"));
    });
    let versions = |curl| locked(&wanted, &[("curl", curl), ("libcurl", "4.2")]);
    apply(&fake, &plan_for(&fake, &versions("8.1-1")));
    let line = |path: &str| format!("7f0c-7f0d r-xp 00000000 00:1b 9      {path}\n");
    for (path, said) in [
        ("/sys/fs/cgroup/system.slice/webapp.service/cgroup.procs", "41\n42\n".to_owned()),
        ("/sys/fs/cgroup/system.slice/postgresql@17-main.service/cgroup.procs", "43\n".to_owned()),
        ("/proc/42/maps", line("/usr/bin/python3") + &line(LIBRARY)),
        ("/proc/43/maps", line("/usr/lib/postgresql/17/bin/postgres")),
    ] {
        fake.put(path, &text(&said)).expect("written");
    }
    let plan = plan_for(&fake, &versions("8.2-1"));
    let told = plan.restarts.iter().map(|step| (step.name.as_str(), step.because.reason.as_str()));
    let reason = format!("it runs {LIBRARY}, which its package replaces");
    assert_eq!(
        told.collect::<Vec<_>>(),
        [("webapp.service", reason.as_str())],
        "who has nothing of it runs on"
    );
    assert!(plan_for(&fake, &versions("8.1-1")).is_empty());
}

#[test]
fn where_no_snapshot_leads_back_another_version_is_only_said() {
    let (fake, wanted) = archive();
    apply(&fake, &plan_for(&fake, &wanted));
    fake.root(Some("/dev/vda2 ext4"));
    let plan = plan_for(&fake, &locked(&wanted, &[("curl", "8.0-1")]));
    assert!(plan.steps.is_empty(), "{plan:#?}");
    let off = OffLock { name: "curl".into(), installed: "8.2-1".into(), locked: "8.0-1".into() };
    assert_eq!(plan.off_lock, [off]);
}

#[test]
fn what_cannot_be_had_as_locked_is_refused() {
    let (fake, wanted) = archive();
    for (lock, said) in [
        (locked(&wanted, &[("curl", "7.9-1")]), "Version '7.9-1' for 'curl' was not found"),
        (locked(&wanted, &[("curl", "8.1-1"), ("libcurl", "3")]), "Version '3' for 'libcurl' was not found"),
    ] {
        let error = refused(&fake, &lock);
        assert!(error.contains(said) && error.contains("apt-get update"), "{error}");
        assert!(error.contains("`cp IMAGE.lock appliance.manifest.lock`"), "{error}");
    }
    let mut lock = locked(&wanted, &[("curl", "8.1-1")]);
    let packages = &mut lock.lock.as_mut().expect("there is one").packages;
    packages.get_mut("curl").expect("it is in it").sha256 = Some("ab".repeat(32));
    let error = refused(&fake, &lock);
    let found = digest_of("curl", "8.1-1");
    assert!(error.contains("the archive has another file of 8.1-1") && error.contains(&found), "{error}");
    lock.lock.as_mut().expect("there is one").packages.remove("curl");
    let error = refused(&fake, &lock);
    assert!(error.contains("`curl`: it is not in the lock file `appliance.manifest.lock`"), "{error}");
}

#[test]
fn a_secret_that_nobody_has_given_is_asked_for_before_anything_is_touched() {
    let wanted =
        wanted(&(RECIPE.to_owned() + "\nsecrets:\n  token: generate 32 bytes\n  answer: supplied\n"));
    let fake = machine_for(&[&wanted]);
    let error = refused(&fake, &wanted);
    assert!(error.starts_with("the secret `answer` is not on this machine"), "{error}");
    assert!(error.contains("`kldload secret set answer FILE`"), "{error}");
    // Sealed already, or given to the machine when it was started.
    for path in ["/etc/kldload/secrets/answer.cred", "/run/credentials/@system/kldload.secret.answer"] {
        fake.put(path, &text("sealed")).expect("written");
        assert!(!matches!(plan(&fake, &wanted, &BTreeMap::new()), Err(PlanError::NoSecret { .. })), "{path}");
        fake.remove(path).expect("removed");
    }
    // One that was sealed before stays when an apply goes back.
    fake.put("/etc/kldload/secrets/answer.cred", &text("sealed")).expect("written");
    let plan = plan_for(&fake, &wanted);
    let fails = || Err("it does not hold".to_owned());
    engine(&fake).apply(&plan, "tester", None, &fails, &mut Silent).expect("it goes back");
    assert_eq!(fake.text("/etc/kldload/secrets/answer.cred"), "sealed");
}
