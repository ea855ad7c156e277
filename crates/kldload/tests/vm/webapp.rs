//! The running appliance is what its manifest says.

use kld_system::Created;

use crate::fixture::{webapp, webapp_system};

#[test]
fn dataset_properties_equal_the_manifest() {
    let guest = webapp();
    for dataset in webapp_system().datasets.iter().filter(|d| matches!(d.created, Created::InImage)) {
        for property in &dataset.properties {
            let (name, value) = &property.value;
            let script = format!("zfs get -Hp -o value,source {name} {}", dataset.name);
            let got = guest.run_ok(&script).expect("the property is known");
            let (got, source) = got.trim().split_once('\t').expect("two columns");
            assert_eq!(normal(name, got), normal(name, value), "{name} of {}", dataset.name);
            assert_eq!(source, "local", "{name} of {}", dataset.name);
        }
    }
}

#[test]
fn the_pool_has_every_feature_of_its_compatibility_set() {
    let guest = webapp();
    let script = "for name in $(grep -v '^#' /usr/share/zfs/compatibility.d/$(zpool get -H -o value compatibility rpool)); do \
                    echo $name $(zpool get -H -o value feature@$name rpool); done";
    let features = guest.run_ok(script).expect("the pool is asked");
    assert!(features.lines().count() > 40, "{features}");
    let off = features.lines().find(|line| !line.ends_with(" enabled") && !line.ends_with(" active"));
    assert_eq!(off, None, "{features}");
    let status = guest.run_ok("zpool status rpool").expect("the pool is asked");
    assert!(!status.contains("status:"), "zpool has no remark: {status}");
}

/// Sizes as bytes: `128k` is what a person writes, `131072` what `zfs get -p` says.
fn normal(name: &str, value: &str) -> String {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let is_size = ["recordsize", "quota", "refquota", "reservation", "refreservation"].contains(&name);
    match (is_size, digits.parse::<u64>(), value[digits.len()..].to_ascii_lowercase().as_str()) {
        (true, Ok(n), "k") => (n << 10).to_string(),
        (true, Ok(n), "m") => (n << 20).to_string(),
        (true, Ok(n), "g") => (n << 30).to_string(),
        (true, Err(_), _) if value == "none" => "0".to_owned(),
        _ if name == "acltype" && value == "posixacl" => "posix".to_owned(),
        // One value with two names since OpenZFS 2.3: `zfs get` says `on`.
        _ if name == "xattr" && value == "sa" => "on".to_owned(),
        _ => value.to_owned(),
    }
}

#[test]
fn root_is_the_boot_environment_and_holds_the_package_database() {
    let guest = webapp();
    let system = webapp_system();
    for path in ["/", "/usr/bin", "/etc", "/boot", "/var/lib/dpkg"] {
        let source = guest.run_ok(&format!("findmnt -no SOURCE -T {path}")).expect("mounted");
        assert_eq!(source.trim(), system.boot_dataset.as_str(), "{path}");
    }
    for path in ["/home", "/root", "/srv/webapp", "/var/lib/postgresql", "/var/log"] {
        let source = guest.run_ok(&format!("findmnt -no SOURCE -T {path}")).expect("mounted");
        assert_ne!(source.trim(), system.boot_dataset.as_str(), "{path} must outlive a rollback");
    }
}

#[test]
fn a_scrub_finds_nothing() {
    let guest = webapp();
    let status = guest
        .run_for("zpool scrub -w rpool && zpool status rpool", std::time::Duration::from_secs(300))
        .expect("the scrub ends")
        .text();
    assert!(status.contains("scrub repaired 0B") && status.contains("with 0 errors"), "{status}");
    assert!(status.contains("errors: No known data errors"), "{status}");
}

#[test]
fn nothing_listens_but_wireguard() {
    let guest = webapp();
    let sockets = guest.run_ok("ss -Hlntup").expect("ss works");
    let mut open = Vec::new();
    for line in sockets.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (protocol, local, process) = (words[0], words[4], words.get(6).copied().unwrap_or_default());
        let (address, port) = local.rsplit_once(':').expect("address and port");
        let private =
            address.starts_with("127.") || address.starts_with("[::1]") || address.starts_with("10.8.");
        // The DHCP client of the public interface; the firewall lets nobody else's packets through to it.
        let dhcp = protocol == "udp" && port == "68" && process.contains("systemd-network");
        if !private && !dhcp {
            open.push((protocol.to_owned(), port.to_owned(), process.to_owned()));
        }
    }
    open.sort();
    open.dedup();
    // Kernel sockets (WireGuard's) have no process.
    assert!(open.iter().all(|(protocol, _, process)| protocol == "udp" && process.is_empty()), "{sockets}");
    let mut ports: Vec<&str> = open.iter().map(|(_, port, _)| port.as_str()).collect();
    ports.dedup();
    assert_eq!(ports, ["51820", "51821", "51822"], "{sockets}");
    let rules = guest.run_ok("nft list table inet kldload").expect("the table is loaded");
    assert!(rules.contains("policy drop"), "{rules}");
}

