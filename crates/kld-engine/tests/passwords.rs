//! What must hold of passwords: they are the manifest's, and nobody sees a hash but root in `/etc/shadow`.

mod support;

use std::fmt::Write as _;

use kld_engine::{Entry, History, Host as _, Node, Outcome, Plan, Progress, State, Step};
use support::fake::Fake;
use support::{RECIPE, apply, engine, machine_for, plan_for, take_back, wanted};

const OLD: &str = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7";
const NEW: &str =
    "$6$saltsaltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/";

/// The recipe with people who log in at the console.
fn people(ada: Option<&str>, bob: Option<&str>) -> String {
    let line = |name: &str, hash: Option<&str>| {
        let hash = hash.map_or_else(String::new, |hash| format!("    password_hash: {hash}\n"));
        format!("  {name}:\n    admin: yes\n{hash}")
    };
    let users = format!("  webapp:  system  home=/srv/webapp\n{}{}", line("ada", ada), line("bob", bob));
    RECIPE.replace("  webapp:  system  home=/srv/webapp\n", &users)
}

/// All that an engine says.
#[derive(Default)]
struct Said(String);

impl Progress for Said {
    fn environment(&mut self, name: &str) {
        self.0 += name;
    }
    fn no_environment(&mut self, why: &str) {
        self.0 += why;
    }
    fn step(&mut self, _: usize, _: usize, step: &Step) {
        let _ = write!(self.0, "{step:?}");
    }
    fn back(&mut self, why: &str) {
        self.0 += why;
    }
    fn undo(&mut self, step: &Step) {
        let _ = write!(self.0, "{step:?}");
    }
    fn proving(&mut self) {}
}

/// Brings the machine to a manifest; returns what was told, and what anybody could have seen of it.
fn bring(fake: &Fake, manifest: &str) -> (Vec<String>, String) {
    let plan = plan_for(fake, &wanted(manifest));
    let accounts = plan.steps.iter().filter(|step| step.kind == "account");
    (accounts.map(|step| format!("{} {}", step.name, step.summary)).collect(), carry_out(fake, &plan))
}

fn carry_out(fake: &Fake, plan: &Plan) -> String {
    let mut said = Said(format!("{plan:?}") + &serde_json::to_string(plan).expect("plain data"));
    let outcome = engine(fake).apply(plan, "tester", None, &|| Ok(()), &mut said);
    let _ = write!(said.0, "{outcome:?}");
    said.0
}

fn shadow(fake: &Fake, name: &str) -> String {
    let text = fake.text("/etc/shadow");
    let line = text.lines().find(|line| line.starts_with(&format!("{name}:"))).expect("it has a line");
    line.split(':').nth(1).expect("a hash").to_owned()
}

/// Neither hash is anywhere but in `/etc/shadow`: not in a file, a command, or what was said.
fn nobody_has_seen_it(fake: &Fake, said: &str, at: &str) {
    let mut seen = fake.take_log().join("\n") + said;
    for (path, text) in fake.texts() {
        if path != "/etc/shadow" {
            let _ = writeln!(seen, "{path}: {text}");
        }
    }
    for hash in [OLD, NEW] {
        assert!(
            !seen.contains(hash),
            "{at}: {}",
            seen.lines().find(|line| line.contains(hash)).unwrap_or_default()
        );
    }
}

#[test]
fn passwords_are_the_manifests_and_nobody_sees_them() {
    let fake = machine_for(&[&wanted(&people(None, None))]);
    let (told, said) = bring(&fake, &people(Some(OLD), None));
    assert_eq!(told, ["ada person 1000, with a password", "bob person 1001", "webapp system account 800"]);
    assert_eq!((shadow(&fake, "ada").as_str(), shadow(&fake, "bob").as_str()), (OLD, "!"));
    nobody_has_seen_it(&fake, &said, "made");
    assert!(plan_for(&fake, &wanted(&people(Some(OLD), None))).is_empty());

    let (told, said) = bring(&fake, &people(Some(NEW), None));
    assert_eq!(told, ["ada password changes"]);
    assert_eq!(shadow(&fake, "ada"), NEW);
    nobody_has_seen_it(&fake, &said, "changed");

    // Somebody has changed it by hand, and somebody whose password the manifest does not give his own.
    for name in ["ada", "bob"] {
        let set = kld_host::Cmd::new("chpasswd").arg("--encrypted").stdin_bytes(format!("{name}:$5$mine\n"));
        fake.run(&set).expect("set");
    }
    let plan = plan_for(&fake, &wanted(&people(Some(NEW), None)));
    let told: Vec<_> = plan.steps.iter().map(|step| (step.name.as_str(), step.cause)).collect();
    assert_eq!(told, [("ada", kld_engine::Cause::Drift)]);
    bring(&fake, &people(Some(NEW), None));

    // It leaves the manifest: what the manifest gave is locked, and nothing else.
    let (told, said) = bring(&fake, &people(None, None));
    assert_eq!(told, ["ada password is locked"]);
    assert_eq!((shadow(&fake, "ada").as_str(), shadow(&fake, "bob").as_str()), ("!", "$5$mine"));
    nobody_has_seen_it(&fake, &said, "locked");
    assert!(plan_for(&fake, &wanted(&people(None, None))).is_empty());
}

