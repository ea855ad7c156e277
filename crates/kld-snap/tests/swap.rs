//! A swap, killed after each of its commands, and again on the way to its end.

use std::collections::BTreeMap;

use kld_host::Cmd;
use kld_host::zfs::parse_get;
use kld_snap::{Seen, Swap, has_grants, parse_marks};

/// A dataset of the fake pool.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Dataset {
    data: &'static str,
    local: BTreeMap<String, String>,
    origin: Option<String>,
    snapshots: Vec<&'static str>,
}

/// A pool that is on disk: each command is done whole or not at all, as one transaction of ZFS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Pool(BTreeMap<String, Dataset>);

impl Pool {
    fn new(local: &[(&str, &str)]) -> Self {
        let dataset = |data, local: &[(&str, &str)], snapshots: &[&'static str]| Dataset {
            data,
            local: local.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            origin: None,
            snapshots: snapshots.to_vec(),
        };
        Self(BTreeMap::from([
            ("t/srv".to_owned(), dataset("nothing", &[("mountpoint", "/srv"), ("canmount", "off")], &[])),
            ("t/srv/a b".to_owned(), dataset("now", local, &["old", "to", "newer"])),
        ]))
    }

    fn get(&self, name: &str, property: &str) -> (String, &'static str) {
        if let Some(value) = self.0[name].local.get(property) {
            return (value.clone(), "local");
        }
        match (property, name.rsplit_once('/')) {
            ("mountpoint", Some((parent, last))) if self.0.contains_key(parent) => {
                let above = self.get(parent, property).0;
                let at = if above.starts_with('/') { format!("{above}/{last}") } else { above };
                (at, "inherited")
            }
            ("canmount", _) => ("on".to_owned(), "default"),
            _ => ("0".to_owned(), "default"),
        }
    }

    /// The content that a start would show at a place.
    fn serves(&self, place: &str) -> Vec<&'static str> {
        let there = self
            .0
            .keys()
            .filter(|name| self.get(name, "mountpoint").0 == place && self.get(name, "canmount").0 == "on");
        there.map(|name| self.0[name].data).collect()
    }

    fn do_it(&mut self, cmd: &Cmd) {
        let words: Vec<String> = cmd.argv().map(|word| word.to_string_lossy().into_owned()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["clone", ref options @ .., snapshot, name] => {
                let (of, at) = snapshot.split_once('@').expect("a snapshot");
                assert!(self.0[of].snapshots.contains(&at) && !self.0.contains_key(name), "{cmd}");
                let local = options.chunks(2).map(|option| {
                    assert_eq!(option[0], "-o");
                    let (name, value) = option[1].split_once('=').expect("a property");
                    (name.to_owned(), value.to_owned())
                });
                let local = local.collect();
                let origin = Some(snapshot.to_owned());
                self.0.insert(name.to_owned(), Dataset { data: "then", local, origin, snapshots: vec![] });
            }
            ["set", ref pairs @ .., name] => {
                let dataset = self.0.get_mut(name).expect(name);
                for pair in pairs {
                    let (name, value) = pair.split_once('=').expect("a property");
                    dataset.local.insert(name.to_owned(), value.to_owned());
                }
            }
            ["inherit", property, name] => drop(self.0.get_mut(name).expect(name).local.remove(property)),
            ["rename", from, to] => {
                assert!(!self.0.contains_key(to), "{cmd}");
                let dataset = self.0.remove(from).expect(from);
                self.0.insert(to.to_owned(), dataset);
                for dataset in self.0.values_mut() {
                    let moved = dataset
                        .origin
                        .as_deref()
                        .and_then(|origin| origin.strip_prefix(from)?.strip_prefix('@'));
                    if let Some(at) = moved {
                        dataset.origin = Some(format!("{to}@{at}"));
                    }
                }
            }
            ["promote", name] => {
                let origin = self.0.get_mut(name).expect(name).origin.take().expect("a clone");
                let (of, at) = origin.split_once('@').expect("a snapshot");
                let parent = self.0.get_mut(of).expect(of);
                let count = parent.snapshots.iter().position(|known| *known == at).expect("there") + 1;
                let moved: Vec<_> = parent.snapshots.drain(..count).collect();
                parent.origin = Some(format!("{name}@{at}"));
                self.0.get_mut(name).expect(name).snapshots.splice(..0, moved);
            }
            ["destroy", name] => {
                let from = format!("{name}@");
                assert!(self.0[name].snapshots.is_empty(), "{cmd}: it has snapshots");
                assert!(
                    !self.0.values().any(|other| other.origin.as_ref().is_some_and(|o| o.starts_with(&from)))
                );
                self.0.remove(name);
            }
            _ => panic!("no such command: {cmd}"),
        }
    }

    fn properties(&self, name: &str) -> String {
        let mut names: Vec<&str> = self.0[name].local.keys().map(String::as_str).collect();
        names.extend(
            ["mountpoint", "canmount"].iter().filter(|name| !names.contains(name)).collect::<Vec<_>>(),
        );
        let line = |property: &&str| {
            let (value, source) = self.get(name, property);
            format!("{name}\t{property}\t{value}\t{source}\n")
        };
        names.iter().map(line).collect()
    }

    fn look(&self, swap: &Swap) -> Seen {
        let rows = self
            .0
            .iter()
            .map(|(name, dataset)| format!("{name}\t{}\n", dataset.origin.as_deref().unwrap_or("-")));
        swap.parse_look(&rows.collect::<String>())
    }

    /// As the next start does it: until `stop` commands are done, or to the end.
    fn recover(&mut self, stop: usize) {
        let marks = self.0.values().filter_map(|dataset| dataset.local.get("org.kldload:swap"));
        for swap in parse_marks(&marks.map(|mark| format!("{mark}\n")).collect::<String>()) {
            let (_, todo) = swap.recover(self.look(&swap));
            todo.iter().take(stop).for_each(|cmd| self.do_it(cmd));
        }
    }
}

