//! The probes on a fake machine that answers as the real tools do.

use super::*;
use crate::machine::fake::FakeMachine;
use expect_test::expect;
use kld_system::node::*;

const NOW: u64 = 1_795_305_600;

/// `zpool status --json --json-int -p` of OpenZFS 2.3.
const STATUS: &str = r#"{"output_version":{"command":"zpool status","vers_major":0,"vers_minor":1},"pools":{"rpool":{
"name":"rpool","state":"ONLINE","pool_guid":123,"txg":500,"spa_version":5000,"zpl_version":5,
"scan_stats":{"function":"SCRUB","state":"FINISHED","start_time":1795219100,"end_time":1795219200,"to_examine":1,
"examined":1,"skipped":0,"processed":0,"errors":0,"bytes_per_scan":0,"pass_start":1,"scrub_pause":"-",
"scrub_spent_paused":0,"issued_bytes_per_scan":0,"issued":1},
"vdevs":{"rpool":{"name":"rpool","vdev_type":"root","guid":123,"class":"normal","state":"ONLINE","alloc_space":1,
"total_space":2,"def_space":2,"read_errors":0,"write_errors":0,"checksum_errors":0,
"vdevs":{"vda2":{"name":"vda2","vdev_type":"disk","guid":4,"path":"/dev/vda2","class":"normal","state":"ONLINE",
"read_errors":0,"write_errors":0,"checksum_errors":0}}}},"error_count":0}}}"#;

/// `smartctl --json --health --attributes` of smartmontools 7.4, of a disk for ATA and of one for NVMe.
const DISK: &str = r#"{"json_format_version":[1,0],"smartctl":{"version":[7,4],"exit_status":0},
"device":{"name":"/dev/sda","info_name":"/dev/sda [SAT]","type":"sat","protocol":"ATA"},"smart_status":{"passed":true},
"ata_smart_attributes":{"revision":16,"table":[{"id":5,"name":"Reallocated_Sector_Ct","value":100,"worst":100,"thresh":10,
"raw":{"value":0,"string":"0"}},{"id":197,"name":"Current_Pending_Sector","value":100,"raw":{"value":0,"string":"0"}}]}}"#;
const NVME: &str = r#"{"smartctl":{"exit_status":0},"smart_status":{"passed":true,"nvme":{"value":0}},
"nvme_smart_health_information_log":{"critical_warning":0,"available_spare":100,"percentage_used":3,"media_errors":0}}"#;
/// Of a disk that sleeps.
const ASLEEP: &str =
    r#"{"smartctl":{"messages":[{"string":"Device is in STANDBY mode, exit(2)"}],"exit_status":2}}"#;
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n";

const STATE: &str = "/proc/spl/kstat/zfs/rpool/state";

fn disk(args: &[String], report: &str) -> Vec<u8> {
    let scan = r#"{"devices":[{"name":"/dev/sda","type":"sat"}]}"#;
    if args[1] == "--scan" { scan.into() } else { report.into() }
}

const RULES: &str = r#"{"nftables":[{"metainfo":{"version":"1.1.3","json_schema_version":1}},
{"table":{"family":"inet","name":"kldload","handle":1}},
{"chain":{"family":"inet","table":"kldload","name":"input","handle":1,"type":"filter","hook":"input","prio":0,"policy":"drop"}},
{"chain":{"family":"inet","table":"kldload","name":"forward","handle":2,"type":"filter","hook":"forward","prio":0,"policy":"drop"}},
{"rule":{"family":"inet","table":"kldload","chain":"input","handle":3,"expr":[{"accept":null}]}}]}"#;

const EXPOSURE: &str =
    "  NAME DESCRIPTION EXPOSURE\n✓ User= is fine\n\n→ Overall exposure level for app.service: 1.2 OK 🙂\n";

