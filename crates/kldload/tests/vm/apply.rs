//! Changing a machine that runs: looked at, planned, applied, undone.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kld_vm::Guest;

use crate::fixture::{BOOT, RECIPE, webapp, webapp_image};
use crate::load::Load;

/// Everything that a change may touch: datasets, rules, files, packages, units, what runs, what the kernel was told. In the
/// mount cache ZFS's event daemon orders lines as it likes, and takes its time with those of boot environments.
pub(crate) const STATE: &str = "zfs get -Hp -o name,property,value,source \
     recordsize,compression,mountpoint,canmount,quota -t filesystem -r rpool; \
     nft list ruleset | sed -E 's/packets [0-9]+ bytes [0-9]+//'; \
     find /etc /usr/local /usr/share/kld-probe -xdev -type f -not -path '/etc/resolv.conf' -not -path '/etc/zfs/zfs-list.cache/*' -print0 2>/dev/null | sort -z | xargs -0 sha256sum; \
     grep -hv '^rpool/ROOT/apply-' /etc/zfs/zfs-list.cache/* 2>/dev/null | sort; \
     find /etc/systemd -type l -printf '%p %l\\n' | sort; \
     (cd /proc/sys && grep -H . vm/swappiness net/ipv4/conf/all/* kernel/kptr_restrict kernel/dmesg_restrict fs/protected_*); \
     dpkg-query -W; dpkg --audit; getent passwd; getent group; \
     systemctl show -p Id,ActiveState,UnitFileState webapp.service postgresql@17-main.service nftables.service kld-probe.service";

/// Where [`rich_manifest`] lies in the machine.
pub(crate) const RICH: &str = "/root/rich";

/// A change of everything: datasets, rules, a package, an account, services and the database.
pub(crate) fn rich_manifest() -> Vec<(&'static str, &'static str)> {
    vec![
        (
            "recordsize=128k  compression=lz4  atime=off\n",
            "recordsize=1M  compression=zstd-3  atime=off\n  rpool/srv/webapp-cache:  recordsize=16k\n",
        ),
        ("TCP 8000 guest book,", "TCP 8000 guest book, TCP 8001 spare,"),
        ("packages:  curl,", "packages:  curl, kld-probe,"),
        (
            "  webapp:  system  home=/srv/webapp",
            "  webapp:  system  home=/srv/webapp\n  helper:  system  home=/srv",
        ),
        ("--workers 2", "--workers 1"),
        ("app.py:  app.py\n", "app.py:  app.py\n  /etc/sysctl.d/60-swap.conf:  swap.conf\n"),
        (
            "    listens:      localhost:5432\n",
            "    listens:      localhost:5432\n    hardening:    database\n    environment:  KLD_PROBE=1\n",
        ),
        // Both presets prove themselves: an apply that held has a guest book that answers from PostgreSQL.
        ("hardening:    ProtectSystem=strict", "hardening:    web  ProtectSystem=strict"),
    ]
}

/// Puts the recipe into the machine, with these texts replaced in its manifest.
pub(crate) fn give(guest: &Guest, dir: &str, replaced: &[(&str, &str)]) {
    let recipe = Path::new(RECIPE).parent().expect("it lies in a directory");
    let mut manifest = fs::read_to_string(RECIPE).expect("it is there");
    for (old, new) in replaced {
        assert!(manifest.contains(old), "{old}");
        manifest = manifest.replace(old, new);
    }
    let app = fs::read(recipe.join("app.py")).expect("it is there");
    let swap = "vm.swappiness = 13\n".as_bytes();
    for (name, bytes) in [("appliance.manifest", manifest.as_bytes()), ("app.py", &app), ("swap.conf", swap)]
    {
        let text = STANDARD.encode(bytes);
        guest.run_ok(&format!("mkdir -p {dir}; base64 -d > {dir}/{name} <<<'{text}'")).expect("written");
    }
}

/// Packs `/root/debs/p` as the one package of an archive there, which becomes apt's only one. Runs in `/root/debs`.
pub(crate) const OFFER: &str = r#"
        dpkg-deb --root-owner-group --build p p.deb > /dev/null
        { dpkg-deb -f p.deb; echo "Filename: ./p.deb"; echo "Size: $(stat -c %s p.deb)"; echo "SHA256: $(sha256sum p.deb | cut -d' ' -f1)"; } > Packages
        rm -r p
        mkdir -p /root/sources; mv /etc/apt/sources.list* /root/sources/ 2>/dev/null || true
        echo 'deb [trusted=yes] file:/root/debs ./' > /etc/apt/sources.list
        apt-get update -q"#;

