//! Snapshots by short names, on the shared machine.

use kld_vm::Guest;

use crate::daily::without_rounds;
use crate::fixture::{BOOT, webapp};
use crate::transcript::{commands, misfit};

fn ksnap(guest: &Guest, words: &str) -> (i32, String, String) {
    let output = guest.run_for(&format!("ksnap {words}"), BOOT).expect("it answers");
    (output.status, output.text(), output.error_text())
}

const PSQL: &str = "cd /; runuser -u postgres -- psql -At webapp -c";

#[test]
fn snapshots_are_made_found_and_gone_back_to() {
    let guest = webapp();
    // Snapshots of others would come in between.
    without_rounds(&guest);
    guest.run_ok("echo first > /srv/webapp/notes.txt; chown webapp: /srv/webapp/notes.txt").expect("written");
    let text = include_str!("../../../../docs/snapshots.md");
    let commands: Vec<_> = commands(text)
        .into_iter()
        .filter_map(|(command, shown)| Some((command.strip_prefix("ksnap ")?.to_owned(), shown)))
        .collect();
    assert!(commands.len() > 10, "{commands:?}");
    let mut wrong = Vec::new();
    for (words, shown) in &commands {
        if words.starts_with("diff") {
            guest.run_ok("echo second try > /srv/webapp/notes.txt").expect("written");
            guest.run_ok(&format!("{PSQL} 'create table migrated (x int)'")).expect("migrated");
        }
        let (status, said, error) = ksnap(&guest, words);
        let wanted = if words.contains("--dry-run") { 3 } else { 0 };
        assert_eq!(status, wanted, "{words}: {said}\n{error}");
        let part = match words.split(' ').next() {
            Some("list") => "rpool/srv/webapp-db@nightly-",
            Some("diff") => "M  /srv/webapp/notes.txt",
            Some("show") if !words.contains("--restore") => "now ",
            Some("rollback") => "running: postgresql@17-main.service",
            Some("prune") => "destroy",
            _ => "",
        };
        assert!(said.contains(part), "{words}: {part:?} in {said}");
        wrong.extend(misfit(words, shown, &said));
        if words.contains("--restore") {
            let file =
                guest.run_ok("cat /srv/webapp/notes.txt; stat -c %U /srv/webapp/notes.txt").expect("there");
            assert_eq!(file, "first\nwebapp");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What `--swap` has put aside is there with its newer snapshots, and is not mounted.
    let aside = guest
        .run_ok("zfs list -H -o name,canmount,mountpoint,origin -t filesystem -r rpool/srv | grep webapp-db.before-")
        .expect("it is kept");
    assert!(aside.contains("\tnoauto\tnone\trpool/srv/webapp-db@pre-migration-"), "{aside}");
    let aside = aside.split('\t').next().expect("its name").to_owned();
    let kept = guest.run_ok(&format!("zfs list -Ht snapshot -o name {aside}")).expect("listed");
    assert!(kept.contains("@release-7-") && kept.contains("@nightly-"), "{kept}");
    let set =
        guest.run_ok("zfs get -Hpo value,source recordsize,mountpoint,org.kldload:swap rpool/srv/webapp-db");
    assert_eq!(set.expect("asked"), "8192\tlocal\n/var/lib/postgresql\tlocal\n-\t-\n".trim_end());
    // The migration never was, and the guest book is served.
    let table =
        guest.run_ok(&format!("{PSQL} \"select to_regclass('migrated') is null\"")).expect("it answers");
    assert_eq!(table, "t");
    guest.run_ok("curl -fsS http://10.8.0.1:8000/healthz | grep postgresql").expect("it is served");
    guest.run_ok(&format!("zfs destroy -r {aside}")).expect("it can go, as is said");
    what_would_do_harm_is_refused(&guest);
    many_are_one(&guest);
    what_is_pruned_is_freed(&guest);
    whoever_uses_it_is_stopped_and_runs_again(&guest);
    what_is_in_use_elsewhere_is_seen(&guest);
}

/// By `mount`, and a volume: by the kernel, and by a process.
fn what_is_in_use_elsewhere_is_seen(guest: &Guest) {
    let script = "set -e; zfs create -o mountpoint=legacy rpool/srv/old; mkdir /run/old; mount -t zfs rpool/srv/old /run/old
        zfs create -V 16M 'rpool/srv/a volume'; udevadm settle; mkswap -q '/dev/zvol/rpool/srv/a+volume'
        ksnap rpool/srv/old 'rpool/srv/a volume' one
        systemd-run --unit=elsewhere -p WorkingDirectory=/run/old sleep inf; swapon '/dev/zvol/rpool/srv/a+volume'";
    guest.run_ok(script).expect("made");
    let refused = |dataset: &str, part: &str| {
        let (status, said, error) = ksnap(guest, &format!("rollback --yes '{dataset}' one"));
        assert!(status == 1 && error.contains(part) && error.contains("hint:"), "{said}{error}");
    };
    refused("rpool/srv/old", "`elsewhere.service` runs on `rpool/srv/old`");
    // A container has it under a name of its own.
    let script = "systemd-run --unit=contained unshare --mount --propagation private \
            sh -c 'mount --bind /run/old /mnt && cd /mnt && exec sleep inf'
        until test \"$(readlink /proc/$(systemctl show -P MainPID contained)/cwd)\" = /mnt; do sleep 0.1; done";
    guest.run_for(script, BOOT).expect("it answers").is_ok().then_some(()).expect("it runs");
    refused("rpool/srv/old", "`contained.service`, `elsewhere.service` runs on `rpool/srv/old`");
    guest.run_ok("systemctl stop contained").expect("stopped");
    refused("rpool/srv/a volume", "is in use: the kernel uses /dev/zd");
    guest
        .run_ok("set -e; swapoff -a; systemctl stop elsewhere; umount /run/old; systemd-run --unit=elsewhere -p StandardInput=file:/dev/zvol/rpool/srv/a+volume sleep inf")
        .expect("changed");
    refused("rpool/srv/a volume", "is in use: sleep (process ");
    guest.run_ok("systemctl stop elsewhere").expect("stopped");
    guest.run_ok("zfs allow -u nobody send rpool/srv/old").expect("granted");
    let (status, _, error) = ksnap(guest, "rollback --swap --dry-run rpool/srv/old one");
    let part = "what `zfs allow` has granted on `rpool/srv/old` stays with `rpool/srv/old.before-";
    assert!(status == 3 && error.contains(part), "{error}");
    for dataset in ["rpool/srv/old", "rpool/srv/a volume"] {
        let (status, said, error) = ksnap(guest, &format!("rollback --yes '{dataset}' one"));
        assert_eq!(status, 0, "{said}{error}");
    }
}

/// Of several datasets, and of all below one, in one transaction group.
fn many_are_one(guest: &Guest) {
    guest.run_ok("set -e; zfs create -p rpool/srv/tree/a/b; zfs create rpool/srv/other").expect("made");
    let (status, said, error) = ksnap(guest, "-r rpool/srv/tree together");
    assert!(status == 0 && said.lines().count() == 1, "{said}{error}");
    let (status, said, error) = ksnap(guest, "rpool/srv/tree/a rpool/srv/other both");
    assert!(status == 0 && said.lines().count() == 2, "{said}{error}");
    for (name, count) in [("together", 3), ("both", 2)] {
        let groups =
            format!("zfs list -Hpt snapshot -o createtxg,name -r rpool/srv | grep @{name}- | cut -f 1");
        let groups = guest.run_ok(&groups).expect("listed");
        assert_eq!(groups.lines().count(), count, "{groups}");
        assert_eq!(groups.lines().collect::<std::collections::BTreeSet<_>>().len(), 1, "{groups}");
    }
}

/// Also what no manifest knows; and nothing runs afterwards that did not before.
fn whoever_uses_it_is_stopped_and_runs_again(guest: &Guest) {
    let script = "set -e; cd /run/systemd/system
        printf '[Service]\nExecStart=/bin/sh -c \"exec sleep inf > /srv/many/log\"\n' > holder.service
        printf '[Unit]\nRequiresMountsFor=/srv/many\n[Service]\nExecStart=sleep inf\n' > idle.service
        printf '[Unit]\nBindsTo=holder.service\nAfter=holder.service\n[Service]\nExecStart=sleep inf\n' > bound.service
        systemctl daemon-reload; ksnap rpool/srv/many free; systemctl start holder.service bound.service
        until test -e /srv/many/log; do sleep 0.1; done";
    guest.run_for(script, BOOT).expect("it answers").is_ok().then_some(()).expect("it runs");
    let (status, said, error) = ksnap(guest, "rollback --yes rpool/srv/many free");
    assert!(status == 1 && said.contains("running: holder.service"), "{said}{error}");
    assert!(error.contains("`holder.service` runs on `rpool/srv/many`"), "{error}");
    // What was written a moment ago counts.
    assert!(!said.contains("lost: 0B"), "{said}");
    let (status, said, error) = ksnap(guest, "rollback --yes --stop-services rpool/srv/many free");
    assert!(status == 0 && error.contains("start bound.service, holder.service"), "{said}{error}");
    let states = "systemctl is-active bound.service holder.service idle.service";
    let states = guest.run(states).expect("it answers").text();
    assert_eq!(states, "active\nactive\ninactive");
    // A person who works in it is named, and keeps nobody from it.
    guest.run_ok("systemctl stop holder.service").expect("stopped");
    let (status, said, error) = ksnap(guest, "rollback --dry-run rpool/srv/many free");
    assert!(status == 3 && !said.contains("running:"), "{said}{error}");
    // One that needs a file which is not there any more.
    let script = "set -e; touch /srv/many/needed
        printf '[Service]\\nExecStart=/bin/sh -c \"exec sleep inf < /srv/many/needed\"\\n' > /run/systemd/system/needs.service
        systemctl daemon-reload; systemctl start needs.service
        until test \"$(readlink /proc/$(systemctl show -P MainPID needs)/fd/0)\" = /srv/many/needed; do sleep 0.1; done";
    let made = guest.run_for(script, BOOT).expect("it answers");
    assert!(made.is_ok(), "{}", made.error_text());
    let (status, said, error) =
        ksnap(guest, "rollback --yes --stop-services --within 5s rpool/srv/many free");
    assert!(status == 1 && said.contains("running: needs.service"), "{said}{error}");
    assert!(error.contains("not well within 5 seconds") && error.contains("needs.service"), "{error}");
    guest.run_ok("! test -e /srv/many/needed && systemctl reset-failed needs.service").expect("it went back");
}

fn what_would_do_harm_is_refused(guest: &Guest) {
    guest.run_ok("ksnap rpool/srv/webapp-db one; sleep 1; ksnap rpool/srv/webapp-db two").expect("made");
    let before = guest.run_ok("zfs list -Ht snapshot -o name -r rpool/srv").expect("listed");
    let refused = |words: &str, part: &str| {
        let (status, said, error) = ksnap(guest, words);
        assert!(status == 1 && error.contains(part) && error.contains("hint:"), "{words}: {said}\n{error}");
    };
    refused("rollback --yes --stop-services rpool/srv/webapp-db one", "destroys 1 newer snapshot");
    refused(
        "rollback --yes rpool/srv/webapp-db two",
        "`postgresql@17-main.service` runs on `rpool/srv/webapp-db`",
    );
    guest
        .run_ok("zfs snapshot rpool/srv/webapp-db@x; zfs bookmark rpool/srv/webapp-db@x rpool/srv/webapp-db#x; zfs destroy rpool/srv/webapp-db@x")
        .expect("marked");
    refused("rollback --yes --stop-services rpool/srv/webapp-db two", "destroys 1 newer bookmark");
    guest.run_ok("zfs destroy rpool/srv/webapp-db#x").expect("gone");
    refused("rollback --stop-services rpool/srv/webapp-db two", "nothing was changed: not confirmed");
    refused("rollback --yes rpool/srv/webapp-db three", "`rpool/srv/webapp-db` has no snapshot `three`");
    let (status, _, error) = ksnap(guest, "rpool/srv/webapp größe");
    assert!(status == 2 && error.contains("`größe` cannot be the name of a snapshot"), "{error}");
    refused("/proc x", "`/proc` does not lie on ZFS");
    refused(&format!("rpool/srv/webapp {}", "x".repeat(240)), "is too long");
    guest
        .run_ok("zfs clone $(zfs list -Ht snapshot -o name rpool/srv/webapp-db | grep @two-) rpool/srv/copy")
        .expect("cloned");
    refused("rollback -r --yes --stop-services rpool/srv/webapp-db one", "`rpool/srv/copy` is a clone of");
    guest.run_ok("zfs destroy rpool/srv/copy; ksnap hold rpool/srv/webapp-db two").expect("held");
    refused("rollback -r --yes --stop-services rpool/srv/webapp-db one", "is held");
    guest.run_ok("ksnap release rpool/srv/webapp-db two").expect("released");
    guest.run_ok("zfs snapshot $(findmnt -no SOURCE /)@now").expect("made");
    refused("rollback --yes / now", "is a system");
    refused("rollback --yes --swap / now", "is a system");
    guest.run_ok("zfs destroy $(findmnt -no SOURCE /)@now").expect("it can go");
    let (status, _, error) = ksnap(guest, "rpool/nothing x");
    assert!(status == 1 && error.contains("dataset does not exist"), "{error}");
    let (status, _, _) = ksnap(guest, "rpool/srv/webapp");
    assert_eq!(status, 2, "a name is wanted");
    assert_eq!(guest.run_ok("zfs list -Ht snapshot -o name -r rpool/srv").expect("listed"), before);
    // Names that look like options.
    guest.run_ok("zfs create 'rpool/srv/-a b'").expect("made");
    let (status, said, error) = ksnap(guest, "'rpool/srv/-a b' -- '-x y'");
    assert!(status == 0 && said.starts_with("rpool/srv/-a b@-x y-2"), "{said}{error}");
    let (status, said, error) = ksnap(guest, "rollback --yes 'rpool/srv/-a b' -- '-x y'");
    assert_eq!(status, 0, "{said}{error}");
}

fn what_is_pruned_is_freed(guest: &Guest) {
    let script = "set -e; zfs create -o mountpoint=/srv/many rpool/srv/many; cd /srv/many
        write() { dd if=/dev/urandom of=data bs=1M count=4 status=none; sync; ksnap rpool/srv/many work; sleep 1; }
        for i in 1 2 3 4 5; do write; done; zfs snapshot rpool/srv/many@other; write";
    let made = guest.run_for(script, BOOT).expect("it answers");
    assert!(made.is_ok(), "{}", made.error_text());
    let (status, said, _) = ksnap(guest, "prune --dry-run --keep 2 rpool/srv/many --json");
    assert_eq!(status, 3, "{said}");
    let plan: serde_json::Value = serde_json::from_str(&said).expect("it is JSON");
    assert_eq!(plan["items"][0]["destroy"].as_array().map(Vec::len), Some(4), "{said}");
    let frees = plan["items"][0]["frees"].as_u64().expect("a number");
    // Four versions of four megabytes that nothing else holds.
    assert!((16 << 20..18 << 20).contains(&frees), "{said}");
    let used = "zfs get -Hpo value usedbysnapshots rpool/srv/many";
    let number = |text: String| text.trim().parse::<u64>().expect("a number");
    let before = number(guest.run_ok(used).expect("it answers"));
    let (status, said, error) = ksnap(guest, "prune --yes --keep 2 rpool/srv/many");
    assert_eq!(status, 0, "{said}{error}");
    assert!(said.contains("4 snapshots destroyed ("), "{said}{error}");
    guest.run_ok("zpool sync rpool; zpool wait -t free rpool").expect("freed");
    let freed = before - number(guest.run_ok(used).expect("it answers"));
    assert!(freed.abs_diff(frees) < 1 << 20, "{freed} freed, {frees} said");
    let left = guest.run_ok("zfs list -Ht snapshot -o name rpool/srv/many").expect("listed");
    assert!(left.lines().count() == 3 && left.contains("@other"), "{left}");

    one_that_cannot_go_keeps_no_other(guest);
}

/// Of many datasets at once, by root and by whom ZFS allows it: what is looked into goes, what is held, cloned or sent stays.
fn one_that_cannot_go_keeps_no_other(guest: &Guest) {
    let many = "rpool/srv/many";
    for (by, of) in [("", "of root"), ("runuser -u nobody -- ", "of nobody")] {
        let made = format!(
            "set -e; zfs allow -u nobody destroy,mount {many}
             for i in 1 2 3 4; do zfs create \"{many}/{of} $i\"; done; zfs create -s -V 8M \"{many}/{of} 5\"
             dd if=/dev/urandom of=\"/srv/many/{of} 4/data\" bs=1M count=4 status=none
             for i in 1 2 3; do ksnap -r {many} each; sleep 1; done
             oldest=$(ls \"/srv/many/{of} 1/.zfs/snapshot\" | grep each | head -1); echo \"$oldest\" > /run/oldest
             zfs hold kept \"{many}/{of} 2@$oldest\"; zfs clone \"{many}/{of} 3@$oldest\" \"{many}/clone\"
             test -n '{by}' || ls \"/srv/many/{of} 1/.zfs/snapshot/$oldest\"
             (zfs send \"{many}/{of} 4@$oldest\" | sleep 900) > /run/sent 2>&1 & sleep 5"
        );
        let made = guest.run_for(&made, BOOT).expect("it answers");
        assert!(made.is_ok(), "{}{}", made.text(), made.error_text());
        let prune = format!("cd /; {by}ksnap prune --yes -r --keep 1 --name each {many}");
        let output = guest.run_for(&prune, BOOT).expect("it answers");
        let (status, said, error) = (output.status, output.text(), output.error_text());
        let all = format!("{by}{said}\n{error}");
        assert_eq!(status, 1, "{all}");
        for part in [
            format!("{many}/{of} 2@each-"),
            " stays: it is held".to_owned(),
            format!(" stays: it has the clone {many}/clone"),
        ] {
            assert!(said.contains(&part), "{part}: {all}");
        }
        assert!(error.contains("1 snapshot could not be destroyed") && error.contains("busy"), "{all}");
        let left = guest.run_ok(&format!(
            "pkill -f 'zfs send rpool/srv/many' || true; zfs list -Ht snapshot -o name -r {many} | grep -c @each; zfs list -Ho name -r {many} | wc -l
             zfs destroy {many}/clone; zfs release kept \"{many}/{of} 2@$(cat /run/oldest)\"; sleep 2; zfs destroy -r {many}@%"
        ));
        let left: Vec<usize> =
            left.expect("counted").lines().map(|line| line.trim().parse().expect("a number")).collect();
        // One of each but of the clone, and the three.
        assert_eq!(left[0], left[1] - 1 + 3, "{all}");
    }
}