#[test]
fn taking_back_keeps_the_accounts_that_people_have_made_since() {
    let fake = machine_for(&[&wanted(&people(None, None))]);
    bring(&fake, &people(None, None));
    let carol =
        kld_host::Cmd::new("useradd").args(["--uid", "1005", "--gid", "1005", "--home-dir", "/home/carol"]);
    let group = kld_host::Cmd::new("groupadd").args(["--force", "--gid", "1005", "carol"]);
    fake.run(&group).expect("made");
    fake.run(&carol.args(["--shell", "/bin/bash", "--create-home", "--groups", "sudo", "carol"]))
        .expect("made");
    take_back(&fake);
    for path in ["/etc/passwd", "/etc/group"] {
        let text = fake.text(path);
        assert!(text.contains("carol:x:1005:"), "{path}: {text}");
        assert!(!text.contains("ada") && !text.contains("bob"), "{path}: {text}");
    }
    let group = fake.text("/etc/group");
    assert!(group.lines().any(|line| line.starts_with("sudo:") && line.ends_with("carol")), "{group}");
}

#[test]
fn taking_back_brings_the_old_one_back_and_leaves_those_of_others() {
    let fake = machine_for(&[&wanted(&people(None, None))]);
    bring(&fake, &people(Some(OLD), None));
    bring(&fake, &people(Some(NEW), Some(NEW)));
    let set = kld_host::Cmd::new("chpasswd").arg("--encrypted").stdin_bytes("bob:$5$mine\n");
    bring(&fake, &people(Some(NEW), None));
    fake.run(&set).expect("set");
    let take_back = |said: &mut Said| {
        let plan = kld_engine::undo(&fake, None).expect("there is a way back");
        said.0 += &carry_out(&fake, &plan);
        plan.undoes[0]
    };
    let mut said = Said::default();
    assert_eq!(take_back(&mut said), 3);
    assert_eq!(take_back(&mut said), 2);
    assert_eq!((shadow(&fake, "ada").as_str(), shadow(&fake, "bob").as_str()), (OLD, "!"));
    nobody_has_seen_it(&fake, &said.0, "taken back");
    // Long past, when the snapshot is gone: the account goes, and what is not known stays.
    for name in fake.snapshots() {
        let _ = fake.run(&kld_host::Cmd::new("zfs").args(["destroy", &name]));
    }
    assert_eq!(take_back(&mut said), 1);
    assert!(!fake.text("/etc/shadow").contains("ada:") && !fake.text("/etc/passwd").contains("ada:"));
}

#[test]
fn whatever_dies_or_fails_the_password_is_the_old_or_the_new_one_and_nobody_has_seen_it() {
    let (old, new) = (people(Some(OLD), None), people(Some(NEW), None));
    let begin = || {
        let fake = machine_for(&[&wanted(&old)]);
        bring(&fake, &old);
        fake
    };
    for root in [None, Some("/dev/vda2 ext4")] {
        let fake = begin();
        fake.root(root);
        let start = fake.changes();
        bring(&fake, &new);
        let length = fake.changes() - start;
        let mut done = 0;
        for fails in [false, true] {
            for number in 0..=length {
                let fake = begin();
                fake.root(root);
                let before = fake.text("/etc/shadow");
                let plan = plan_for(&fake, &wanted(&new));
                if fails {
                    fake.refuse(Some(number));
                } else {
                    fake.fuel(Some(number));
                }
                let mut said = carry_out(&fake, &plan);
                fake.fuel(None);
                fake.refuse(None);
                let mut told = Said::default();
                engine(&fake).recover(&mut told).expect("it goes back");
                said += &told.0;
                let record = History::new(&fake).record(2).expect("readable");
                let is_done = record.is_some_and(|record| record.state == State::Committed);
                let at = format!("{root:?} {fails} {number}");
                if is_done {
                    assert_eq!(shadow(&fake, "ada"), NEW, "{at}");
                } else {
                    assert_eq!(fake.text("/etc/shadow"), before, "{at}");
                }
                match root {
                    None => nobody_has_seen_it(&fake, &said, &at),
                    // There is no snapshot: the file is kept as it was, for root alone.
                    Some(_) => assert!(!said.contains(OLD) && !said.contains(NEW), "{at}"),
                }
                let kept = fake
                    .texts()
                    .into_iter()
                    .filter(|(path, text)| path.contains("/kept/") && text.contains(OLD));
                for (path, _) in kept {
                    let Ok(Some(Entry { mode, node: Node::File(_), .. })) = fake.entry(&path) else {
                        panic!("{path}")
                    };
                    assert_eq!((mode, root.is_some()), (0o600, true), "{at}");
                }
                done += usize::from(is_done);
            }
        }
        assert!(done >= 2 && done < length, "{done} of {length}");
    }
}

#[test]
fn a_plan_from_disk_has_no_passwords_and_says_so() {
    let fake = machine_for(&[&wanted(&people(None, None))]);
    let plan = plan_for(&fake, &wanted(&people(Some(OLD), None)));
    let plan = serde_json::from_str(&serde_json::to_string(&plan).expect("plain data")).expect("a plan");
    let outcome = engine(&fake).apply(&plan, "tester", None, &|| Ok(()), &mut Said::default());
    let Ok(Outcome::RolledBack { what, error, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(
        (what.as_str(), error.as_str()),
        ("account ada", "the secret of `account ada` is not at hand")
    );
}

/// A package or a person has made the group before, with whatever number was free.
#[test]
fn an_account_joins_a_group_of_its_name_that_has_another_number() {
    let manifest = people(None, None);
    let fake = machine_for(&[&wanted(&manifest)]);
    let groups = fake.text("/etc/group") + "webapp:x:4321:\n";
    let node = Node::File(groups.into_bytes());
    fake.put("/etc/group", &Entry { node, mode: 0o644, uid: 0, gid: 0 }).expect("written");
    assert!(matches!(apply(&fake, &plan_for(&fake, &wanted(&manifest))), Outcome::Committed { .. }));
    let passwd = fake.text("/etc/passwd");
    assert!(passwd.lines().any(|line| line.starts_with("webapp:x:800:4321:")), "{passwd}");
    assert!(plan_for(&fake, &wanted(&manifest)).is_empty());
}