/// An archive in the machine with one package, `kld-probe`: a program, a configuration file, an account's worth of files
/// and a service that is switched on.
pub(crate) fn make_package(guest: &Guest) {
    let script = r#"
        set -e
        mkdir -p /root/debs/p/DEBIAN /root/debs/p/usr/share/kld-probe /root/debs/p/etc /root/debs/p/usr/lib/systemd/system
        cd /root/debs
        printf 'Package: kld-probe\nVersion: 1.0\nArchitecture: all\nProvides: kld-feeler\nInstalled-Size: 900\nMaintainer: nobody <n@example.com>\nDescription: a probe\n' > p/DEBIAN/control
        echo /etc/kld-probe.conf > p/DEBIAN/conffiles
        echo default > p/etc/kld-probe.conf
        for i in $(seq 200); do echo $i > p/usr/share/kld-probe/$i; done
        printf '[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n' > p/usr/lib/systemd/system/kld-probe.service
        printf '#!/bin/sh\nset -e\ndeb-systemd-helper enable kld-probe.service\ndeb-systemd-invoke start kld-probe.service\nuseradd --system kldprobe\n' > p/DEBIAN/postinst
        chmod 755 p/DEBIAN/postinst
    "#;
    guest
        .run_for(&format!("{script}{OFFER}"), BOOT)
        .map(|output| assert!(output.is_ok(), "{}", output.error_text()))
        .expect("made");
}

