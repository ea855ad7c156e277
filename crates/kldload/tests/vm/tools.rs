//! What `kld-host` says to the tools of a machine, and what it understands of their answers, with the real tools.

use kld_host::zpool::PoolStatus;
use kld_host::{Cmd, nft, systemd, wireguard, zfs, zpool};
use kld_vm::Guest;

use crate::fixture::{OPERATOR, key_pair, webapp};

/// Runs a command in the machine as it is printed, which is also how people will repeat it.
fn ask(guest: &Guest, cmd: &Cmd) -> String {
    guest.run_ok(&cmd.to_string()).unwrap_or_else(|error| panic!("`{cmd}`: {error}"))
}

#[test]
fn zfs_takes_our_commands() {
    let guest = webapp();
    guest.run_ok("head -c 32 /dev/urandom > /run/key").expect("written");
    let name = "rpool/srv/a";
    let properties = [
        ("recordsize", "8k"),
        ("encryption", "on"),
        ("keyformat", "raw"),
        ("keylocation", "file:///run/key"),
    ];
    ask(&guest, &zfs::create_cmd(name, &properties));
    ask(&guest, &zfs::set_cmd(name, &[("quota", "1G"), ("org.kldload:note", "two words")]));
    let asked = ["recordsize", "quota", "compression", "org.kldload:note", "keystatus", "mounted"];
    let got = || {
        let text = ask(&guest, &zfs::get_cmd(name, &asked, false));
        let got = zfs::parse_get(&text).expect("readable");
        assert!(got.iter().all(|property| property.dataset == name), "{got:?}");
        got.into_iter().map(|property| (property.value, property.source)).collect::<Vec<_>>()
    };
    let pair = |(value, source): (&str, &str)| (value.to_owned(), source.to_owned());
    let mut want = [
        ("8192", "local"),
        ("1073741824", "local"),
        ("lz4", "inherited from rpool"),
        ("two words", "local"),
        ("available", "-"),
        ("yes", "-"),
    ];
    assert_eq!(got(), want.map(pair));
    guest.run_ok(&format!("zfs unmount {name} && zfs unload-key {name}")).expect("locked");
    (want[4].0, want[5].0) = ("unavailable", "no");
    assert_eq!(got(), want.map(pair));
    ask(&guest, &zfs::load_key_cmd(name));
    ask(&guest, &zfs::mount_cmd(name));
    (want[4].0, want[5].0) = ("available", "yes");
    assert_eq!(got(), want.map(pair));
}