const DATASET: &str = "t/srv/a b";
const ASIDE: &str = "t/srv/a b.before-20261127-120000";

fn law(local: &[(&str, &str)], place: &str) {
    let before = Pool::new(local);
    let properties = parse_get(&before.properties(DATASET)).expect("readable");
    let snapshot = format!("{DATASET}@to");
    let swap = Swap::new(DATASET, &snapshot, &properties, false, "20261127-120000").expect("it can be");
    let mut all = vec![swap.prepare(&properties)];
    all.extend(swap.begin());
    all.extend(swap.finish(Seen { incoming: true, aside: true, is_clone: true }));

    let mut after = before.clone();
    all.iter().for_each(|cmd| after.do_it(cmd));
    assert_eq!(after.serves(place), ["then"]);
    assert_eq!((after.0[ASIDE].data, &after.0[ASIDE].snapshots[..]), ("now", &["newer"][..]));
    assert_eq!(after.0[DATASET].snapshots, ["old", "to"]);
    let mut want = before.0[DATASET].local.clone();
    want.entry("canmount".to_owned()).or_insert_with(|| "on".to_owned());
    assert_eq!(after.0[DATASET].local, want, "what was set is set");
    assert_eq!(after.0[DATASET].origin, None);

    let (mut went_back, mut went_on) = (0, 0);
    for first in 0..=all.len() {
        let mut killed = before.clone();
        for cmd in &all[..first] {
            killed.do_it(cmd);
            let shown = killed.serves(place);
            assert!(!shown.is_empty(), "a start would show nothing after {cmd}");
        }
        for second in 0..=all.len() {
            let mut pool = killed.clone();
            pool.recover(second);
            assert!(!pool.serves(place).is_empty(), "{first} {second}: {pool:?}");
            pool.recover(usize::MAX);
            match pool.0.contains_key(ASIDE) {
                true => assert_eq!(pool, after, "{first} {second}"),
                false => assert_eq!(pool, before, "{first} {second}"),
            }
            if pool == before { went_back += 1 } else { went_on += 1 }
        }
    }
    assert!(went_back > 0 && went_on > 0);
}