/// The directory of the newest apply, and how many steps of it have begun: none as long as it is `$before`.
const NEWEST: &str = "newest() { ls -d /var/lib/kldload/applies/* 2>/dev/null | tail -1; }
     begun() { [ \"$(newest)\" = \"$before\" ] && echo 0 || grep -hc '\"begun\"' \"$(newest)/journal\" 2>/dev/null || true; }";

/// Begins to apply, and lets it stand still when this many steps have begun; says how many those were, for short ones may pass
/// meanwhile.
pub(crate) fn begin(guest: &Guest, steps: usize) -> usize {
    begin_within(guest, steps, BOOT)
}

/// The same where it takes longer to get there.
pub(crate) fn begin_within(guest: &Guest, steps: usize, limit: Duration) -> usize {
    let script = format!(
        "{NEWEST}; before=$(newest)
         systemd-run --quiet --unit=the-apply kldload apply --yes {RICH}/appliance.manifest
         while systemctl is-active -q the-apply; do [ \"$(begun)\" -ge {steps} ] && break; done
         systemctl freeze the-apply 2>/dev/null; begun"
    );
    let said = guest.run_for(&script, limit).expect("it answers").text();
    let begun = said.trim().parse().unwrap_or_else(|error| panic!("{error}: {said:?}"));
    assert!(begun >= steps, "the apply ended after {begun} steps, before the {steps} that were waited for");
    begun
}

/// Runs kldload in the machine: its status, what it says on stdout and on stderr.
pub(crate) fn kldload(guest: &Guest, words: &str) -> (i32, String, String) {
    let output = guest.run_for(&format!("kldload {words}"), BOOT).expect("it answers");
    (output.status, output.text(), output.error_text())
}

#[test]
fn a_machine_is_planned_applied_and_taken_back() {
    let guest = webapp();
    // What was just built is as its manifest says.
    give(&guest, "/root/webapp", &[]);
    let (status, said, error) = kldload(&guest, "plan /root/webapp/appliance.manifest");
    assert_eq!(
        (status, said.as_str()),
        (0, "webapp: as the manifest says, nothing to do"),
        "{said}\n{error}"
    );

    make_package(&guest);
    give(&guest, RICH, &rich_manifest());
    let plan = format!("plan {RICH}/appliance.manifest");
    let (status, said, _) = kldload(&guest, &plan);
    assert_eq!(status, 3, "{said}");
    for line in [
        "recordsize 128K → 1M",
        "+ dataset  rpool/srv/webapp-cache",
        "/etc/nftables.conf",
        "+ package  kld-probe",
        "; takes about 900K",
        ", at most 4.0",
    ] {
        assert!(said.contains(line), "{line:?} in {said}");
    }

    packages_are_pinned_to_the_lock_file(&guest, &plan);
    // Rated before it is put in place.
    let loose: Vec<_> =
        rich_manifest().into_iter().chain([("max_exposure: 4.0", "max_exposure: 0.1")]).collect();
    give(&guest, "/root/loose", &loose);
    let (status, _, error) = kldload(&guest, "plan /root/loose/appliance.manifest");
    assert_eq!(status, 1);
    assert!(
        error.contains("`webapp.service` would be exposed by 1.") && error.contains("accepts 0.1"),
        "{error}"
    );

    // A proof that fails: everything is as it was.
    let load = Load::start(&guest);
    let before = guest.run_ok(STATE).expect("readable");
    let bad: Vec<_> =
        rich_manifest().into_iter().chain([("expect:   postgresql", "expect:   something else")]).collect();
    give(&guest, "/root/bad", &bad);
    let (status, said, error) = kldload(&guest, "apply --yes --within 15 /root/bad/appliance.manifest");
    assert_eq!(status, 1, "{said}\n{error}");
    assert!(error.contains("failed at verify, and everything is as it was before"), "{error}");
    assert_same(&before, &guest.run_ok(STATE).expect("readable"));
    let environments =
        "kldload be list --json | tr ',' '\\n' | grep -o 'apply-[0-9]*\"' | sort -u; ls /efi/loader/entries";
    assert_eq!(guest.run_ok(environments).expect("listed"), "debian.conf", "it went with its apply");

    // What had failed before is not the apply's fault.
    guest.run_ok("! systemd-run --quiet --wait --unit=kld-broken false").expect("it has failed");
    let (status, said, error) = kldload(&guest, &format!("apply --yes {RICH}/appliance.manifest"));
    assert_eq!(status, 0, "{said}\n{error}");
    guest
        .run_ok("systemctl is-failed kld-broken && systemctl reset-failed kld-broken")
        .expect("it still has");
    an_environment_holds_the_machine_as_it_was(&guest, &error);
    let after = guest.run_ok(STATE).expect("readable");
    for part in [
        "rpool/srv/webapp\trecordsize\t1048576",
        "8001",
        "/srv/webapp-cache",
        "kld-probe\t1.0",
        "helper",
        "swappiness:13",
    ] {
        assert!(after.contains(part), "{part:?} in {after}");
    }
    let (status, said, _) = kldload(&guest, &plan);
    assert_eq!(status, 0, "{said}");

    rules_that_are_flushed_are_loaded_again(&guest, &plan);
    // What somebody changes by hand is told apart.
    guest
        .run_ok("zfs set recordsize=64k rpool/srv/webapp; echo '# mine' >> /etc/nftables.conf")
        .expect("done");
    let (status, said, error) = kldload(&guest, &plan);
    assert_eq!(status, 3);
    assert!(said.contains("changed by hand since the last apply"), "{said}");
    // Another manifest has replaced this one since.
    let older = "this manifest is older than what was applied: it was apply 3,";
    assert!(error.contains(older) && error.contains("and apply 4 by root,"), "{error}");
    // However it is written.
    let spaced: Vec<_> =
        rich_manifest().into_iter().chain([("\npackages:", "\n\n// Once more.\npackages:")]).collect();
    give(&guest, "/root/spaced", &spaced);
    let (status, _, error) = kldload(&guest, "apply --yes /root/spaced/appliance.manifest");
    assert!(status == 1 && error.contains(older), "{error}");
    let (status, _, error) = kldload(&guest, &format!("apply --yes {RICH}/appliance.manifest"));
    assert!(status == 1 && error.contains(older) && error.contains("`--older` applies it"), "{error}");
    assert!(said.contains("recordsize 64K → 1M") && said.contains("+0 −1 lines"), "{said}");
    let history = guest.run_ok("kldload history").expect("it answers");
    assert!(history.contains("undone") && history.contains("committed"), "{history}");
    taken_back_with_what_was_changed_by_hand(&guest);
    load.assert_nothing_is_lost();
    // Packages stay, and so does the environment without them.
    let package = ["kld-probe", "kldprobe", "dpkg", "  /etc/", "UnitFileState=", "rpool/ROOT/apply-"];
    let without_package = |state: &str| -> String {
        let lines = state.lines().filter(|line| !package.iter().any(|word| line.contains(word)));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_same(&without_package(&before), &without_package(&guest.run_ok(STATE).expect("readable")));
    the_documentation_says_what_works(&guest);
}

/// The image's own lock file, and a package more.
fn packages_are_pinned_to_the_lock_file(guest: &Guest, plan: &str) {
    let lock = fs::read_to_string(format!("{}.lock", webapp_image().display())).expect("it has one");
    let path = format!("{RICH}/appliance.manifest.lock");
    let give = |version: &str| {
        let package = "\n[[package]]\nname = \"kld-probe\"\narchitecture = \"all\"\n";
        let text = format!("{lock}{package}version = \"{version}\"\n");
        guest.write_file(&path, text.as_bytes(), 0o644).expect("written");
    };
    give("9.9");
    let (status, _, error) = kldload(guest, plan);
    assert_eq!(status, 1, "{error}");
    for part in ["Version '9.9' for 'kld-probe' was not found", "`cp IMAGE.lock "] {
        assert!(error.contains(part), "{error}");
    }
    give("1.0");
    let (status, said, error) = kldload(guest, plan);
    assert_eq!(status, 3, "{said}\n{error}");
    assert!(
        said.contains("kld-probe 1.0 (locked)") && error.contains("packages are pinned to"),
        "{said}\n{error}"
    );
    assert!(
        !said.contains("another version than the lock file's"),
        "it is what the image was made from: {said}"
    );
    guest.run_ok(&format!("rm {path}")).expect("removed");
}

/// Applies 2 to 4: refused first, then undone and not confirmed, then undone.
fn taken_back_with_what_was_changed_by_hand(guest: &Guest) {
    let before = guest.run_ok(STATE).expect("readable");
    let (status, said, error) = kldload(guest, "undo --dry-run 2");
    assert_eq!(status, 3, "{said}\n{error}");
    for line in [
        "applies 4, 3, 2 taken back",
        "changed by hand since",
        "recordsize is 64K by hand since",
        "apt-get purge kld-probe",
    ] {
        assert!(said.contains(line), "{line:?} in {said}");
    }
    let (status, _, error) = kldload(guest, "undo --yes 2");
    let named = "somebody has changed `/etc/nftables.conf`, `rpool/srv/webapp` since";
    assert!(status == 1 && error.contains(named) && error.contains("`--overwrite`"), "{error}");
    assert_same(&before, &guest.run_ok(STATE).expect("readable"));

    // Nobody confirms it: forward again, with what was changed by hand.
    let (status, said, error) = kldload(guest, "undo --yes --overwrite --confirm-within 20 --within 300 2");
    assert_eq!(status, 0, "{said}\n{error}");
    // Who confirms does not say that it stays while somebody is at work, who may be the clock.
    let (status, error) = {
        let output =
            guest.run_for("flock /run/kldload-apply-within.lock kldload confirm", BOOT).expect("it answers");
        (output.status, output.error_text())
    };
    assert!(status == 1 && error.contains("is locked by process"), "{error}");
    let wait = "for i in $(seq 120); do kldload history | grep -q unconfirmed || break; sleep 1; done; \
                flock /run/kldload-apply.lock true; kldload history";
    let history = guest.run_for(wait, BOOT).expect("it answers").text();
    assert!(history.contains("nobody has confirmed it: taken back by kldload"), "{history}");
    let environments = |state: &str| {
        let lines = state.lines().filter(|line| !line.contains("rpool/ROOT/apply-"));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_same(&environments(&before), &environments(&guest.run_ok(STATE).expect("readable")));

    let (status, said, error) = kldload(guest, "undo --yes --overwrite --within 300 2");
    assert_eq!(status, 0, "{said}\n{error}");
    let kept = error
        .lines()
        .find_map(|line| line.split_once("as somebody had changed it, is `"))
        .expect("it is said")
        .1;
    let mine = guest.run_ok(&format!("tail -1 {}", kept.trim_end_matches('`'))).expect("readable");
    assert_eq!(mine, "# mine");
    let history = guest.run_ok("kldload history").expect("it answers");
    assert!(history.contains("with undo 6") && history.contains("takes back applies 4, 3, 2"), "{history}");
}

/// By hand, past the file.
fn rules_that_are_flushed_are_loaded_again(guest: &Guest, plan: &str) {
    let rules = "nft list ruleset | sed -E 's/packets [0-9]+ bytes [0-9]+//'";
    let before = guest.run_ok(rules).expect("listed");
    // Somebody else answers for it: another manifest, and nothing more to do.
    let again: Vec<_> =
        rich_manifest().into_iter().chain([("Operations  ops@", "Development  dev@")]).collect();
    give(guest, "/root/again", &again);
    for (by_hand, dir) in
        [("nft insert rule inet kldload input accept", RICH), ("systemctl stop nftables", "/root/again")]
    {
        guest.run_ok(by_hand).expect("done");
        let (status, said, error) = kldload(guest, plan);
        assert_eq!(status, 3, "{by_hand}: {said}\n{error}");
        let reason = "because the rules in the kernel are not those of /etc/nftables.conf";
        assert!(said.contains("changed by hand") && said.contains(reason), "{by_hand}: {said}");
        let (status, said, error) =
            kldload(guest, &format!("apply --yes --within 300 {dir}/appliance.manifest"));
        assert_eq!(status, 0, "{by_hand}: {said}\n{error}");
        assert_same(&before, &guest.run_ok(rules).expect("listed"));
    }
    // One thing at a time.
    let held = "flock /run/kldload-apply.lock kldload snap rollback --yes rpool/srv/webapp nothing";
    let output = guest.run(held).expect("it answers");
    assert!(
        output.status == 1 && output.error_text().contains("kldload-apply.lock"),
        "{}",
        output.error_text()
    );
}

/// The one of apply 2, complete and of the old machine.
fn an_environment_holds_the_machine_as_it_was(guest: &Guest, said: &str) {
    assert!(said.contains("boot environment `apply-000002` holds the machine as it is now"), "{said}");
    let (status, _, said) = kldload(guest, "history 2");
    assert!(status == 0 && said.contains("`kbe activate --once apply-000002` starts it next"), "{said}");
    let there = guest
        .run_ok(
            "set -e; kldload be mount apply-000002 > /dev/null; cd /run/kbe/apply-000002; \
             test ! -e usr/share/kld-probe; grep -c 'workers 2' etc/systemd/system/webapp.service; cd /; kldload be umount apply-000002; \
             kldload be activate --once apply-000002; bootctl list --json=short | grep -o '\"isDefault\":true' | wc -l; \
             bootctl set-oneshot ''; sha256sum /efi$(sed -n 's/^linux *//p' /efi/loader/entries/apply-000002.conf) | cut -c -64; \
             sha256sum /boot/vmlinuz-$(uname -r) | cut -c -64; zfs get -H -o value org.kldload:kbe-by rpool/ROOT/apply-000002",
        )
        .expect("it is whole");
    let lines: Vec<&str> = there.lines().collect();
    let [old, _, kernel, running, by] = lines[..] else { panic!("{there}") };
    assert_eq!((old, kernel, by), ("1", running, "apply"), "{there}");
}

/// Every command of docs/changes.md, in order.
fn the_documentation_says_what_works(guest: &Guest) {
    let text = include_str!("../../../../docs/changes.md");
    let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("$ kldload ")).collect();
    assert!(commands.len() > 6, "{commands:?}");
    for words in commands {
        let output = guest.run_for(&format!("cd {RICH} && kldload {words}"), BOOT).expect("it answers");
        assert!(matches!(output.status, 0 | 3), "{words}: {}\n{}", output.text(), output.error_text());
    }
}

/// Two states, and only the lines that differ.
pub(crate) fn assert_same(before: &str, after: &str) {
    let lacks = |a: &str, b: &str| -> Vec<String> {
        let lines: std::collections::BTreeSet<&str> = b.lines().collect();
        a.lines().filter(|line| !lines.contains(line)).take(20).map(str::to_owned).collect()
    };
    assert!(before == after, "gone: {:#?}\nnew: {:#?}", lacks(before, after), lacks(after, before));
}
