//! `kdf` and `kdir` on the shared machine.

use kld_vm::Guest;
use serde_json::Value;

use crate::fixture::{BOOT, webapp};
use crate::transcript::{commands, misfit};

/// Exit code, standard output, standard error.
pub(crate) fn run(guest: &Guest, line: &str) -> (i32, String, String) {
    let output = guest.run_for(line, BOOT).expect("it answers");
    (output.status, output.text(), output.error_text())
}

pub(crate) fn ok(guest: &Guest, line: &str) -> String {
    let (status, said, error) = run(guest, line);
    assert_eq!(status, 0, "{line}: {said}\n{error}");
    said.trim_end().to_owned()
}

/// Sanoid makes no snapshots any more, and has made none: when it comes round depends on the time of day.
pub(crate) fn without_rounds(guest: &Guest) {
    ok(
        guest,
        "systemctl stop sanoid.timer sanoid.service; systemctl reset-failed
         zfs list -Ht snapshot -o name -r rpool | grep @autosnap_ | xargs -r -n 1 zfs destroy",
    );
}

/// Fails, and says why and what to do.
pub(crate) fn refused(guest: &Guest, line: &str, part: &str) {
    let (status, said, error) = run(guest, line);
    assert!(status == 1 && error.contains(part) && error.contains("hint:"), "{line}: {said}\n{error}");
}

fn items(guest: &Guest, line: &str) -> Vec<Value> {
    let json: Value = serde_json::from_str(&ok(guest, line)).expect("it is JSON");
    json["items"].as_array().expect("a list").clone()
}