#[test]
fn zpool_says_how_a_pool_is() {
    let guest = webapp();
    let status = |pool: &str| {
        let text = ask(&guest, &zpool::status_cmd(pool));
        let status = zpool::parse_status(pool, &text).unwrap_or_else(|error| panic!("{error}: {text}"));
        // What people read says the same, but for GUIDs; what is wrong is broken into lines there.
        let text = ask(&guest, &zpool::status_text_cmd(pool));
        let read = zpool::parse_status_text(pool, &text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let words = |problem: &Option<String>| -> Vec<String> {
            problem.iter().flat_map(|text| text.split_whitespace()).map(str::to_owned).collect()
        };
        assert_eq!(words(&read.problem), words(&status.problem));
        let (devices, problem) = (status.devices.clone(), status.problem.clone());
        assert_eq!(PoolStatus { devices, problem, ..read }, status);
        status
    };
    let well = status("rpool");
    assert_eq!((well.state.as_str(), well.problem, well.errors, well.device_errors), ("ONLINE", None, 0, 0));

    // A mirror of two files, one of which is overwritten: a scrub finds it.
    guest
        .run_ok(
            "cd /var/tmp && truncate -s 128M a b && zpool create tank mirror $PWD/a $PWD/b && \
                 head -c 20M /dev/urandom > /tank/file && zpool sync tank && \
                 dd if=/dev/urandom of=a bs=1M seek=8 count=60 conv=notrunc status=none",
        )
        .expect("a damaged mirror");
    assert_eq!(status("tank").scan, None);
    ask(&guest, &zpool::scrub_cmd("tank"));
    guest.run_ok("zpool wait -t scrub tank").expect("the scrub ends");
    let found = status("tank");
    let scan = found.scan.clone().expect("there was one");
    assert_eq!((scan.function.as_str(), scan.state.as_str(), scan.errors), ("SCRUB", "FINISHED", 0));
    assert!(scan.ended.is_some_and(|time| time.parse::<u64>().is_ok()), "seconds since 1970");
    assert!(found.device_errors > 0 && found.problem.is_some() && found.errors == 0, "{found:?}");

    // Classes of devices stand beside the data: one side of the special mirror is overwritten, and the spare is gone.
    guest
        .run_ok(
            "cd /var/tmp && truncate -s 128M d e f g h && \
                 zpool create -f classes $PWD/d special mirror $PWD/e $PWD/f log $PWD/g spare $PWD/h && \
                 for name in $(seq 500); do echo $name >/classes/$name; done && zpool export classes && rm h && \
                 dd if=/dev/urandom of=e bs=1M seek=4 count=120 conv=notrunc status=none && \
                 zpool import -d $PWD classes && zpool scrub -w classes",
        )
        .expect("a damaged special mirror");
    let found = status("classes");
    let said: Vec<String> = found.unusable.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["spare /var/tmp/h UNAVAIL"]);
    let paths: Vec<&str> = found.devices.iter().map(|device| device.path.as_str()).collect();
    assert_eq!(paths, ["d", "e", "f", "g"].map(|name| format!("/var/tmp/{name}")));
    assert!(found.device_errors > 0 && found.errors == 0, "{found:?}");
    guest.run_ok("zpool destroy classes").expect("gone");
    let features =
        ask(&guest, &zpool::features_cmd("rpool", &["lz4_compress", "zstd_compress", "async_destroy"]));
    assert_eq!(zpool::parse_features(&features).len(), 3, "{features}");
    guest
        .run_ok("truncate -s 128M c && zpool create -o compatibility=legacy -d old $PWD/c")
        .expect("an old pool");
    let features = ask(&guest, &zpool::features_cmd("old", &["zstd_compress"]));
    assert!(features.contains("disabled") && zpool::parse_features(&features).is_empty(), "{features}");
    let guid = || guest.run_ok("zpool get -H -o value guid tank").expect("asked");
    let before = guid();
    ask(&guest, &zpool::reguid_cmd("tank"));
    assert_ne!(guid(), before);
    let devices = status("tank").devices;
    let paths: Vec<&str> = devices.iter().map(|device| device.path.as_str()).collect();
    assert_eq!(paths, ["/var/tmp/a", "/var/tmp/b"]);
    ask(&guest, &zpool::expand_cmd("tank", &devices[1]));
    guest.run_ok("zpool offline tank /var/tmp/a").expect("taken away");
    assert_eq!(status("tank").state, "DEGRADED");
    let own = status("rpool").devices;
    assert_eq!((own.len(), own[0].path.as_str()), (1, "/dev/disk/by-partlabel/rpool"));
}

#[test]
fn wireguard_nftables_and_systemd_say_how_they_are() {
    let guest = webapp();
    let wg0 = wireguard::parse_dump(&ask(&guest, &wireguard::dump_cmd("wg0"))).expect("readable");
    assert_eq!((wg0.port, wg0.peers.len()), (51820, 1));
    assert_eq!(
        (&wg0.peers[0].public_key, &*wg0.peers[0].allowed_ips),
        (&key_pair().1, &[OPERATOR.to_owned()][..])
    );
    assert_eq!(wg0.peers[0].handshake, None);

    let chain = |table: &str, name: &str| {
        let rules = nft::parse_list(&ask(&guest, &nft::list_cmd())).expect("readable");
        rules.chains.get(&("inet".to_owned(), table.to_owned(), name.to_owned())).cloned()
    };
    let input = chain("kldload", "input").expect("it is loaded");
    assert_eq!((input.hook.as_deref(), input.policy.as_deref()), (Some("input"), Some("drop")));
    assert!(input.rules > 3, "{input:?}");
    let rules = "table inet more {\nchain c {\ntype filter hook input priority 5\ntcp dport 1 drop\n}\n}\n";
    guest.write_file("/run/more.nft", rules.as_bytes(), 0o600).expect("written");
    assert_eq!(chain("more", "c"), None);
    ask(&guest, &nft::load_cmd("/run/more.nft".as_ref()));
    let more = chain("more", "c").expect("it is loaded");
    assert_eq!((more.policy.as_deref(), more.rules), (Some("accept"), 1));

    let units = ["webapp.service", "systemd-tmpfiles-clean.timer", "nope.service"];
    let states = systemd::parse_show(&ask(&guest, &systemd::show_cmd(&units))).expect("readable");
    let state =
        |unit: &str| (states[unit].load.as_str(), states[unit].active.as_str(), states[unit].sub.as_str());
    assert_eq!(state("webapp.service"), ("loaded", "active", "running"));
    assert_eq!(state("systemd-tmpfiles-clean.timer"), ("loaded", "active", "waiting"));
    assert_eq!(state("nope.service"), ("not-found", "inactive", "dead"));
    let exposure =
        |unit| systemd::parse_exposure(&ask(&guest, &systemd::exposure_cmd(unit))).expect("readable");
    assert!(exposure("webapp.service") < 20 && exposure("systemd-logind.service") > 20);
}
