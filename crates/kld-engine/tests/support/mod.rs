//! Manifests, and machines in memory that fit them.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod fake;
pub(crate) mod land;
pub(crate) mod many;
pub(crate) mod transcript;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kld_engine::{
    Digests, Engine, Entry, History, Host, Node, Outcome, Plan, Progress, Step, Wanted, plan, undo,
};
use kld_system::{Layer, render};

use fake::boot::disks::ESPS;
use fake::{Deb, Fake, Machine};

pub(crate) const RECIPE: &str = include_str!("../../../../recipes/webapp/appliance.manifest");

/// What a manifest wants; its files are those of recipes/webapp.
pub(crate) fn wanted(manifest: &str) -> Wanted {
    let checked = kld_manifest::check(manifest);
    let appliance = checked.appliance.unwrap_or_else(|| panic!("{:#?}", checked.diagnostics));
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/webapp");
    let digests = Digests::of(manifest, &appliance);
    Wanted::new(render(&appliance).expect("it renders"), &dir, digests).expect("its files are there")
}

/// A Debian whose archive has all packages that these manifests ask for, and whose accounts own all their files.
pub(crate) fn machine_for(all: &[&Wanted]) -> Fake {
    let mut archive: BTreeMap<String, Deb> = BTreeMap::new();
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let asked = |wanted: &Wanted| -> BTreeSet<String> {
        let packages = wanted.system.packages.iter().filter(|item| item.because.layer != Layer::Boot);
        packages.map(|item| item.value.to_string()).collect()
    };
    let in_common = all.iter().map(|wanted| asked(wanted)).reduce(|a, b| &a & &b).unwrap_or_default();
    for wanted in all {
        for name in asked(wanted) {
            let deb = Deb {
                files: vec![
                    (leak(format!("/usr/lib/{name}/program")), "program"),
                    (leak(format!("/etc/{name}.conf")), "default"),
                ],
                ..Deb::default()
            };
            archive.entry(name).or_insert(deb);
        }
        let first = in_common.first().and_then(|name| archive.get_mut(name)).expect("all ask for one");
        // Those that the manifest does not write itself.
        let units = wanted.system.units.iter().map(|unit| unit.unit.to_string());
        let services = wanted.system.node.iter().flat_map(|node| &node.services);
        let of_packages = units
            .chain(services.map(|service| service.unit.clone()))
            .filter(|unit| !wanted.files.contains_key(&format!("/etc/systemd/system/{unit}")));
        first.units.extend(of_packages.map(leak));
        first.units.extend([
            "nftables.service",
            "kldload-identity.service",
            "systemd-sysctl.service",
            "systemd-modules-load.service",
        ]);
        first.units.extend([
            "systemd-tmpfiles-setup.service",
            "systemd-resolved.service",
            "systemd-timesyncd.service",
        ]);
        first.units.extend(["prometheus-node-exporter.service", "systemd-journald.service"]);
    }
    let fake = Fake::new(archive);
    for file in
        all.iter().flat_map(|wanted| &wanted.files).filter(|(path, _)| path.starts_with("/etc/sysctl.d/"))
    {
        let Node::File(text) = &file.1.node else { continue };
        let text = String::from_utf8_lossy(text).into_owned();
        let keys = text.lines().filter_map(|line| Some(line.split_once('=')?.0.trim().to_owned()));
        // That door does not open again.
        for key in keys.filter(|key| key != "kernel.unprivileged_bpf_disabled") {
            let entry = Entry { node: Node::File(b"7\n".to_vec()), mode: 0o644, uid: 0, gid: 0 };
            fake.change(|machine| {
                drop(machine.files.insert(format!("/proc/sys/{}", key.replace('.', "/")), entry))
            });
        }
    }
    let mut passwd = String::from("root:x:0:0:root:/root:/bin/bash\n");
    let mut group = String::from("root:x:0:\nsudo:x:27:\n");
    let mut names: Vec<&str> = all
        .iter()
        .flat_map(|wanted| {
            let own = |name: &str| wanted.system.users.iter().any(|user| user.name.as_str() == name);
            let files = wanted.files.values().flat_map(|file| [file.owner.0.as_str(), file.owner.1.as_str()]);
            let mounts = wanted.system.datasets.iter().filter_map(|d| d.owner.as_ref());
            let mounts = mounts.flat_map(|owner| [owner.user.as_str(), owner.group.as_str()]);
            files.chain(mounts).filter(move |name| *name != "root" && !own(name))
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    for (number, name) in (100..).zip(names) {
        passwd += &format!("{name}:x:{number}:{number}::/:/usr/sbin/nologin\n");
        group += &format!("{name}:x:{number}:\n");
    }
    fake.change(|machine| {
        for (path, text) in [("/etc/passwd", &passwd), ("/etc/group", &group)] {
            let entry = machine.files.get_mut(path).expect("it is there");
            entry.node = kld_engine::Node::File(text.clone().into_bytes());
        }
    });
    fake
}

pub(crate) fn plan_for(host: &dyn Host, wanted: &Wanted) -> Plan {
    let before = History::new(host).applied().expect("it can be read");
    plan(host, wanted, &before).unwrap_or_else(|error| panic!("{error:?}"))
}

pub(crate) struct Silent;

impl Progress for Silent {
    fn environment(&mut self, _: &str) {}
    fn no_environment(&mut self, _: &str) {}
    fn step(&mut self, _: usize, _: usize, _: &Step) {}
    fn back(&mut self, _: &str) {}
    fn undo(&mut self, _: &Step) {}
    fn proving(&mut self) {}
}

/// An engine as the program uses it.
pub(crate) fn engine(fake: &Fake) -> Engine<'_> {
    Engine::new(fake).with_environments(fake)
}

pub(crate) fn apply(fake: &Fake, plan: &Plan) -> Outcome {
    engine(fake)
        .apply(plan, "tester", None, &|| Ok(()), &mut Silent)
        .unwrap_or_else(|error| panic!("{error:?}"))
}

/// The recipe with a dataset that only the machine can make.
pub(crate) fn recipe() -> String {
    RECIPE.replace(
        "  rpool/srv/webapp-db:",
        "  rpool/srv/safe:  encryption=on  recordsize=64k  quota=1G\n  rpool/srv/webapp-db:",
    )
}

/// A machine that has died at `at` dies once more on the way back, and again, and then it stays alive.
pub(crate) fn recover_dying(fake: &Fake, at: usize) {
    for again in [at % 7, at % 3] {
        fake.fuel(Some(again));
        let _ = engine(fake).recover(&mut Silent);
    }
    fake.fuel(None);
    engine(fake).recover(&mut Silent).unwrap_or_else(|error| panic!("{at}: {error:?}"));
}

/// Takes back what was applied last.
pub(crate) fn take_back(fake: &Fake) -> Outcome {
    let plan = undo(fake, None).unwrap_or_else(|error| panic!("{error:?}"));
    apply(fake, &plan)
}

/// The recipe after somebody has thought about it again: one more dataset of that sort, and one in it.
pub(crate) fn changed() -> String {
    recipe()
        .replace("encryption=on  recordsize=64k  quota=1G", "encryption=on  recordsize=128k  atime=off")
        .replace(
            "  rpool/srv/webapp-db:",
            "  rpool/srv/vault:  encryption=aes-128-gcm\n  rpool/srv/vault/app:  quota=5G\n  rpool/srv/webapp-db:",
        )
        .replace("recordsize=128k  compression=lz4", "recordsize=1M  compression=zstd-3")
        .replace(
            "  rpool/srv/webapp-db:",
            "  rpool/srv/webapp-cache:  recordsize=16k\n  rpool/srv/webapp-db:",
        )
        .replace("TCP 8000 guest book,", "TCP 8000 guest book, TCP 8001 spare,")
        .replace("packages:  curl,", "packages:  curl, git,")
        .replace(
            "  webapp:  system  home=/srv/webapp",
            "  webapp:  system  home=/srv/webapp\n  helper:  system  home=/srv",
        )
        .replace("--workers 2", "--workers 1")
        .replace(
            "  - unit:         webapp.service\n",
            "  - unit:         extra.service\n    command:      /usr/bin/true\n    user:         webapp\n  - unit:         webapp.service\n",
        )
}

/// A machine that the recipe was applied to, and the plan to change it.
pub(crate) fn applied() -> (Fake, Wanted, Wanted) {
    let (old, new) = (wanted(&recipe()), wanted(&changed()));
    let fake = machine_for(&[&old, &new]);
    let plan = plan_for(&fake, &old);
    assert_eq!(apply(&fake, &plan), Outcome::Committed { number: 1 });
    (fake, old, new)
}

/// The boot environments, by name.
pub(crate) fn environments(fake: &Fake) -> Vec<String> {
    let looked = kld_boot::Looked::at(fake).expect("readable");
    let mut names: Vec<String> = looked.environments.iter().map(|of| of.name().to_owned()).collect();
    names.sort();
    names
}

/// The boot environments and what lies on the boot partitions, once what an interruption has left is cleared; what starts by
/// itself is what it was all the time.
pub(crate) fn cleared(fake: &Fake) -> (Vec<String>, Vec<String>) {
    let start = |esp| fake.disk().would_start(esp).unwrap_or_else(|error| panic!("{esp}: {error}")).1;
    let starts = || assert_eq!(ESPS.map(start), ["rpool/ROOT/debian"; 2]);
    starts();
    let looked = kld_boot::Looked::before_change(fake).expect("readable");
    let actions = kld_boot::leftovers(&looked).actions;
    kld_boot::carry_out(fake, &kld_boot::Plan { actions, ..Default::default() }, &mut |_| ())
        .expect("cleared");
    let again = kld_boot::leftovers(&kld_boot::Looked::at(fake).expect("readable"));
    assert_eq!(again.actions, [], "clearing clears all of it");
    starts();
    (environments(fake), fake.disk().fat.into_keys().collect())
}

/// Says what differs, and not all that there is.
pub(crate) fn assert_same(got: &Machine, want: &Machine, at: usize) {
    let differ = |a: &Machine, b: &Machine| -> Vec<String> {
        let files = a
            .files
            .iter()
            .filter(|(path, entry)| b.files.get(*path) != Some(entry))
            .map(|(path, _)| path.clone());
        let datasets = a
            .datasets
            .iter()
            .filter(|(name, own)| b.datasets.get(*name) != Some(own))
            .map(|(name, own)| format!("{name} {own:?}"));
        let active = a.active.difference(&b.active).map(|unit| format!("{unit} active"));
        let rules = (a.rules != b.rules).then(|| format!("rules {}", a.rules));
        let keys = a.keys.iter().filter(|(name, key)| b.keys.get(*name) != Some(key));
        let keys = keys.map(|(name, key)| format!("{name} has the key {key}"));
        files.chain(datasets).chain(active).chain(rules).chain(keys).collect()
    };
    assert!(got == want, "{at}: has {:#?}, lacks {:#?}", differ(got, want), differ(want, got));
}