#[test]
fn the_mesh_is_up_before_anything_binds_to_it() {
    let guest = webapp();
    let at = |unit: &str, what: &str| -> u64 {
        let text = guest.run_ok(&format!("systemctl show -P {what} {unit}")).expect("the unit is known");
        text.trim().parse().unwrap_or_else(|_| panic!("{what} of {unit}: {text}"))
    };
    let mesh = at("kldload-mesh.service", "ActiveEnterTimestampMonotonic");
    assert!(mesh > 0);
    for unit in ["ssh.service", "prometheus-node-exporter.service", "webapp.service"] {
        let started = at(unit, "ExecMainStartTimestampMonotonic");
        assert!(started >= mesh, "{unit} started at {started}, the mesh was up at {mesh}");
    }
}

#[test]
fn services_are_sandboxed() {
    let guest = webapp();
    let exposure = |unit: &str| -> f64 {
        let text = guest
            .run_ok(&format!("systemd-analyze security --no-pager {unit} | tail -1"))
            .expect("it is analysed");
        let number =
            text.split(':').nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
        number.parse().unwrap_or_else(|_| panic!("{unit}: {text}"))
    };
    let own = guest
        .run_ok("systemctl list-unit-files 'kldload-*.service' --no-legend | cut -d' ' -f1")
        .expect("listed");
    for unit in own.split_whitespace().filter(|unit| *unit != "kldload-control.service") {
        // First steps run the recipe's own commands, as root: they count as the recipe's.
        // What undoes a change writes wherever that change was.
        let wide = unit.starts_with("kldload-setup-") || unit == "kldload-recover.service";
        let limit = if wide { 4.0 } else { 2.0 };
        assert!(exposure(unit) <= limit, "{unit}: {}", exposure(unit));
    }
    for unit in ["webapp.service", "postgresql@17-main.service"] {
        assert!(exposure(unit) <= 4.0, "{unit}: {}", exposure(unit));
    }
}

#[test]
fn only_its_dataset_is_writable_to_a_service() {
    let guest = webapp();
    // The service's own sandbox, entered through its mount namespace and account. PostgreSQL writes a log and a socket besides.
    for (unit, account, own, others) in [
        ("webapp.service", "webapp", &["/srv/webapp"][..], ["/usr/local/lib/webapp", "/var/lib/postgresql"]),
        (
            "postgresql@17-main.service",
            "postgres",
            &["/var/lib/postgresql", "/var/log/postgresql", "/run/postgresql"],
            ["/srv/webapp", "/etc/postgresql/17/main"],
        ),
    ] {
        // Root of the sandbox, too: who gets out of the account is still in it.
        for account in [account, "root"] {
            let probe = |path: &str| {
                let script = format!(
                    "pid=$(systemctl show -P MainPID {unit}); nsenter -t $pid -m setpriv --reuid {account} \
                     --regid {account} --clear-groups sh -c 'touch {path}/probe && rm {path}/probe'"
                );
                guest.run(&script).expect("the machine answers").is_ok()
            };
            for path in own {
                assert!(probe(path), "{account} of {unit} writes {path}");
            }
            for path in
                ["/etc", "/usr", "/home", "/root", "/srv", "/opt", "/var/lib/kldload"].iter().chain(&others)
            {
                assert!(!probe(path), "{path} must not be writable to {account} of {unit}");
            }
        }
    }
}

#[test]
fn the_image_held_no_identity_and_no_compiler() {
    let guest = webapp();
    // The snapshot of the day the image was made.
    let root = "/.zfs/snapshot/install";
    let script = format!(
        "cd {root} && ls -a etc/ssh etc/kldload etc/kldload/wireguard root var/lib/systemd 2>/dev/null; \
         stat -c %s etc/machine-id; \
         find . -xdev \\( -name 'ssh_host_*' -o -name '*.key' -o -name hostid -o -name random-seed -o -name '*_history' \
             -o -name dkms -o -path './usr/src/*' -o -path './usr/bin/gcc*' -o -path ./usr/bin/cc -o -path './usr/bin/c++*' \\) \
             -not -path ./usr/bin/hostid"
    );
    let text = guest.run_ok(&script).expect("the snapshot is readable");
    for secret in ["ssh_host_", "wg0.key", "random-seed", "_history"] {
        assert!(!text.contains(secret), "{secret}:\n{text}");
    }
    let found: Vec<&str> = text.lines().filter(|line| line.starts_with("./")).collect();
    assert!(found.is_empty(), "{found:?}");
    assert!(text.lines().any(|line| line == "0"), "the machine id is empty:\n{text}");
    let shadow = guest.run_ok(&format!("cut -d: -f2 {root}/etc/shadow | sort -u")).expect("readable");
    assert!(shadow.split_whitespace().all(|hash| hash.starts_with(['!', '*'])), "{shadow}");
}
