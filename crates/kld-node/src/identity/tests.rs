//! `node init` on a fake machine: a first start, later starts, and a death at every single change.

mod birth;
mod passphrase;
mod rotation;
mod supplied;
mod tools;

use super::*;
use crate::machine::fake::FakeMachine;
use base64::Engine as _;
use expect_test::expect;
use kld_disk::BootEntry;
use kld_system::node::*;
use std::fmt::Write as _;
use tools::{IMAGE_FILE, installed, reboot};

pub(super) fn key(byte: u8) -> String {
    base64::engine::general_purpose::STANDARD.encode([byte; 32])
}

fn plane(interface: &str, address: &str, port: u16, carrier: Option<&str>) -> NodePlane {
    NodePlane {
        interface: interface.into(),
        address: address.parse().unwrap(),
        port,
        carrier: carrier.map(Into::into),
        key_file: format!("/etc/kldload/wireguard/{interface}.key"),
        peers: vec![],
    }
}

pub(crate) fn config() -> NodeConfig {
    let mut wg0 = plane("wg0", "10.8.0.1/24", 51820, None);
    wg0.peers.push(NodePeer {
        name: "backup".into(),
        public_key: key(7),
        allowed_ips: vec!["10.8.0.7/32".parse().unwrap()],
        endpoint: None,
        keepalive_seconds: None,
    });
    let encrypted = |dataset: &str, key, mountpoint: &str| NodeEncrypted {
        dataset: dataset.into(),
        key,
        properties: vec![("mountpoint".into(), mountpoint.into()), ("recordsize".into(), "8k".into())],
        owner: Some(("git:git".into(), "0750".into())),
    };
    let vault = NodeDatasetKey {
        algorithm: "aes-256-gcm".into(),
        credential_file: "/etc/kldload/keys/srv@vault.cred".into(),
        credential: "srv@vault".into(),
        key_file: "/run/kldload/keys/srv@vault".into(),
        unit: "kldload-key-srv-vault.service".into(),
    };
    let secret = |name: &str, source| NodeSecret {
        name: name.into(),
        source,
        credential_file: format!("/etc/kldload/secrets/{name}.cred"),
        used_by: vec!["web.service".into()],
    };
    NodeConfig {
        version: VERSION,
        host_name: "web.internal".into(),
        pool: "rpool".into(),
        boot_dataset: "rpool/ROOT/debian".into(),
        esp: NodeEsp { mount: "/efi".into(), partition_label: "kldload-esp".into() },
        firewall_table: "inet kldload".into(),
        planes: vec![wg0, plane("wg1", "10.8.1.1/24", 51821, Some("wg0"))],
        services: vec![],
        open_ports: vec![],
        mounts: vec![],
        encrypted: vec![
            encrypted("rpool/srv/vault", Some(vault), "/srv/vault"),
            encrypted("rpool/srv/vault/db", None, "/srv/vault/db"),
        ],
        secrets: vec![
            secret("session", NodeSecretSource::Generate { bytes: 32 }),
            secret("token", NodeSecretSource::Supplied { credential: "kldload.secret.token".into() }),
        ],
        setup: vec![],
        snapshots: None,
        snapshot_hooks: Vec::new(),
        replication: Some(NodeReplication {
            user: "backup".into(),
            host: "10.8.2.1".into(),
            target: "tank/web".into(),
            plane: "wg0".into(),
            datasets: vec!["rpool/srv/vault".into()],
            account: "kldload-replicate".into(),
            key_file: "/etc/kldload/replication/ssh_key".into(),
            known_hosts: "/var/lib/kldload/replication/known_hosts".into(),
            stamp_file: "/var/lib/kldload/replication/stamp".into(),
            max_age_minutes: 120,
        }),
        verify: vec![],
    }
}