const SOCKETS: &str = "\
udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:* users:((\"systemd-resolve\",pid=9,fd=1))
udp UNCONN 0 0 10.0.2.15%ens3:68 0.0.0.0:* users:((\"systemd-network\",pid=8,fd=1))
udp UNCONN 0 0 0.0.0.0:51820 0.0.0.0:*
udp UNCONN 0 0 [::]:51820 [::]:*
tcp LISTEN 0 128 10.8.0.1:22 0.0.0.0:* users:((\"sshd\",pid=1,fd=1))
";

fn config() -> NodeConfig {
    let mut config = crate::identity::test_config();
    config.services = ["app.service", "postgresql@17-main.service"]
        .map(|unit| NodeService { unit: unit.into(), listens: vec![], max_exposure_tenths: None })
        .to_vec();
    config.services[0].max_exposure_tenths = Some(20);
    config.snapshots = Some(NodeSnapshots { datasets: vec!["rpool/srv/app".into()], max_age_minutes: 30 });
    config.verify = vec![NodeVerify {
        name: "app answers".into(),
        command: "curl -fsS http://${WG0_ADDRESS}:8000/".into(),
        expect: Some("hello".into()),
        timeout_seconds: 10,
    }];
    config
}

/// What it says of anything but keys.
fn zfs(machine: &FakeMachine, says: String) {
    machine.tool("zfs", move |args, _, _| {
        let keys = "rpool/srv/vault\tkeyformat\traw\t-\nrpool/srv/vault\tkeystatus\tavailable\t-\n";
        let of_keys = args.iter().any(|arg| arg == "keyformat,keystatus");
        Ok(if of_keys { keys.into() } else { says.clone().into_bytes() })
    });
}

fn machine() -> FakeMachine {
    let machine = FakeMachine::default();
    machine.state().now = NOW;
    machine.tool("zpool", |args, _, _| {
        Ok(match (&args[0][..], args.last().map(String::as_str)) {
            ("status", _) => STATUS.into(),
            ("list", _) => "rpool\n".into(),
            _ => "capacity\t41\nfragmentation\t7\n".into(),
        })
    });
    machine.tool("systemctl", |args, _, _| {
        Ok(match &args[0][..] {
            "is-system-running" => "running\n".into(),
            "show" => b"Id=app.service\nLoadState=loaded\nActiveState=active\nSubState=running\n\n\
                Id=postgresql@17-main.service\nLoadState=loaded\nActiveState=active\nSubState=running\n"
                .to_vec(),
            _ => vec![],
        })
    });
    zfs(&machine, format!("rpool/srv/app@a\t{}\nrpool/srv/app@b\t{}\n", NOW - 9000, NOW - 600));
    machine.answer(
        "wg",
        &format!(
            "PRIVATE\tPUBLIC\t51820\toff\nPEER=\t(none)\t192.0.2.7:4\t10.8.0.2/32\t{}\t1\t2\toff\n",
            NOW - 30
        ),
    );
    machine.answer("systemd-analyze", EXPOSURE);
    machine.tool("smartctl", |args, _, _| Ok(disk(args, DISK)));
    machine.put("/etc/letsencrypt/live/app/cert.pem", CERTIFICATE);
    machine.put("/etc/ssl/localcerts/own.pem", CERTIFICATE);
    machine.put("/etc/ssl/localcerts/own.key.pem", "-----BEGIN PRIVATE KEY-----\n");
    machine.answer("openssl", "notAfter=Mar  1 12:00:00 2027 GMT\nCertificate will not expire\n");
    machine.answer("timedatectl", "NTP=yes\nNTPSynchronized=yes\n");
    machine.answer("nft", RULES);
    machine.answer("ss", SOCKETS);
    machine.answer("setpriv", "hello from the database\n");
    machine.put("/proc/spl/kstat/zfs/arcstats", "9 1 0x01\n");
    machine.put(STATE, "ONLINE\n");
    machine.put("/efi/loader/entries/debian.conf", "linux /l\noptions spl.spl_hostid=0x04030201\n");
    machine.put("/run/systemd/system/job.service", "");
    machine.put("/sys/class/net/wg0/ifindex", "3\n");
    machine.put("/sys/class/net/wg1/ifindex", "4\n");
    machine.put("/etc/hostid", "\u{1}\u{2}\u{3}\u{4}");
    machine.put("/sys/module/spl/parameters/spl_hostid", "67305985\n");
    machine.put("/etc/kldload/planes.env", "WG0_ADDRESS=10.8.0.1\n");
    machine.state().times.insert("/var/lib/kldload/replication/stamp".into(), NOW - 240);
    machine
}

fn look(machine: FakeMachine, config: Option<NodeConfig>) -> Health {
    let health = check(Arc::new(machine), config, Duration::from_secs(60), Vec::new());
    assert_commands(&health);
    health
}

/// Whatever is wrong, a person is told what to do next.
fn assert_commands(health: &Health) {
    for probe in health.probes.iter().filter(|probe| probe.status > Status::Info) {
        assert!(probe.command.as_ref().is_some_and(|command| !command.is_empty()), "{probe:?}");
    }
}

#[test]
fn a_machine_that_is_well() {
    let health = look(machine(), Some(config()));
    expect![[r#"
        PROBE                STATUS  SUMMARY
        boot                 ok      running
        pool                 ok      rpool ONLINE, no errors, 41% full, 7% fragmented
        scrub                ok      scrub of rpool found no errors 24 h ago
        disks                ok      1 of 1 say that they are well
        keys                 ok      no dataset is locked
        services             ok      2 of 2 running, no unit has failed
        sandboxes            ok      app.service 1.2 of at most 2.0
        snapshots            ok      newest of 1 datasets at most 10 min old
        replication          ok      to 10.8.2.1:tank/web 4 min ago
        wireguard            ok      wg0 up, 1 of 1 peers up, last heard 30 s ago
        wireguard            ok      wg1 up, 1 of 1 peers up, last heard 30 s ago
        firewall             ok      1 rules, everything else is dropped
        sockets              ok      5 listen, all where they may
        clock                ok      kept right by the network
        certificates         ok      2 valid for two weeks and more
        host-id              ok      0x04030201 in 1 boot entries
        verify: app answers  ok      as expected
    "#]]
    .assert_eq(&health.to_string());
    assert!(health.is_well());
    expect![[r##"
        # HELP kldload_pool_online 1 when the pool is ONLINE, else 0.
        # TYPE kldload_pool_online gauge
        kldload_pool_online{pool="rpool"} 1
        # HELP kldload_pool_capacity_ratio Used part of the pool, 0 to 1.
        # TYPE kldload_pool_capacity_ratio gauge
        kldload_pool_capacity_ratio{pool="rpool"} 0.41
        # HELP kldload_pool_errors Read, write, checksum and permanent errors of the pool.
        # TYPE kldload_pool_errors gauge
        kldload_pool_errors{pool="rpool"} 0
        # HELP kldload_scrub_age_seconds Seconds since the last scrub ended.
        # TYPE kldload_scrub_age_seconds gauge
        kldload_scrub_age_seconds{pool="rpool"} 86400
        # HELP kldload_service_up 1 when the unit is active, else 0.
        # TYPE kldload_service_up gauge
        kldload_service_up{unit="app.service"} 1
        kldload_service_up{unit="postgresql@17-main.service"} 1
        # HELP kldload_snapshot_age_seconds Age of the newest snapshot.
        # TYPE kldload_snapshot_age_seconds gauge
        kldload_snapshot_age_seconds{dataset="rpool/srv/app"} 600
        # HELP kldload_replication_last_success_timestamp_seconds Seconds since 1970 at which a replication last succeeded.
        # TYPE kldload_replication_last_success_timestamp_seconds gauge
        kldload_replication_last_success_timestamp_seconds{target="10.8.2.1:tank/web"} 1795305360
        # HELP kldload_replication_lag_seconds Seconds since the last successful replication.
        # TYPE kldload_replication_lag_seconds gauge
        kldload_replication_lag_seconds{target="10.8.2.1:tank/web"} 240
        # HELP kldload_peer_handshake_age_seconds Seconds since the peer's last handshake.
        # TYPE kldload_peer_handshake_age_seconds gauge
        kldload_peer_handshake_age_seconds{peer="wg0 PEER="} 30
        kldload_peer_handshake_age_seconds{peer="wg1 PEER="} 30
        # HELP kldload_probe_status What a probe of kst found: 0 ok, 1 info, 2 warn, 3 timeout, 4 fail.
        # TYPE kldload_probe_status gauge
        kldload_probe_status{probe="boot"} 0
        kldload_probe_status{probe="certificates"} 0
        kldload_probe_status{probe="clock"} 0
        kldload_probe_status{probe="disks"} 0
        kldload_probe_status{probe="firewall"} 0
        kldload_probe_status{probe="host-id"} 0
        kldload_probe_status{probe="keys"} 0
        kldload_probe_status{probe="pool"} 0
        kldload_probe_status{probe="replication"} 0
        kldload_probe_status{probe="sandboxes"} 0
        kldload_probe_status{probe="scrub"} 0
        kldload_probe_status{probe="services"} 0
        kldload_probe_status{probe="snapshots"} 0
        kldload_probe_status{probe="sockets"} 0
        kldload_probe_status{probe="verify: app answers"} 0
        kldload_probe_status{probe="wireguard"} 0
    "##]].assert_eq(&render_prometheus(&health));
}

/// Breaks one thing of a healthy machine; the probe of that name must see it, and no other one may.
#[test]
fn every_probe_sees_what_it_is_for() {
    type Break = fn(&FakeMachine);
    let table: &[(&str, Status, Break)] = &[
        ("boot", Status::Fail, |m| degraded(m)),
        ("pool", Status::Fail, |m| {
            m.tool("zpool", |args, _, _| {
                pool(args, "\"state\":\"ONLINE\",\"pool", "\"state\":\"DEGRADED\",\"pool")
            })
        }),
        ("pool", Status::Warn, |m| {
            m.tool("zpool", |args, _, _| pool(args, "\"checksum_errors\":0}}}}", "\"checksum_errors\":3}}}}"))
        }),
        ("pool", Status::Warn, |m| {
            let lost =
                "\"l2cache\":{\"/dev/vdc\":{\"state\":\"CANT_OPEN\",\"read_errors\":0}},\"error_count\"";
            m.tool("zpool", move |args, _, _| pool(args, "\"error_count\"", lost))
        }),
        ("pool", Status::Warn, |m| {
            m.tool("zpool", |args, _, _| {
                Ok(if args[0] == "status" { STATUS.into() } else { "capacity\t41\nreadonly\ton\n".into() })
            })
        }),
        ("pool", Status::Fail, |m| {
            m.tool("zfs", |args, _, _| {
                let newest = format!("rpool/srv/app@b\t{}\n", NOW - 600);
                let asks = |what: &str| args.iter().any(|arg| arg == what);
                Ok(if asks("available") {
                    "4096\n".into()
                } else if asks("list") {
                    newest.into()
                } else {
                    vec![]
                })
            })
        }),
        ("pool", Status::Fail, |m| {
            m.put(STATE, "SUSPENDED\n");
            m.tool("zpool", |_, _, _| Err("it would wait for ever".to_owned()));
        }),
        ("pool", Status::Fail, |m| m.put("/proc/spl/kstat/zfs/tank/state", "SUSPENDED\n")),
        ("pool", Status::Fail, |m| drop(m.state().files.0.remove(Path::new(STATE)))),
        ("scrub", Status::Fail, |m| {
            m.tool("zpool", |args, _, _| pool(args, "\"errors\":0,\"bytes", "\"errors\":2,\"bytes"))
        }),
        ("scrub", Status::Warn, |m| m.tool("zpool", |args, _, _| pool(args, "1795219200", "1700000000"))),
        ("scrub", Status::Warn, |m| m.tool("zpool", |args, _, _| pool(args, "1795219200", "1999999999"))),
        ("disks", Status::Fail, |m| {
            m.tool("smartctl", |args, _, _| Ok(disk(args, &DISK.replace("true", "false"))))
        }),
        ("disks", Status::Warn, |m| {
            let worn = || DISK.replace("\"value\":0,", "\"value\":8,");
            m.tool("smartctl", move |args, _, _| Ok(disk(args, &worn())));
        }),
        ("disks", Status::Fail, |m| {
            m.tool("smartctl", |args, _, _| Ok(disk(args, &NVME.replace("warning\":0", "warning\":4"))))
        }),
        ("disks", Status::Warn, |m| {
            let old = || NVME.replace("used\":3", "used\":97").replace("errors\":0", "errors\":2");
            m.tool("smartctl", move |args, _, _| Ok(disk(args, &old())));
        }),
        ("disks", Status::Fail, |m| m.answer("smartctl", "no JSON")),
        ("clock", Status::Warn, |m| {
            m.put("/proc/uptime", "90000.12 170000.00\n");
            m.answer("timedatectl", "NTP=yes\nNTPSynchronized=no\n");
        }),
        ("certificates", Status::Warn, |m| {
            m.tool("openssl", |args, _, _| {
                let will = if args.contains(&"0".to_owned()) { "will not" } else { "will" };
                Ok(format!("notAfter=Dec  1 12:00:00 2026 GMT\nCertificate {will} expire\n").into_bytes())
            })
        }),
        ("certificates", Status::Fail, |m| {
            m.answer("openssl", "notAfter=Nov  1 12:00:00 2026 GMT\nCertificate will expire\n")
        }),
        ("sandboxes", Status::Fail, |m| m.answer("systemd-analyze", &EXPOSURE.replace("1.2", "2.1"))),
        ("snapshots", Status::Fail, |m| zfs(m, format!("rpool/srv/app@a\t{}\n", NOW - 9000))),
        ("snapshots", Status::Warn, |m| zfs(m, String::new())),
        ("replication", Status::Fail, |m| {
            m.state().times.retain(|_, time| {
                *time = NOW - 90_000;
                true
            })
        }),
        ("replication", Status::Warn, |m| m.state().times.clear()),
        ("replication", Status::Warn, |m| {
            m.state().times.retain(|_, time| {
                *time = NOW + 86_400;
                true
            })
        }),
        ("wireguard", Status::Fail, |m| {
            m.state().files.0.retain(|path, _| !path.starts_with("/sys/class/net"));
            m.tool("wg", |_, _, _| Err("Unable to access interface: No such device".to_owned()));
        }),
        ("wireguard", Status::Fail, |m| drop(m.state().tools.remove("wg"))),
        ("wireguard", Status::Fail, |m| {
            m.tool("wg", |_, _, _| Err("Unable to access interface: Operation not permitted".to_owned()))
        }),
        ("firewall", Status::Fail, |m| m.answer("nft", r#"{"nftables":[]}"#)),
        ("firewall", Status::Fail, |m| m.answer("nft", &RULES.replacen("drop", "accept", 1))),
        ("sockets", Status::Fail, |m| {
            m.answer("ss", "tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:((\"sshd\",pid=1,fd=1))\n")
        }),
        ("sockets", Status::Fail, |m| {
            m.answer("ss", "udp UNCONN 0 0 0.0.0.0:51820 0.0.0.0:* users:((\"nc\",pid=1,fd=1))\n")
        }),
        ("sockets", Status::Fail, |m| m.answer("ss", "what is this\n")),
        ("host-id", Status::Fail, |m| m.put("/etc/hostid", "")),
        ("host-id", Status::Fail, |m| m.put("/efi/loader/entries/new.conf", "linux /l\noptions ro\n")),
        ("host-id", Status::Warn, |m| m.put("/sys/module/spl/parameters/spl_hostid", "7\n")),
        ("verify: app answers", Status::Fail, |m| m.answer("setpriv", "502 Bad Gateway\n")),
        ("verify: app answers", Status::Fail, |m| {
            m.tool("setpriv", |_, _, _| Err("trying\ncurl: (7) Failed to connect to 10.8.0.1\n".to_owned()))
        }),
        ("verify: app answers", Status::Fail, |m| m.tool("setpriv", |_, _, _| Err(String::new()))),
    ];
    let mut text = String::new();
    for (name, status, break_it) in table {
        let machine = machine();
        break_it(&machine);
        let health = look(machine, Some(config()));
        let bad: Vec<_> = health.probes.iter().filter(|probe| probe.status > Status::Info).collect();
        assert!(!bad.is_empty(), "{name}");
        for probe in bad {
            assert_eq!((probe.name.as_str(), probe.status), (*name, *status), "{}", probe.summary);
            if name.starts_with("verify") {
                assert_eq!(probe.command.as_deref(), Some("curl -fsS http://10.8.0.1:8000/"));
            }
            text.push_str(&format!("{}: {}\n", probe.name, probe.summary));
        }
        assert_eq!(health.status, *status);
        assert!(!health.is_well());
    }
    expect![[r#"
        boot: degraded
        pool: rpool DEGRADED, no errors, 41% full
        pool: rpool ONLINE, 3 errors, 41% full
        pool: rpool ONLINE, no errors, cache /dev/vdc UNAVAIL, 41% full
        pool: rpool ONLINE, no errors, 41% full, imported read-only
        pool: rpool ONLINE, no errors, 41% full, no room left, 7% fragmented
        pool: rpool SUSPENDED: whoever uses it waits
        pool: tank SUSPENDED: whoever uses it waits
        pool: rpool is not imported
        scrub: scrub of rpool found 2 errors
        scrub: scrub of rpool found no errors 1103 days ago
        scrub: the last scrub of rpool is dated in the future: the clock was wrong
        disks: /dev/sda says that it fails
        disks: /dev/sda has 8 reallocated sectors and 8 pending sectors
        disks: /dev/sda says that it fails
        disks: /dev/sda has 2 media errors and 97% of its life used
        disks: could not read the output of `smartctl`: expected ident at line 1 column 2
        clock: not set by the network since the start 25 h ago: no server has answered
        certificates: /etc/letsencrypt/live/app/cert.pem expires on Dec  1 12:00:00 2026 GMT, /etc/ssl/localcerts/own.pem expires on Dec  1 12:00:00 2026 GMT
        certificates: /etc/letsencrypt/live/app/cert.pem has expired on Nov  1 12:00:00 2026 GMT, /etc/ssl/localcerts/own.pem has expired on Nov  1 12:00:00 2026 GMT
        sandboxes: app.service 2.1 of at most 2.0
        snapshots: too old: rpool/srv/app: 2 h
        snapshots: none yet of rpool/srv/app
        replication: to 10.8.2.1:tank/web 25 h ago
        replication: never yet to 10.8.2.1:tank/web
        replication: the last one to 10.8.2.1:tank/web is dated in the future: the clock was wrong
        wireguard: wg0 is not up
        wireguard: wg1 is not up
        wireguard: `wg` is not installed
        wireguard: `wg` is not installed
        wireguard: Unable to access interface: Operation not permitted
        wireguard: Unable to access interface: Operation not permitted
        firewall: table `inet kldload` is not loaded
        firewall: what nobody allowed is not dropped on input
        sockets: reachable from outside a plane: sshd on tcp port 22
        sockets: reachable from outside a plane: nc on udp port 51820
        sockets: reachable from outside a plane: unknown socket `what is this`
        host-id: /etc/hostid holds none
        host-id: boot entry `new.conf` does not carry 0x04030201
        host-id: the kernel does not run with 0x04030201
        verify: app answers: `hello` expected, not `502 Bad Gateway`
        verify: app answers: curl: (7) Failed to connect to 10.8.0.1
        verify: app answers: failed with exit status: 1
    "#]]
    .assert_eq(&text);
}

fn degraded(machine: &FakeMachine) {
    machine.tool("systemctl", |args, _, _| match &args[0][..] {
        "is-system-running" => Ok("degraded\n".into()),
        "show" => {
            Ok(b"Id=app.service\nActiveState=active\n\nId=postgresql@17-main.service\nActiveState=active\n"
                .to_vec())
        }
        _ => Ok(vec![]),
    });
}

fn pool(args: &[String], from: &str, to: &str) -> Result<Vec<u8>, String> {
    assert!(STATUS.contains(from), "the fixture holds no `{from}`");
    Ok(if args[0] == "status" { STATUS.replace(from, to) } else { "capacity\t41\n".to_owned() }.into_bytes())
}

/// Between two ends it is `active`.
#[test]
fn a_service_that_keeps_ending_is_no_service_that_runs() {
    for (restarts, since, said) in [
        (3, 850, Some("app.service keeps ending: started again 3 times, 50 s ago")),
        (2, 850, None),
        (3, 700, None),
    ] {
        let machine = machine();
        machine.put("/proc/uptime", "900.12 1.0\n");
        machine.tool("systemctl", move |args, _, _| {
            let show = format!(
                "Id=app.service\nLoadState=loaded\nActiveState=active\nNRestarts={restarts}\n\
                 ActiveEnterTimestampMonotonic={since}000000\n\n\
                 Id=postgresql@17-main.service\nLoadState=loaded\nActiveState=active\n"
            );
            Ok(match &args[0][..] {
                "is-system-running" => "running\n".into(),
                "show" => show.into_bytes(),
                _ => vec![],
            })
        });
        let health = look(machine, Some(config()));
        let probe = health.probes.iter().find(|probe| probe.name == "services").unwrap();
        let want =
            said.map_or((Status::Ok, "2 of 2 running, no unit has failed"), |said| (Status::Warn, said));
        assert_eq!((probe.status, &*probe.summary), want);
    }
}

#[test]
fn services_that_are_down_or_failed_are_named() {
    let machine = machine();
    machine.tool("systemctl", |args, _, _| {
        Ok(match &args[0][..] {
            "is-system-running" => "running\n".into(),
            "show" => b"Id=app.service\nLoadState=not-found\nActiveState=inactive\n\n\
                Id=postgresql@17-main.service\nLoadState=loaded\nActiveState=failed\n"
                .to_vec(),
            _ => b"postgresql@17-main.service loaded failed failed PostgreSQL\nx.mount loaded failed failed X\n".to_vec(),
        })
    });
    let health = look(machine, Some(config()));
    let probe = health.probes.iter().find(|probe| probe.name == "services").unwrap();
    expect!["app.service is not-found, postgresql@17-main.service failed, x.mount failed"]
        .assert_eq(&probe.summary);
    assert_eq!(probe.status, Status::Fail);
    // So that a third that fails is told from these.
    let units = ["app.service", "postgresql@17-main.service", "x.mount"];
    assert_eq!(probe.troubles(), units.map(|unit| format!("services: {unit}")));
}

#[test]
fn a_disk_that_sleeps_or_cannot_be_asked_is_left_alone() {
    let asks: [fn(&FakeMachine); 3] = [
        |m| m.tool("smartctl", |args, _, _| Ok(disk(args, ASLEEP))),
        |m| m.answer("smartctl", r#"{"devices":[]}"#),
        |m| drop(m.state().tools.remove("smartctl")),
    ];
    let mut text = String::new();
    for ask in asks {
        let machine = machine();
        ask(&machine);
        let health = look(machine, Some(config()));
        let probe = health.probes.iter().find(|probe| probe.name == "disks").expect("it has looked");
        assert_eq!(probe.status, Status::Info);
        text.push_str(&format!("{}\n", probe.summary));
    }
    expect![[r#"
        /dev/sda does not say
        none that knows how it is
        not asked: smartmontools is not installed
    "#]]
    .assert_eq(&text);
}

/// It would count as fresh until the clock has come there.
#[test]
fn a_handshake_that_is_dated_in_the_future_says_nothing() {
    let machine = machine();
    let peer = format!("PEER=\t(none)\t(none)\t10.8.0.2/32\t{}\t0\t0\toff\n", NOW + 86_400);
    machine.answer("wg", &format!("P\tP\t1\toff\n{peer}"));
    let health =
        check_some(Arc::new(machine), Some(config()), DEADLINE, Vec::new(), |name| name == "wireguard");
    assert_eq!(health.probes[0].summary, "wg0 up, 0 of 1 peers up");
    assert!(health.probes.iter().all(|probe| probe.metrics.is_empty()));
}

/// It would be the newest for ever, however old the rest becomes.
#[test]
fn a_snapshot_that_is_dated_in_the_future_is_no_new_one() {
    let mut text = String::new();
    for dates in [vec![600_i64, -86_400, -90_000], vec![9000, -86_400], vec![-86_400], vec![9000, -299]] {
        let machine = machine();
        let lines =
            dates.iter().map(|age| format!("rpool/srv/app@{age}\t{}\n", NOW.saturating_add_signed(-age)));
        zfs(&machine, lines.collect());
        let health =
            check_some(Arc::new(machine), Some(config()), DEADLINE, Vec::new(), |n| n == "snapshots");
        let probe = &health.probes[0];
        let (status, command) = (probe.status.as_str(), probe.command.as_deref().unwrap_or_default());
        text.push_str(&format!("{status} {:?}: {}\n  {command}\n", probe.subjects, probe.summary));
    }
    expect![[r#"
        warn ["rpool/srv/app"]: newest of 1 datasets at most 10 min old; 2 snapshots are dated in the future: the clock was wrong
          zfs list -d 1 -t snapshot -S creation -o name,creation rpool/srv/app
        fail ["rpool/srv/app"]: too old: rpool/srv/app: 2 h; 1 snapshot is dated in the future: the clock was wrong
          systemctl status sanoid.timer sanoid.service; zfs list -d 1 -t snapshot -S creation -o name,creation rpool/srv/app
        warn ["rpool/srv/app"]: none yet of rpool/srv/app; 1 snapshot is dated in the future: the clock was wrong
          systemctl status sanoid.timer sanoid.service; zfs list -d 1 -t snapshot -S creation -o name,creation rpool/srv/app
        ok []: newest of 1 datasets at most 0 s old
          systemctl status sanoid.timer sanoid.service
    "#]]
    .assert_eq(&text);
}

/// One that hangs, and its neighbours, in either order.
#[test]
fn a_disk_that_hangs_hides_no_other() {
    let disks = |report: &'static str| {
        let machine = machine();
        machine.state().hangs = Some("/dev/sdb".to_owned());
        machine.tool("smartctl", move |args, _, _| {
            let names = ["a", "b", "c"].map(|name| format!(r#"{{"name":"/dev/sd{name}","type":"sat"}}"#));
            let scan = format!(r#"{{"devices":[{}]}}"#, names.join(","));
            let is_last = args.last().is_some_and(|name| name == "/dev/sdc");
            Ok(if args[1] == "--scan" { scan.into() } else { if is_last { report } else { DISK }.into() })
        });
        let deadline = Duration::from_millis(2500);
        let health = check_some(Arc::new(machine), None, deadline, Vec::new(), |name| name == "disks");
        health.probes.into_iter().next().expect("it has looked")
    };
    let fails: &str = Box::leak(DISK.replace("true", "false").into_boxed_str());
    let probe = disks(fails);
    expect!["/dev/sdc says that it fails, /dev/sdb does not answer"].assert_eq(&probe.summary);
    assert_eq!((probe.status, probe.command.as_deref()), (Status::Fail, Some("smartctl -x /dev/sdc")));
    assert_eq!(probe.troubles(), ["disks: /dev/sdc", "disks: /dev/sdb"]);

    let probe = disks(DISK);
    assert_eq!((probe.status, &*probe.summary), (Status::Timeout, "/dev/sdb does not answer"));
    assert_eq!(probe.subjects, ["/dev/sdb"]);
}

#[test]
fn a_machine_without_a_network_has_a_day_before_its_clock_is_a_matter() {
    let machine = machine();
    machine.put("/proc/uptime", "7300.5 1.0\n");
    machine.answer("timedatectl", "NTP=no\nNTPSynchronized=no\n");
    let health = look(machine, Some(config()));
    let probe = health.probes.iter().find(|probe| probe.name == "clock").expect("it has looked");
    assert_eq!(probe.status, Status::Info);
    expect!["not set by the network since the start 2 h ago: nobody is asked"].assert_eq(&probe.summary);
}

/// That somebody may not look says nothing about the machine.
#[test]
fn what_only_root_sees_is_no_trouble_of_others() {
    let machine = machine();
    machine.state().unprivileged = true;
    for tool in ["wg", "nft", "openssl"] {
        machine.tool(tool, |_, _, _| Err("Operation not permitted".to_owned()));
    }
    let look = || unreachable!("it is a question to root");
    let question = Question { name: "changes", sees: "what was applied", shows: "x", look: Box::new(look) };
    let health = check(Arc::new(machine), Some(config()), Duration::from_secs(60), vec![question]);
    let said = health.probes.iter().filter(|probe| probe.status == Status::Info);
    let said: Vec<String> = said.map(|probe| format!("{}: {}", probe.name, probe.summary)).collect();
    expect![[r#"
        wireguard: only root sees the planes
        firewall: only root sees the firewall
        certificates: only root sees the certificates
        changes: only root sees what was applied"#]]
    .assert_eq(&said.join("\n"));
    assert!(health.is_well(), "{health}");
}

#[test]
fn a_peer_that_was_never_seen_is_no_failure() {
    let machine = machine();
    machine.answer("wg", "P\tP\t1\toff\nPEER=\t(none)\t(none)\t10.8.0.2/32\t0\t0\t0\toff\n");
    let health = look(machine, Some(config()));
    assert!(health.is_well());
    assert_eq!(health.status, Status::Info);
}

#[test]
fn a_machine_without_a_node_file_is_looked_at_as_it_is() {
    let health = look(machine(), None);
    expect![[r#"
        PROBE         STATUS  SUMMARY
        boot          ok      running
        pool          ok      rpool ONLINE, no errors, 41% full, 7% fragmented
        scrub         ok      scrub of rpool found no errors 24 h ago
        disks         ok      1 of 1 say that they are well
        services      ok      no unit has failed
        sandboxes     info    no `max_exposure` is set
        snapshots     info    no policy
        replication   info    none is set up
        wireguard     info    no interface
        firewall      info    kldload has set up none
        sockets       info    nothing is promised
        clock         ok      kept right by the network
        certificates  ok      2 valid for two weeks and more
        host-id       info    kldload has not set one
    "#]]
    .assert_eq(&health.to_string());
    assert!(health.is_well());
}

#[test]
fn a_machine_without_systemd_is_looked_at_too() {
    let machine = machine();
    machine.state().files.0.remove(Path::new("/run/systemd/system/job.service"));
    machine.tool("systemctl", |_, _, _| Err("System has not been booted with systemd".to_owned()));
    let health = look(machine, None);
    assert!(health.is_well(), "{health}");
    assert_eq!(health.probes[0].summary, "not asked: systemd does not run here");
}

/// OpenZFS 2.1 and 2.2 know no JSON.
#[test]
fn pools_of_an_older_zfs_are_looked_at_too() {
    let machine = machine();
    machine.tool("zpool", |args, _, _| {
        let text = "  pool: rpool\n state: ONLINE\n  scan: scrub repaired 0B in 00:00:01 with 0 errors on Sat Nov 21 00:00:00 2026\nconfig:\n\n\tNAME       STATE  READ WRITE CKSUM\n\trpool      ONLINE    0     0     0\n\t  /dev/a2  ONLINE    0     0     2\n\nerrors: No known data errors\n";
        Ok(match (&args[0][..], args[1].as_str()) {
            ("status", "--json") => Vec::new(),
            ("status", _) => text.into(),
            _ => "capacity\t41\n".into(),
        })
    });
    let health = look(machine, None);
    let said: Vec<_> = health.probes[1..3].iter().map(|probe| probe.summary.as_str()).collect();
    assert_eq!(said, ["rpool ONLINE, 2 errors, 41% full", "scrub of rpool found no errors 24 h ago"]);
}

#[test]
fn only_what_matters_is_asked() {
    let machine = Arc::new(machine());
    let matters = |name: &str| name == "firewall" || name.starts_with("verify: ");
    let asked: Arc<dyn Machine> = Arc::clone(&machine) as Arc<dyn Machine>;
    let health = check_some(asked, Some(config()), Duration::from_secs(60), Vec::new(), matters);
    let names: Vec<_> = health.probes.iter().map(|probe| probe.name.as_str()).collect();
    assert_eq!(names, ["firewall", "verify: app answers"]);
    let log = machine.take_log();
    assert!(log.iter().all(|line| line.starts_with("nft ") || line.contains(" setpriv ")), "{log:?}");
}

#[test]
fn a_machine_without_any_tool_fails_and_says_so() {
    let health = look(FakeMachine::default(), Some(config()));
    assert_eq!(health.status, Status::Fail);
    assert!(health.probes.iter().all(|probe| !probe.summary.is_empty() && !probe.summary.contains('\n')));
}

/// A tool that says no, in words or without, and one that says nothing that can be read.
#[test]
fn a_tool_that_fails_has_the_command_that_shows_it() {
    let tools =
        ["zpool", "zfs", "systemctl", "smartctl", "wg", "nft", "ss", "openssl", "systemd-analyze", "setpriv"];
    let mut text = String::new();
    for tool in tools {
        for says in [Err("it says no"), Err(""), Ok("?")] {
            let machine = machine();
            machine.tool(tool, move |_, _, _| says.map(Vec::from).map_err(str::to_owned));
            let health = look(machine, Some(config()));
            let bad = health.probes.iter().filter(|probe| probe.summary == "it says no");
            text.extend(bad.map(|of| format!("{}: {}\n", of.name, of.command.as_deref().expect("checked"))));
        }
    }
    expect![[r#"
        pool: zpool status --json --json-int -p -P rpool
        scrub: zpool status --json --json-int -p -P rpool
        keys: zfs get -Hpr -t filesystem,volume -o name,property,value,source keyformat,keystatus rpool
        snapshots: zfs list -Hp -d 1 -t snapshot -o name,creation rpool/srv/app
        boot: systemctl is-system-running
        services: systemctl list-units --failed --plain --no-legend --no-pager
        wireguard: wg show wg0
        wireguard: wg show wg1
        firewall: nft --json list ruleset
        sockets: ss -Hlntup
        certificates: openssl x509 -noout -enddate -checkend 1209600 -in /etc/letsencrypt/live/app/cert.pem
        sandboxes: systemd-analyze security --no-pager -- app.service
        verify: app answers: curl -fsS http://10.8.0.1:8000/
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_probe_that_never_returns_is_reported_and_keeps_no_other_away() {
    let view = || Arc::new(View { machine: Arc::new(machine()), config: None });
    let never = Task::new("stuck", "show stuck", Duration::from_millis(20), |_| {
        loop {
            std::thread::park();
        }
    });
    let long = Duration::from_secs(60);
    let fine = Task::new("fine", "show fine", long, |_| vec![Probe::new("fine", Status::Ok, "x")]);
    let broken = Task::new("broken", "show broken", long, |_| panic!("a bug in a probe"));
    let health = Health::new(run_tasks(view(), vec![never, fine, broken]));
    let found: Vec<_> = health
        .probes
        .iter()
        .map(|probe| (probe.name.as_str(), probe.status, probe.command.as_deref()))
        .collect();
    let wanted = [
        ("stuck", Status::Timeout, Some("show stuck")),
        ("fine", Status::Ok, None),
        ("broken", Status::Fail, Some("show broken")),
    ];
    assert_eq!(found, wanted);
    assert_eq!(health.status, Status::Fail);
    assert!(!Health::new(vec![Probe::new("stuck", Status::Timeout, "")]).is_well());
}

#[test]
fn labels_of_metrics_are_escaped() {
    let probe = Probe::new("a\"b\\c\nd", Status::Ok, "").with_metric(Family::ServiceUp, "x\"\n", 1.0);
    let text = render_prometheus(&Health::new(vec![probe]));
    assert!(text.contains(r#"kldload_service_up{unit="x\"\n"} 1"#), "{text}");
    assert!(text.contains(r#"{probe="a\"b\\c\nd"} 0"#), "{text}");
}