/// Runs the commands of a page that begin with one of these words, and sees what it shows.
fn page(guest: &Guest, text: &str, words: &[&str]) {
    let is_ours = |command: &str| words.iter().any(|word| command.starts_with(word));
    let commands: Vec<_> = commands(text).into_iter().filter(|(command, _)| is_ours(command)).collect();
    assert!(commands.len() > 3, "{commands:?}");
    let mut wrong = Vec::new();
    for (command, shown) in commands {
        let (status, said, error) = run(guest, &command);
        assert_eq!(status, if command.contains("--dry-run") { 3 } else { 0 }, "{command}: {said}\n{error}");
        wrong.extend(misfit(&command, &shown, &format!("{said}\n{error}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A pool in a file, with everything that takes space: names that are hard to read, limits, volumes, clones.
const POOL: &str = r#"
    set -e
    truncate -s 256M /var/tmp/tank.img
    zpool create -O compression=off -O mountpoint=/tank tank /var/tmp/tank.img
    zfs create 'tank/-a b'
    zfs create -o quota=40M -o reservation=20M tank/kept
    zfs create -V 8M tank/volume
    zfs create -s -V 8M tank/sparse
    zfs create -o mountpoint=/tank/long "tank/$(printf 'x%.0s' $(seq 250))"
    zfs create tank/a; zfs create tank/a/b
    for i in 1 2 3 4 5 6; do
        dd if=/dev/urandom of=/tank/a/data$((i % 3)) bs=1M count=3 status=none; sync
        zfs snapshot tank/a@s$i
    done
    dd if=/dev/urandom of=/tank/a/b/x bs=1M count=2 status=none
    zfs snapshot 'tank/-a b@one:1' ; zfs clone 'tank/-a b@one:1' tank/clone
    zpool sync tank
"#;

#[test]
fn kdf_agrees_with_zfs_and_the_pool() {
    let guest = webapp();
    without_rounds(&guest);
    guest.run_ok("systemctl stop webapp postgresql@17-main").expect("stopped");
    ok(&guest, POOL);
    page(&guest, include_str!("../../../../docs/space.md"), &["kdf", "ksnap"]);
    sums_are_those_of_zfs(&guest);
    what_would_come_free_comes_free(&guest);
    a_suspended_pool_is_named(&guest);
}

fn sums_are_those_of_zfs(guest: &Guest) {
    let zfs = ok(
        guest,
        "zpool sync; zfs list -Hp -t filesystem,volume -o name,used,usedbysnapshots,usedbydataset,usedbyrefreservation,usedbychildren -r tank",
    );
    let rows = items(guest, "kdf --json tank");
    assert_eq!(rows.len(), zfs.lines().count());
    for line in zfs.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let row = rows.iter().find(|row| row["name"] == columns[0]).expect(line);
        let numbers: Vec<u64> = columns[1..].iter().map(|text| text.parse().expect("a number")).collect();
        let said = ["used", "usedbysnapshots", "usedbydataset", "usedbyrefreservation", "usedbychildren"];
        assert_eq!(said.map(|name| row[name].as_u64().expect(name)).to_vec(), numbers, "{line}");
        let whole = &row["whole"];
        let parts = ["data", "snapshots", "reserved", "hidden"].map(|part| whole[part].as_u64().expect(part));
        assert_eq!(parts.iter().sum::<u64>(), numbers[0], "{line}: {whole}");
        assert!(
            parts[3] == 0 || columns[0] == "tank",
            "only the pool has something of its own: {line} {whole}"
        );
    }
    // The pool counts what lies on its disk, the root dataset what can be used of it; between them are reservations.
    let number = |line: &str| ok(guest, line).parse::<u64>().expect("a number");
    let allocated = number("zpool list -Hpo allocated tank");
    let root = rows.iter().find(|row| row["name"] == "tank").expect("there");
    let part = |name: &str| root["whole"][name].as_u64().expect("a number");
    let on_disk = part("data") + part("snapshots") + part("hidden");
    assert!(on_disk.abs_diff(allocated) < 1 << 20, "{on_disk} in datasets, {allocated} in the pool");
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).expect("listed").clone();
    assert_eq!(row("tank/kept")["quota"], 40 << 20);
    assert_eq!(row("tank/clone")["origin"], "tank/-a b@one:1");
    assert_eq!(row("tank/-a b")["cloned"][0]["clones"][0], "tank/clone");
    assert_eq!(
        (&row("tank/a")["snapshots"], &row("tank/a")["growth"]["since"]),
        (&Value::from(6), &Value::from("s1"))
    );
    let (volume, sparse) = (row("tank/volume"), row("tank/sparse"));
    assert!(volume["kind"] == "volume" && volume["refreservation"].as_u64() >= Some(8 << 20), "{volume}");
    assert_eq!(sparse["refreservation"], Value::Null);
    let text = ok(guest, "kdf tank/a 'tank/-a b'");
    assert!(text.contains("tank/-a b@one:1: cloned as tank/clone"), "{text}");
    let first = ok(guest, "kdf --sort snapshots tank | sed -n 2p");
    assert!(first.starts_with("tank/a "), "{first}");
    let (status, _, error) = run(guest, "kdf tank/nothing");
    assert!(status == 1 && error.contains("dataset does not exist"), "{error}");
}

fn what_would_come_free_comes_free(guest: &Guest) {
    let frees = |words: &str| -> u64 {
        let rows = items(guest, &format!("kdf --json --what-if destroy {words}"));
        rows.iter().map(|row| row["frees"].as_u64().expect("a number")).sum()
    };
    // Each file is written again by every third snapshot: what three in a row hold, none of them holds alone.
    let (alone, three) =
        (["s1", "s2", "s3"].map(|name| frees(&format!("tank/a@{name}"))), frees("tank/a@s1%s3"));
    assert!(alone.iter().sum::<u64>() + (2 << 20) < three, "{alone:?} {three}");
    assert_eq!(frees("tank/a@s1 tank/a@s2,s3"), three, "words of one dataset count together");
    let apart = frees("tank/a@s1%s3,s5");
    assert_eq!(apart, three + frees("tank/a@s5"));
    refused(guest, "kdf --what-if destroy 'tank/-a b@one:1'", "has the clone tank/clone");
    let (status, _, error) = run(guest, "kdf --what-if destroy tank/a");
    assert!(status == 2 && error.contains("`tank/a` is no snapshot"), "{error}");
    refused(guest, "kdf --what-if destroy tank/a@nothing", "has no snapshot `nothing`");
    ok(guest, "ksnap hold tank/a s6");
    refused(guest, "kdf --what-if destroy tank/a@%", "`tank/a@s6` cannot go: it is held");
    let before = ok(guest, "zfs list -Ht snapshot -o name -r tank");
    let used =
        |guest: &Guest| ok(guest, "zpool sync tank; zpool wait -t free tank; zfs get -Hpo value used tank/a");
    let then: u64 = used(guest).parse().expect("a number");
    ok(guest, "zfs destroy tank/a@s1%s3,s5");
    let now: u64 = used(guest).parse().expect("a number");
    assert!((then - now).abs_diff(apart) <= 16 << 10, "{} came free, {apart} said", then - now);
    assert_eq!(
        before.lines().count() - 4,
        ok(guest, "zfs list -Ht snapshot -o name -r tank").lines().count()
    );
}

/// A pool whose disk takes nothing any more waits for ever; kdf does not.
fn a_suspended_pool_is_named(guest: &Guest) {
    ok(
        guest,
        "set -e; mkdir -p /run/small; mount -t tmpfs -o size=96M tmpfs /run/small; truncate -s 90M /run/small/disk
         zpool create -O mountpoint=/stuck stuck /run/small/disk; zfs create stuck/data
         dd if=/dev/zero of=/run/small/full bs=1M status=none || true
         (dd if=/dev/urandom of=/stuck/data/x bs=1M count=40; sync) > /dev/null 2>&1 &
         for i in $(seq 120); do grep -q SUSPENDED /proc/spl/kstat/zfs/stuck/state && exit 0; sleep 1; done; exit 1",
    );
    let (status, said, error) = run(guest, "timeout 20 kdf");
    assert_eq!(status, 1, "{said}{error}");
    assert!(said.contains("rpool") && said.contains("tank") && !said.contains("stuck"), "{said}");
    assert!(error.contains("the pool `stuck` is SUSPENDED and was not asked"), "{error}");
    refused(guest, "timeout 20 kdf stuck/data", "the pool `stuck` is SUSPENDED");
    refused(guest, "timeout 20 kdf --what-if destroy stuck/data@x", "the pool `stuck` is SUSPENDED");
    for line in [
        "kdir --dataset stuck/more /srv/photos2",
        "kdir /stuck/data/photos",
        "ksnap rollback --yes stuck/data before",
        "ksnap diff stuck/data before",
        "ksnap hold stuck/data before",
        "ksnap show /stuck/data/x",
    ] {
        refused(guest, &format!("timeout 20 {line}"), "the pool `stuck` is SUSPENDED");
    }
    for words in ["kdf stu", "ksnap rollback stuck/data bef"] {
        assert_eq!(offered(guest, words), [""; 0], "{words}");
    }
    assert_eq!(offered(guest, "kdf tank/a/"), ["tank/a/b"]);
    // What lies elsewhere is as it always is.
    ok(
        guest,
        "set -e; timeout 60 kdir /srv/photos2; zfs list rpool/srv/photos2; ksnap rpool/srv/photos2 empty
         touch /srv/photos2/one; timeout 60 ksnap rollback --yes rpool/srv/photos2 empty; test ! -e /srv/photos2/one
         timeout 60 kbe list",
    );
    refused(guest, "timeout 20 ksnap rpool/srv/webapp stuck/data before", "the pool `stuck` is SUSPENDED");
    refused(guest, "timeout 20 ksnap prune --yes --keep 1 stuck", "the pool `stuck` is SUSPENDED");
    let (status, said, error) = run(guest, "timeout 20 ksnap list");
    assert!(status == 1 && said.contains("tank/a@s4"), "{said}{error}");
    assert!(error.contains("the pool `stuck` is SUSPENDED and was not asked"), "{error}");
    // The others are looked at all the same.
    let (status, said, error) = run(guest, "timeout 120 kst --timeout 60");
    assert!(status == 1 && said.contains("stuck SUSPENDED: whoever uses it waits"), "{said}{error}");
    assert!(said.contains("rpool ONLINE") && said.contains("tank ONLINE"), "{said}");
    let (status, said, error) = run(guest, "timeout 20 kdf tank");
    assert!(status == 0 && said.contains("tank"), "{said}{error}");
}

/// What bash offers for the last of these words.
fn offered(guest: &Guest, words: &str) -> Vec<String> {
    let script = format!(
        "eval \"$(kldload completion bash)\"; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
         _clap_complete_${{COMP_WORDS[0]}} \"${{COMP_WORDS[0]}}\" \"${{COMP_WORDS[COMP_CWORD]}}\" x; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    ok(guest, &format!("bash -c '{}'", script.replace('\'', "'\\''"))).lines().map(str::to_owned).collect()
}

/// Datasets, snapshots, environments, and no pool that would not answer.
fn shells_know_what_there_is(guest: &Guest) {
    assert_eq!(offered(guest, "ksnap rpool/srv/pho"), ["rpool/srv/photos"]);
    assert_eq!(offered(guest, "kdf /srv/pho"), ["/srv/photos/"]);
    ok(guest, "ksnap rpool/srv/photos offered");
    let names = offered(guest, "ksnap rollback rpool/srv/photos off");
    assert!(names.len() == 2 && names[0] == "offered" && names[1].starts_with("offered-20"), "{names:?}");
    assert_eq!(offered(guest, "kbe activate deb"), ["debian"]);
    ok(guest, &format!("zfs destroy rpool/srv/photos@{}", names[1]));
}

/// Boot environments and holds, as a program reads them.
fn verbs_tell_programs_what_they_do(guest: &Guest) {
    let actions = |line: &str| {
        let rows = items(guest, line);
        rows[0]["actions"].as_array().unwrap_or_else(|| panic!("{line}: {rows:?}")).len()
    };
    let planned = |line: &str| -> Value {
        let (status, said, error) = run(guest, line);
        assert_eq!(status, 3, "{line}: {said}{error}");
        serde_json::from_str::<Value>(&said).expect("it is JSON")["items"][0].clone()
    };
    assert_eq!(planned("kbe create --dry-run --json probe")["dry_run"], true);
    assert!(actions("kbe create --json probe") > 2);
    assert!(actions("kbe rename --json probe other") > 0);
    let mounted = items(guest, "kbe mount --json other");
    assert_eq!(mounted[0]["mountpoint"], "/run/kbe/other");
    assert!(actions("kbe umount --json other") == 1);
    assert_eq!(planned("kbe good --json --dry-run")["environment"], "debian");
    assert!(actions("kbe good --json") == 1);
    assert!(actions("kbe activate --json --once other") > 0);
    assert!(actions("kbe activate --json debian") > 0);
    assert_eq!(planned("kbe prune --json --dry-run --keep 0")["environment"], "other");
    assert!(actions("kbe destroy --yes --json other") > 0);
    ok(guest, "ksnap rpool/srv/photos kept");
    assert_eq!(planned("ksnap hold --json --dry-run rpool/srv/photos kept")["held"], true);
    assert_eq!(items(guest, "ksnap hold --json rpool/srv/photos kept")[0]["tag"], "ksnap");
    assert_eq!(
        ok(guest, "zfs list -Hpt snapshot -o userrefs rpool/srv/photos")
            .lines()
            .filter(|holds| *holds == "1")
            .count(),
        1
    );
    assert_eq!(items(guest, "ksnap release --json rpool/srv/photos kept")[0]["held"], false);
}

/// Pools that have lost a disk, take no writes, or are full.
#[test]
fn pools_in_a_bad_way_are_told_as_they_are() {
    let guest = webapp();
    without_rounds(&guest);
    ok(
        &guest,
        "set -e; cd /var/tmp; truncate -s 96M a b c
         zpool create -O mountpoint=/worn worn mirror $PWD/a $PWD/b; zfs create worn/data; echo 1 > /worn/data/1
         ksnap worn/data early; zpool offline worn $PWD/a
         zpool create -O mountpoint=/full full $PWD/c; zfs create full/data; ksnap full/data early
         ! dd if=/dev/urandom of=/full/data/x bs=1M status=none 2> /dev/null; sync",
    );
    let is_told = |line: &str, parts: &[&str]| {
        let (status, said, error) = run(&guest, line);
        let text = format!("{said}{error}").to_lowercase();
        assert!(parts.iter().any(|part| text.contains(part)), "{line}: {said}\n{error}");
        assert_eq!(status, 1, "{line}: {said}\n{error}");
    };
    // What has lost a disk works, and is told.
    ok(
        &guest,
        "kdf worn; ksnap worn/data late; sleep 1; ksnap worn/data late; ksnap prune --yes --keep 1 worn/data",
    );
    is_told("kst --timeout 60", &["worn degraded"]);
    // A full one takes nothing, and gives.
    let row = &items(&guest, "kdf --json full/data")[0];
    assert!(row["available"].as_u64().is_some_and(|bytes| bytes < 1 << 20), "{row}");
    is_told("ksnap full/data late", &["out of space"]);
    is_told("kdir --dataset full/more /full/more", &["out of space", "no space left"]);
    is_told("kst --timeout 60", &["no room left"]);
    ok(&guest, "rm /full/data/x; zfs destroy full/data@early-%; zpool sync full; ksnap full/data late");
    // Nothing is written to what is imported read-only.
    ok(
        &guest,
        "cd /var/tmp; zpool export worn; zpool import -o readonly=on -d $PWD worn; kdf worn; ksnap list worn/data",
    );
    is_told("kst --timeout 60", &["worn degraded", "read-only"]);
    let before = ok(&guest, "zfs list -Ht all -o name -r worn");
    for line in [
        "ksnap worn/data more",
        "ksnap rollback --yes worn/data late",
        "ksnap hold worn/data late",
        "kdir --dataset worn/more /worn/more",
    ] {
        is_told(line, &["read-only", "readonly"]);
    }
    assert_eq!(ok(&guest, "zfs list -Ht all -o name -r worn"), before);
    ok(
        &guest,
        "ksnap show /worn/data/1 --restore late --to /var/tmp/restored --yes; cmp /worn/data/1 /var/tmp/restored",
    );
}

#[test]
fn kdir_makes_datasets_where_they_belong() {
    let guest = webapp();
    page(&guest, include_str!("../../../../docs/datasets.md"), &["kdir"]);
    let get = |dataset: &str| {
        ok(&guest, &format!("zfs get -Hpo value mountpoint,mounted,recordsize,compression,atime '{dataset}'"))
            .replace('\n', " ")
    };
    assert_eq!(get("rpool/srv/photos"), "/srv/photos yes 1048576 lz4 off");
    assert_eq!(ok(&guest, "zfs get -Hpo value canmount,mountpoint rpool/opt"), "off\n/opt");
    assert_eq!(ok(&guest, "findmnt -no SOURCE /opt/data"), "rpool/opt/data");
    // A dry run has made nothing; an empty directory keeps its owner and its mode.
    refused(&guest, "kdir /var/lib/shop/db", "`/var/lib/shop` is not there");
    ok(
        &guest,
        "install -d -o webapp -g webapp -m 0710 /srv/mine && kdir --for logs -o recordsize=32k /srv/mine",
    );
    assert_eq!(ok(&guest, "stat -c '%U %G %a' /srv/mine"), "webapp webapp 710");
    assert_eq!(get("rpool/srv/mine"), "/srv/mine yes 32768 zstd off");
    let rows = items(&guest, "kdir --json -p --for mysql /srv/deep/er/db");
    assert_eq!(rows[0]["dataset"], "rpool/srv/deep/er/db");
    assert_eq!(get("rpool/srv/deep/er/db"), "/srv/deep/er/db yes 16384 lz4 off");
    let before = ok(&guest, "zfs list -Ho name");
    ok(
        &guest,
        "mkdir -p /srv/full/below && echo kept > /srv/full/below/file && chown -R webapp: /srv/full && ln -s /srv /var/tmp/link",
    );
    for (words, part) in [
        ("/srv/full", "files are in it"),
        ("/srv/photos", "is mounted on it already"),
        ("/etc/new", "part of the operating system"),
        ("/usr/share/new", "part of the operating system"),
        ("/", "part of the operating system"),
        ("/srv/full/below/file", "is not a directory"),
        ("/srv/full/below/file/x", "is not a directory"),
        ("/var/tmp/link/x", "`/var/tmp/link` leads to `/srv`"),
        ("/srv/größe", "cannot be the name of a dataset"),
        ("--dataset rpool/none/x /srv/x", "there is no dataset `rpool/none`"),
        ("--dataset rpool/srv/photos /srv/x", "exists"),
        ("-o canmount=off /srv/x", "the path says where"),
    ] {
        refused(&guest, &format!("kdir {words}"), part);
    }
    refused(&guest, "kdir --adopt /srv/full", "not confirmed");
    assert_eq!(ok(&guest, "zfs list -Ho name"), before);
    ok(&guest, "kdir '--dataset=rpool/srv/spaces' '/srv/a b' && findmnt -n '/srv/a b'");
    let made = items(&guest, "kdir --adopt --yes --json --for mail /srv/full");
    assert_eq!((made.len(), &made[0]["adopt"]), (1, &Value::Bool(true)), "{made:?}");
    assert_eq!(get("rpool/srv/full"), "/srv/full yes 131072 zstd off");
    assert_eq!(ok(&guest, "cat /srv/full/below/file; stat -c %U /srv/full"), "kept\nwebapp");
    ok(&guest, "kldload adopt --yes --confirm /srv/full");
    every_purpose_has_its_properties(&guest);
    verbs_tell_programs_what_they_do(&guest);
    shells_know_what_there_is(&guest);
}

fn every_purpose_has_its_properties(guest: &Guest) {
    let rows = items(guest, "kdir --list --json");
    let of = |row: &Value, name: &str| row[name].as_str().unwrap_or_else(|| panic!("{row}")).to_owned();
    let purposes: std::collections::BTreeSet<String> = rows.iter().map(|row| of(row, "purpose")).collect();
    assert_eq!(purposes.len(), 8, "{purposes:?}");
    for purpose in purposes {
        ok(guest, &format!("kdir --for {purpose} /srv/for-{purpose}"));
        for row in rows.iter().filter(|row| of(row, "purpose") == purpose) {
            let get = format!("zfs get -Ho value {} rpool/srv/for-{purpose}", of(row, "property"));
            assert_eq!(ok(guest, &get).to_lowercase(), of(row, "value").to_lowercase(), "{row}");
        }
    }
}