/// A machine as an image leaves it: two boot entries, no identity, on a disk four times the image's size.
fn image() -> FakeMachine {
    let machine = installed();
    machine.put(
        "/efi/loader/entries/debian.conf",
        "title Debian\nlinux /l\ninitrd /i\noptions root=ZFS=rpool/ROOT/debian\n",
    );
    machine.put(
        "/efi/loader/entries/old.conf",
        "title Old\nlinux /l\noptions root=ZFS=x spl.spl_hostid=0x00000000\n",
    );
    machine.put("/efi/loader/entries/memtest.conf", "title Memory test\nefi /m\n");
    machine.put("/run/credentials/kldload.secret.token", "hunter2");
    machine.put(
        "/run/credentials/kldload.operator",
        &format!("# me\nplane=wg0 public_key={} allowed_ips=10.8.0.2/32\n", key(9)),
    );
    machine.put(IMAGE_FILE, "carried by the image");
    machine
}

fn start(machine: &FakeMachine) -> InitReport {
    init(machine, &config(), Some(Path::new("/run/credentials")), |_| {})
}

fn entry_ids(machine: &FakeMachine) -> Vec<Option<u32>> {
    ["debian", "old"]
        .map(|name| {
            let text = machine.text(&format!("/efi/loader/entries/{name}.conf")).unwrap();
            host_id::entry_id(&BootEntry::parse(&text).unwrap())
        })
        .to_vec()
}

fn running_id(machine: &FakeMachine) -> u32 {
    machine.text(host_id::PARAMETER).unwrap().trim().parse().unwrap()
}