#[test]
fn it_is_one_or_the_other_wherever_it_is_killed() {
    law(&[("recordsize", "8192")], "/srv/a b");
    law(
        &[("mountpoint", "/var/lib/db"), ("quota", "99"), ("canmount", "on"), ("com.example:x", "a b")],
        "/var/lib/db",
    );
    law(&[("mountpoint", "/var/lib/db"), ("reservation", "4096"), ("refreservation", "1024")], "/var/lib/db");
}

#[test]
fn what_was_mounted_is_mounted_whoever_had_done_it() {
    let mounts = |properties: &str| {
        let text: String = properties.lines().map(|line| format!("t/a\t{line}\n")).collect();
        let properties = parse_get(&text).expect("readable");
        let swap = Swap::new("t/a", "t/a@x", &properties, false, "20261127-120000").expect("it can be");
        // Also after a start, of which only the mark knows.
        let mark = serde_json::to_string(&swap).expect("written");
        assert_eq!(parse_marks(&mark), std::slice::from_ref(&swap));
        let old = mark.replace(r#""mounted":true,"#, "").replace(r#""mounted":false,"#, "");
        assert_ne!(old, mark);
        (swap.mounts(), parse_marks(&old)[0].mounts())
    };
    let at = |canmount: &str, mounted: &str| {
        mounts(&format!("mountpoint\t/x\tlocal\ncanmount\t{canmount}\tlocal\nmounted\t{mounted}\t-\n"))
    };
    assert_eq!(at("on", "yes"), (true, true));
    assert_eq!(at("noauto", "yes"), (true, false));
    assert_eq!(at("on", "no"), (false, true));
    assert_eq!(at("noauto", "no"), (false, false));
    assert_eq!(mounts("mountpoint\tlegacy\tlocal\ncanmount\ton\tdefault\nmounted\tno\t-\n"), (false, false));
    assert_eq!(mounts("volsize\t8192\tlocal\n"), (false, false));
}

#[test]
fn what_was_granted_on_the_dataset_itself_is_known() {
    let text = "---- Permissions on t/srv/a b ----------------------------------------\n\
                Local+Descendent permissions:\n\tuser backup send,snapshot\n\
                ---- Permissions on t ------------------------------------------------\n\
                Local permissions:\n\tgroup staff mount\n";
    assert!(has_grants(text, DATASET) && has_grants(text, "t"));
    assert!(!has_grants(text, "t/srv") && !has_grants(text, "t/srv/a") && !has_grants("", DATASET));
    // ZFS draws no line behind a long name.
    let long = "a".repeat(90);
    assert!(has_grants(&format!("---- Permissions on {long} \n"), &long));
}

#[test]
fn what_cannot_change_places_is_refused() {
    let refused = |properties: &str, children: bool, dataset: &str| {
        let text: String = properties.lines().map(|line| format!("{dataset}\t{line}\n")).collect();
        let properties = parse_get(&text).expect("readable");
        let snapshot = format!("{dataset}@x");
        let error =
            Swap::new(dataset, &snapshot, &properties, children, "20261127-120000").expect_err("refused");
        assert!(error.hint().is_some());
        error.to_string()
    };
    assert!(refused("mountpoint\t/x\tlocal\n", true, "t/a").contains("below it"));
    assert!(refused("mountpoint\t/\tlocal\n", false, "t/a").contains("it is a system"));
    assert!(refused("mountpoint\tlegacy\tlocal\nmounted\tyes\t-\n", false, "t/a").contains("by `mount`"));
    assert!(refused("encryptionroot\tt/a\t-\n", false, "t/a").contains("encryption"));
    assert!(refused("", false, &format!("t/{}", "a".repeat(240))).contains("too long"));
    assert_eq!(parse_marks("-\nnonsense\n{}\n"), []);
}
