//! Every one-line form means what its structured form means.

use kld_manifest::check;
use serde_json::Value;

const HEAD: &str = "name: a\ndistro: Debian 13\nprofile: server\n";
const DATASET: &str = "zfs_layout:\n  rpool/srv/a: recordsize=8k\n  rpool/srv/b: recordsize=8k\n";
const NETWORK: &str = "network_topology:\n  wg0: TCP 3000,8000 web, UDP 53 dns\n  wg2: syncoid\n";
const SERVICE: &str = "services:\n  - unit: x.service\n";

/// The model as JSON without places and without the words of alerts, which the two forms cannot share.
fn meaning(text: &str) -> Value {
    let checked = check(text);
    let errors: String = checked.diagnostics.iter().map(|d| kld_manifest::render("f", text, d)).collect();
    let appliance = checked.appliance.unwrap_or_else(|| panic!("{text}\n{errors}"));
    let mut value = serde_json::to_value(&appliance).expect("a model is plain data");
    strip(&mut value);
    for alert in value["monitoring"]["alerts"].as_array_mut().expect("alerts are a list") {
        alert["text"] = Value::Null;
    }
    value
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.remove("span");
            members.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

#[test]
fn one_line_and_structured_forms_mean_the_same() {
    let table = [
        (
            "zfs_layout:\n  rpool/srv/a: recordsize=128k  compression=lz4  mountpoint=/data  encryption=on  a:b=c\n",
            "zfs_layout:\n  rpool/srv/a:\n    recordsize: 128k\n    compression: lz4\n    mountpoint: /data\n    encryption: on\n    a:b: c\n",
        ),
        (
            "network_topology:\n  wg0: TCP 3000 Gitea admin UI from 10.8.0.0/24 rate 20/second, UDP 27015-27030,53 game\n",
            "network_topology:\n  wg0:\n    allow:\n      - tcp: 3000\n        purpose: Gitea admin UI\n        from: 10.8.0.0/24\n        rate: 20/second\n      - udp: 53, 27015-27030\n        purpose: game\n",
        ),
        (
            "network_topology:\n  wg2: syncoid source\n",
            "network_topology:\n  wg2:\n    note: syncoid source\n",
        ),
        (
            "wireguard:\n  wg0: address=10.9.0.1/24  port=5000\n  wg1: over=public\n",
            "wireguard:\n  wg0:\n    address: 10.9.0.1/24\n    port: 5000\n  wg1:\n    over: public\n",
        ),
        (
            "outbound: TCP 80,443 package updates, TCP 25 to 192.0.2.0/24\n",
            "outbound:\n  - tcp: 80, 443\n    purpose: package updates\n  - tcp: 25\n    to: 192.0.2.0/24\n",
        ),
        (
            "services:\n  - unit: x.service\n    hardening: web  ProtectHome=read-only\n",
            "services:\n  - unit: x.service\n    hardening:\n      preset: web\n      ProtectHome: read-only\n",
        ),
        ("packages: nginx, curl\n", "packages:\n  - nginx\n  - curl\n"),
        (
            "users:\n  a: system  home=/srv/a\n  b: admin  groups=adm,kvm\n",
            "users:\n  a:\n    system: yes\n    home: /srv/a\n  b:\n    admin: yes\n    groups:\n      - adm\n      - kvm\n",
        ),
        (
            "files:\n  /etc/a: sub/a  mode=0600  owner=root  sha256=AB3C0F5E8D7A6B5C4D3E2F1A0B9C8D7E6F5A4B3C2D1E0F9A8B7C6D5E4F3A2B1C\n  /etc/b: |\n    x: 1\n",
            "files:\n  /etc/a:\n    source: sub/a\n    sha256: ab3c0f5e8d7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c\n    mode: 0600\n    owner: root:root\n  /etc/b:\n    content: |\n      x: 1\n",
        ),
        (
            "secrets:\n  a: generate 32 bytes\n  b: supplied\n",
            "secrets:\n  a:\n    generate: 32\n  b:\n    supplied: yes\n",
        ),
        (
            "services:\n  - unit: x.service\n    listens: wg0:3000, localhost:5432, wg0:53/udp\n",
            "services:\n  - unit: x.service\n    listens:\n      - on: wg0\n        port: 3000\n        protocol: tcp\n      - on: localhost\n        port: 5432\n      - on: wg0\n        port: 53\n        protocol: udp\n",
        ),
        (
            "services:\n  - unit: x.service\n    hardening: ProtectSystem=strict  NoNewPrivileges  User=git\n",
            "services:\n  - unit: x.service\n    user: git\n    hardening:\n      ProtectSystem: strict\n      NoNewPrivileges: yes\n",
        ),
        (
            "services:\n  - unit: x.service\n    environment: A=1  B=\"two words\"\n    after: a.service, b.service\n    setup: one, two\n",
            "services:\n  - unit: x.service\n    environment:\n      A: 1\n      B: two words\n    after:\n      - a.service\n      - b.service\n    setup:\n      - one, two\n",
        ),
        (
            "containers:\n  - name: c\n    image: docker.io/library/c:1\n    publish: wg0:3000 -> 80\n    mount: rpool/srv/b -> /data\n",
            "containers:\n  - name: c\n    image: docker.io/library/c:1\n    publish:\n      - on: wg0\n        port: 3000\n        to: 80\n    mount:\n      - dataset: rpool/srv/b\n        path: /data\n",
        ),
        ("snapshot_policy: hourly=48  daily=30\n", "snapshot_policy:\n  hourly: 48\n  daily: 30\n"),
        (
            "replication_policy:\n  target: backup@10.8.2.9:tank/web\n  schedule: nightly at 02:00\n",
            "replication_policy:\n  target:\n    user: backup\n    host: 10.8.2.9\n    dataset: tank/web\n  schedule:\n    daily: \"02:00\"\n",
        ),
        (
            "replication_policy:\n  target: backup@10.8.2.9:tank/web\n  schedule: every 15 minutes\n",
            "replication_policy:\n  target: backup@10.8.2.9:tank/web\n  schedule:\n    every_minutes: 15\n",
        ),
        (
            "replication_policy:\n  target: backup@10.8.2.9:tank/web\n  schedule: hourly\n",
            "replication_policy:\n  target: backup@10.8.2.9:tank/web\n  schedule:\n    hourly: 0\n",
        ),
        (
            "replication_policy:\n  target: backup@10.8.2.9:tank/web\n  schedule: weekly on Sunday at 03:30\n",
            "replication_policy:\n  target: backup@10.8.2.9:tank/web\n  schedule:\n    weekly: Sunday 03:30\n",
        ),
        (
            "monitoring:\n  alerts:\n    - pool DEGRADED: page immediately\n    - x down >1m: page\n    - any service down: warn\n    - disk usage >80%: warn\n    - replication lag >2 hours: warn\n",
            "monitoring:\n  alerts:\n    - condition: pool_not_online\n      severity: page\n    - condition: service_down\n      unit: x\n      for: 1m\n      severity: page\n    - condition: service_down\n      severity: warn\n    - condition: disk_usage\n      percent: 80\n      severity: warn\n    - condition: replication_lag\n      minutes: 120\n      severity: warn\n",
        ),
        (
            "monitoring:\n  alerts:\n    - pool DEGRADED: page\n    - any service down: page\n    - replication lag >90m: warn\n    - disk usage >80%: warn\n",
            "monitoring:\n  alerts:\n    - metric: pool_health != ONLINE\n      action: page\n    - metric: service_up == 0\n      action: page\n    - metric: replication_lag_minutes > 90\n      action: warn\n    - metric: disk_usage_percent > 80\n      action: warn\n",
        ),
        (
            "dr_procedure:\n  RTO: 8 minutes  RPO: 24 hours\n  1. do: this\n  2. If failed: that\n",
            "dr_procedure:\n  rto: 8m\n  rpo: 1 day\n  steps:\n    - text: \"do: this\"\n    - text: \"If failed: that\"\n      on_failure: yes\n",
        ),
        (
            "dr_procedure:\n  1. x\n  2. RTO target: 8 minutes  RPO target: 24 hours\n",
            "dr_procedure:\n  RTO: 8 minutes\n  RPO: 24 hours\n  1. x\n",
        ),
    ];
    for (line, structured) in table {
        let whole = |section: &str| {
            let base = [DATASET, NETWORK, SERVICE];
            let rest = base.iter().filter(|piece| {
                let key = piece.split(':').next().unwrap_or_default();
                !section.starts_with(key)
            });
            rest.fold(format!("{HEAD}{section}"), |text, piece| text + piece)
        };
        assert_eq!(meaning(&whole(line)), meaning(&whole(structured)), "{line}\n{structured}");
    }
}

#[test]
fn different_values_do_differ() {
    let policy = |hourly: u32| format!("{HEAD}{DATASET}snapshot_policy: hourly={hourly}\n");
    assert_ne!(meaning(&policy(1)), meaning(&policy(2)));
}