#[test]
fn a_first_start_makes_everything_and_the_second_changes_nothing() {
    let machine = image();
    let report = start(&machine);
    let text: String = report.steps.iter().map(|step| format!("{step}\n")).collect();
    expect![[r#"
        esp             made  mounted /efi
        host-id         made  0x01010101 in /efi/loader/entries/debian.conf, 0x01010101 in /efi/loader/entries/old.conf, 0x01010101 in /etc/hostid, told the kernel
        host-name       kept
        wireguard       made  wg0 gYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYE=, wg1 goKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoI=
        operators       made  wg0: 1
        authorized-keys kept
        ssh-host-keys   made  ecdsa ed25519 rsa
        certificate     kept
        secrets         made  `session`, `token`
        disk            made  /dev/vda is 03030303-0303-4303-8303-030303030303
        pool-guid       made  rpool is 1234567890
        label           made  /efi/loader/entries/debian.conf imports without force, /efi/loader/entries/old.conf imports without force
        pool-size       made  partition 2 of /dev/vda fills the disk, rpool has 2076180480 bytes
        encryption      made  key of rpool/srv/vault, rpool/srv/vault, rpool/srv/vault/db
        replication     made  public key in /etc/kldload/replication/ssh_key.pub
        issue           made  /etc/issue.d/kldload.issue
    "#]].assert_eq(&text);
    assert!(report.is_complete());

    let before = machine.state().files.clone();
    let again = start(&machine);
    assert!(again.is_unchanged(), "{again:?}");
    // Owners and modes are put right at every start; that they were right already is what this compares.
    assert_eq!(machine.state().files, before);

    reboot(&machine);
    let after = start(&machine);
    assert!(after.is_complete());
    let made: Vec<_> =
        after.steps.iter().filter(|step| step.outcome == Outcome::Made).map(|step| step.step).collect();
    assert_eq!(made, ["esp"], "{after:?}");
    assert_eq!(machine.text("/dataset/rpool/srv/vault/mounted").as_deref(), Some("yes"));
}

#[test]
fn commands_carry_no_secret_and_are_what_an_admin_would_type() {
    let machine = image();
    start(&machine);
    let log = machine.take_log().join("\n") + "\n";
    for file in [
        "/etc/kldload/wireguard/wg0.key",
        "/etc/kldload/secrets/token.cred",
        "/etc/kldload/secrets/session.cred",
    ] {
        let secret = machine.text(file).unwrap();
        assert!(!log.contains(secret.trim()) && !log.contains("hunter2"), "{file}");
    }
    expect![[r#"
        mount /efi
        wg genkey
        wg pubkey
        wg genkey
        wg pubkey
        ssh-keygen -A
        systemd-creds encrypt --name=session --tpm2-pcrs= - -
        systemd-creds encrypt --name=token --tpm2-pcrs= - -
        sfdisk --quiet --no-reread --no-tell-kernel --disk-id /dev/vda 03030303-0303-4303-8303-030303030303
        zpool reguid rpool
        zpool get -Hp -o value guid rpool
        zpool set multihost=on rpool
        zpool set multihost=off rpool
        zpool reguid rpool
        zdb -l /dev/disk/by-partlabel/rpool
        sfdisk --quiet --no-reread --no-tell-kernel --relocate gpt-bak-std /dev/vda
        sfdisk --quiet --no-reread --no-tell-kernel -N 2 /dev/vda
        partx -u --nr 2 /dev/vda
        zpool get -Hp -o value expandsize rpool
        udevadm settle --timeout=30
        zpool status --json --json-int -p -P rpool
        zpool online -e rpool 42
        zpool get -Hp -o value size rpool
        zfs list -H -o name -t filesystem -r rpool
        systemd-creds encrypt --name=srv@vault --tpm2-pcrs= - -
        systemd-creds decrypt --name=srv@vault /etc/kldload/keys/srv@vault.cred -
        zfs create -o canmount=noauto -o org.kldload:fill=copying -o encryption=aes-256-gcm -o keyformat=raw -o keylocation=file:///run/kldload/keys/srv@vault -o mountpoint=/srv/vault -o recordsize=8k rpool/srv/vault
        zfs get -Hp -o name,property,value,source org.kldload:fill rpool/srv/vault
        mount -t zfs -o zfsutil rpool/srv/vault /run/kldload/fill
        cp -ax -- /srv/vault/. /run/kldload/fill
        chown git:git /run/kldload/fill
        chmod 0750 /run/kldload/fill
        umount /run/kldload/fill
        zfs set org.kldload:fill=copied rpool/srv/vault
        find /srv/vault -xdev -mindepth 1 -delete
        zfs set canmount=on rpool/srv/vault
        zfs inherit org.kldload:fill rpool/srv/vault
        zfs get -Hp -o name,property,value,source mounted rpool/srv/vault
        systemd-run --quiet --collect --property=Type=oneshot --property=DefaultDependencies=no zfs mount rpool/srv/vault
        zfs create -o canmount=noauto -o org.kldload:fill=copying -o mountpoint=/srv/vault/db -o recordsize=8k rpool/srv/vault/db
        zfs get -Hp -o name,property,value,source org.kldload:fill rpool/srv/vault/db
        mount -t zfs -o zfsutil rpool/srv/vault/db /run/kldload/fill
        chown git:git /run/kldload/fill
        chmod 0750 /run/kldload/fill
        umount /run/kldload/fill
        zfs set org.kldload:fill=copied rpool/srv/vault/db
        zfs set canmount=on rpool/srv/vault/db
        zfs inherit org.kldload:fill rpool/srv/vault/db
        zfs get -Hp -o name,property,value,source mounted rpool/srv/vault/db
        systemd-run --quiet --collect --property=Type=oneshot --property=DefaultDependencies=no zfs mount rpool/srv/vault/db
        zfs allow -u kldload-replicate send,hold rpool/srv/vault
        ssh-keygen -q -t ed25519 -N '' -C 'kldload replication of web.internal' -f /etc/kldload/replication/ssh_key.new
    "#]].assert_eq(&log);
}

#[test]
fn files_of_the_first_start() {
    let machine = image();
    start(&machine);
    let mut listing = String::new();
    for (path, file) in &machine.state().files.0 {
        if ["/etc", "/var", "/root"].iter().any(|top| path.starts_with(top)) {
            writeln!(listing, "{:04o} root:{:<15} {}", file.mode, file.group, path.display()).unwrap();
        }
    }
    expect![[r#"
        0644 root:root            /etc/hostid
        0644 root:root            /etc/issue.d/kldload.issue
        0600 root:root            /etc/kldload/keys/srv@vault.cred
        0600 root:root            /etc/kldload/replication/ssh_key
        0644 root:root            /etc/kldload/replication/ssh_key.pub
        0600 root:root            /etc/kldload/secrets/session.cred
        0600 root:root            /etc/kldload/secrets/token.cred
        0640 root:systemd-network /etc/kldload/wireguard/wg0.key
        0644 root:root            /etc/kldload/wireguard/wg0.pub
        0640 root:systemd-network /etc/kldload/wireguard/wg1.key
        0644 root:root            /etc/kldload/wireguard/wg1.pub
        0600 root:root            /etc/ssh/ssh_host_ecdsa_key
        0644 root:root            /etc/ssh/ssh_host_ecdsa_key.pub
        0600 root:root            /etc/ssh/ssh_host_ed25519_key
        0644 root:root            /etc/ssh/ssh_host_ed25519_key.pub
        0600 root:root            /etc/ssh/ssh_host_rsa_key
        0644 root:root            /etc/ssh/ssh_host_rsa_key.pub
        0644 root:root            /etc/ssh/sshd_config
        0640 root:systemd-network /etc/systemd/network/50-wg0.netdev.d/50-operator.conf
        0644 root:root            /var/lib/kldload/identity/disk-guid
        0644 root:root            /var/lib/kldload/identity/pool-guid
        0600 root:root            /var/lib/kldload/keys/srv@vault.cred
    "#]]
    .assert_eq(&listing);
    expect![[r#"
        \n
          wg0    10.8.0.1/24 UDP 51820  public key gYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYE=
          wg1    10.8.1.1/24 UDP 51821 over wg0  public key goKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoI=
          Log in over the mesh. `kst` says whether all is well.

    "#]]
    .assert_eq(&machine.text("/etc/issue.d/kldload.issue").unwrap());
    expect![[r#"
        title Old
        linux /l
        options root=ZFS=x spl.spl_hostid=0x01010101
    "#]]
    .assert_eq(&machine.text("/efi/loader/entries/old.conf").unwrap());
    assert_eq!(machine.text("/efi/loader/entries/memtest.conf").unwrap(), "title Memory test\nefi /m\n");
}

/// The heart of it: whenever the machine dies, what is there is consistent, and the next start finishes.
#[test]
fn a_death_at_any_change_is_mended_by_the_next_start() {
    let changes = {
        let machine = image();
        machine.state().fuel = Some(usize::MAX);
        start(&machine);
        usize::MAX - machine.state().fuel.unwrap()
    };
    assert!(changes > 40, "{changes} changes only: the fake does not count");
    for deaths in 0..changes {
        let machine = image();
        machine.state().fuel = Some(deaths);
        start(&machine);
        machine.state().fuel = None;

        let file = host_id::read_file(&machine).unwrap();
        if let Some(id) = file {
            assert!(entry_ids(&machine).iter().all(|entry| *entry == Some(id)), "after {deaths} changes");
        }
        if running_id(&machine) != 0 {
            assert_eq!(file, Some(running_id(&machine)), "the pool would hold a number that no start knows");
        }
        let wg0 = machine.text("/etc/kldload/wireguard/wg0.key");

        reboot(&machine);
        let report = start(&machine);
        assert!(report.is_complete(), "after {deaths} changes: {report:?}");
        let id = host_id::read_file(&machine).unwrap();
        assert!(id.is_some() && entry_ids(&machine).iter().all(|entry| *entry == id));
        assert!(file.is_none() || file == id, "a host id was replaced");
        assert!(wg0.is_none() || wg0 == machine.text("/etc/kldload/wireguard/wg0.key"), "a key was replaced");
        for dataset in ["vault", "vault/db"] {
            let root = format!("/dataset/rpool/srv/{dataset}");
            assert_eq!(
                machine.text(&format!("{root}/mounted")).as_deref(),
                Some("yes"),
                "after {deaths} changes"
            );
            assert_eq!(machine.text(&format!("{root}/org.kldload:fill")), None, "after {deaths} changes");
        }
        assert_eq!(
            machine.text("/content/rpool/srv/vault/hooks/post").as_deref(),
            Some("carried by the image"),
            "after {deaths} changes"
        );
        assert_eq!(machine.text(IMAGE_FILE), None, "the copy outside the encrypted dataset is gone");
        assert!(start(&machine).is_unchanged(), "after {deaths} changes");
    }
}

#[test]
fn one_broken_identity_does_not_keep_the_others_away() {
    let machine = image();
    machine.put("/etc/kldload/wireguard/wg0.key", "not a key\n");
    machine.state().files.0.remove(Path::new("/run/credentials/kldload.secret.token"));
    machine.state().files.0.retain(|path, _| !path.starts_with("/efi/loader"));
    let report = start(&machine);
    let failed: String = report
        .steps
        .iter()
        .filter(|step| step.outcome == Outcome::Failed)
        .map(|step| format!("{step}\n"))
        .collect();
    expect![[r#"
        host-id         failed  no boot entry is in `/efi/loader/entries`
        host-id         hint  `ls -l /efi/loader/entries` shows what is there
        wireguard       failed  `/etc/kldload/wireguard/wg0.key` does not hold a WireGuard key
        wireguard       hint  remove `/etc/kldload/wireguard/wg0.key` to have a new key made; peers must learn it
        secrets         failed  1 of 2 failed: secret `token` was not given: there is no credential `kldload.secret.token`
        secrets         hint  the service that needs it does not start until it is there
    "#]].assert_eq(&failed);
    assert_eq!(machine.text("/etc/kldload/wireguard/wg0.key").as_deref(), Some("not a key\n"));
    assert!(machine.text("/etc/kldload/secrets/session.cred").is_some());
    assert!(machine.text("/etc/ssh/ssh_host_ed25519_key").is_some());
}

#[test]
fn operators_stay_without_and_change_with_new_ones() {
    let file = "/etc/systemd/network/50-wg0.netdev.d/50-operator.conf";
    let credential = "/run/credentials/kldload.operator";
    let machine = image();
    start(&machine);
    let first = machine.text(file).unwrap();
    assert!(first.contains(&key(9)));
    for useless in ["", "plane=wg0 public_key=broken allowed_ips=10.8.0.2/32"] {
        machine.put(credential, useless);
        start(&machine);
        assert_eq!(machine.text(file).as_ref(), Some(&first), "`{useless}`");
    }
    machine.put(credential, "");
    machine.put("/proc/cmdline", &format!("quiet kldload.operator=wg0,{},10.8.0.3/32 ro", key(10)));
    start(&machine);
    let second = machine.text(file).unwrap();
    assert!(second.contains(&key(10)) && !second.contains(&key(9)), "{second}");
    machine.put("/proc/cmdline", &format!("kldload.operator=wg1,{},10.8.1.3/32", key(10)));
    start(&machine);
    assert_eq!(machine.text(file), None);
}

#[test]
fn a_seed_volume_gives_operators_name_and_keys() {
    let machine = image();
    machine.link("/dev/disk/by-label/CIDATA", "/dev/sr0");
    machine.put(
        "/volume/sr0/user-data",
        &format!(
            "#cloud-config\nruncmd: [reboot]\nssh_authorized_keys: [bad]\nkldload:\n  operator:\n    - plane=wg1 public_key={} allowed_ips=10.8.1.9/32\n",
            key(12)
        ),
    );
    machine.put("/volume/sr0/meta-data", "local-hostname: web7\n");
    let report = start(&machine);
    assert!(report.is_complete());
    let warnings: Vec<_> = report.steps.iter().flat_map(|step| &step.warnings).collect();
    expect![[r#"
        [
            "user-data: kldload does not know `runcmd`",
            "SSH key `bad`: it does not begin with a known key type",
        ]
    "#]]
    .assert_debug_eq(&warnings);
    assert_eq!(machine.text("/etc/hostname").as_deref(), Some("web7\n"));
    assert!(
        machine.text("/etc/systemd/network/50-wg1.netdev.d/50-operator.conf").unwrap().contains(&key(12))
    );
    assert!(start(&machine).is_unchanged());
}

#[test]
fn a_full_disk_leaves_the_tables_alone() {
    let machine = image();
    machine.put("/sys/devices/vda/size", "1050000");
    start(&machine);
    let log = machine.take_log().join("\n");
    assert!(!log.contains("relocate") && !log.contains("online"), "{log}");
}

#[test]
fn the_report_is_machine_readable() {
    let machine = image();
    let json = serde_json::to_value(start(&machine)).unwrap();
    assert_eq!(json["steps"][0]["step"], "esp");
    assert_eq!(json["steps"][0]["outcome"], "made");
}

#[test]
fn a_dataset_with_a_mount_unit_is_left_to_systemd() {
    let machine = image();
    machine.put("/run/systemd/generator/srv-vault.mount", "[Mount]\n");
    assert!(start(&machine).is_complete());
    let log = machine.take_log();
    // The service sees file systems of its own: systemd mounts what it has no unit for, too.
    let mounted = |dataset: &str| log.iter().any(|line| line.ends_with(&format!(" zfs mount {dataset}")));
    assert!(!mounted("rpool/srv/vault") && mounted("rpool/srv/vault/db"), "{log:?}");
    assert!(!log.iter().any(|line| line.starts_with("zfs mount")), "{log:?}");
    // An apply makes it on a machine that has started long ago; later ones find it mounted.
    let told = |log: &[String]| log.iter().any(|line| line == "systemctl start --no-block srv-vault.mount");
    assert!(told(&log), "{log:?}");
    start(&machine);
    assert!(!told(&machine.take_log()));
}

/// ZFS's event daemon may have written the cache just before, without the dataset: a unit that comes later would end the mount.
#[test]
fn a_dataset_that_the_cache_has_lost_has_a_unit_before_it_is_mounted() {
    let machine = image();
    let cache = "/etc/zfs/zfs-list.cache/rpool";
    machine.put(cache, "rpool\tnone\toff\nrpool/var\t/var\toff\n");
    machine.tool("systemctl", |args, _, files| {
        let cache = files.text("/etc/zfs/zfs-list.cache/rpool").expect("there");
        if args == ["daemon-reload"] && cache.contains("\nrpool/srv/vault\t") {
            files.put("/run/systemd/generator/srv-vault.mount", "[Mount]\n", 0o644);
        }
        Ok(vec![])
    });
    assert!(start(&machine).is_complete());
    let log = machine.take_log();
    let at = |line: &str| log.iter().position(|of| of == line);
    let (reload, told) = (at("systemctl daemon-reload"), at("systemctl start --no-block srv-vault.mount"));
    assert!(reload.is_some() && reload < told, "{log:?}");
    assert!(!log.iter().any(|line| line.ends_with(" zfs mount rpool/srv/vault")), "{log:?}");
    let text = machine.text(cache).expect("it is there");
    let names: Vec<&str> = text.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(names[..3], ["rpool", "rpool/srv/vault", "rpool/srv/vault/db"], "{text}");
    assert!(text.contains("rpool/srv/vault\t/srv/vault\ton\t"), "{text}");
    // What is there and mounted is left alone.
    machine.put("/dataset/rpool/srv/vault/mounted", "yes");
    machine.put("/dataset/rpool/srv/vault/db/mounted", "yes");
    start(&machine);
    let log = machine.take_log();
    assert!(!log.iter().any(|line| line.contains("systemctl")), "{log:?}");
}

#[test]
fn mount_units_are_named_as_systemd_names_them() {
    assert_eq!(mount_unit("/efi"), "efi.mount");
    assert_eq!(mount_unit("/var/lib/postgresql-17/ä"), "var-lib-postgresql\\x2d17-\\xc3\\xa4.mount");
}
