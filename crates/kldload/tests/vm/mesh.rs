//! From outside: a second machine on the same wire sees one UDP port; a WireGuard peer sees the application.

use std::time::Duration;

use kld_vm::{Guest, Mac, Nic};

use crate::apply::{STATE, assert_same, give};
use crate::fixture::{BOOT, ON_THE_WIRE, OPERATOR, cable, key_pair, machine, webapp, webapp_image};

/// Addresses on the wire.
const SERVER: &str = "192.0.2.1";
const OUTSIDE: &str = "192.0.2.2";

/// Joins a second machine from the same image to the wire of the first, takes its own mesh and firewall down, and so
/// makes a stranger of it. It need not be well: it only looks.
fn stranger(server: &Guest) -> Guest {
    let mac = Mac::numbered(12);
    let (remote, local) = cable();
    let outside =
        machine(webapp_image(), 2).nic(Nic::Cable { mac, local, remote }).start().expect("QEMU starts");
    outside.wait_control(BOOT, |_| ()).expect("it boots");
    outside
        .run_for(
            "systemctl stop --job-mode=replace-irreversibly webapp postgresql@17-main; \
             until systemctl is-active -q kldload-mesh nftables; do sleep 1; done; \
             systemctl stop systemd-networkd.socket systemd-networkd; \
             nft flush ruleset; for i in wg2 wg1 wg0; do ip link set $i down; done",
            BOOT,
        )
        .expect("it becomes a stranger");
    for (guest, address, mac) in [(server, SERVER, ON_THE_WIRE), (&outside, OUTSIDE, mac)] {
        let script = format!(
            "dev=$(ip -o link | awk -F': ' '/{mac}/ {{print $2}}'); ip addr add {address}/24 dev $dev; ip link set $dev up"
        );
        guest.run_ok(&script).expect("the wire has addresses");
    }
    outside
}

/// Tries to connect to every TCP port from `$2` to `$3`, thousands at a time, and prints the ones that answer in any
/// way: 0 is an open port, another number is why it was refused. Silence for three seconds is no answer.
const SCAN: &str = r#"
import errno, resource, selectors, socket, sys, time
host, low, high, batch, answers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 8192, []
resource.setrlimit(resource.RLIMIT_NOFILE, (batch + 64, batch + 64))
for first in range(low, high + 1, batch):
    sel, waiting = selectors.DefaultSelector(), 0
    for port in range(first, min(first + batch, high + 1)):
        s = socket.socket(); s.setblocking(False)
        started = s.connect_ex((host, port))
        if started != errno.EINPROGRESS: sys.exit(f"cannot try port {port}: {errno.errorcode.get(started, started)}")
        sel.register(s, selectors.EVENT_WRITE, port); waiting += 1
    end = time.monotonic() + 3
    while waiting and time.monotonic() < end:
        for key, _ in sel.select(timeout=max(0, end - time.monotonic())):
            error = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            answers.append((key.data, error)); sel.unregister(key.fileobj); key.fileobj.close(); waiting -= 1
    for key in list(sel.get_map().values()): key.fileobj.close()
print(answers)
"#;

fn scan(from: &Guest, host: &str, first: u16, last: u16) -> String {
    from.write_file("/root/scan.py", SCAN.as_bytes(), 0o600).expect("written");
    let script = format!("python3 /root/scan.py {host} {first} {last}");
    let output = from.run_for(&script, Duration::from_secs(400)).expect("it scans");
    assert!(output.is_ok(), "{}", output.error_text());
    output.text().trim().to_owned()
}

#[test]
fn strangers_see_one_udp_port_and_peers_see_the_application() {
    let server = webapp();
    let outside = stranger(&server);

    // The scan works: an open port on the way back is found, with closed ones around it.
    server
        .run_ok("nft insert rule inet kldload output ip daddr 192.0.2.2 accept")
        .expect("the server may look too");
    outside
        .run_ok(
            "systemd-run --unit=beacon python3 -m http.server --bind 192.0.2.2 4242; \
                 until ss -Hltn sport = 4242 | grep -q .; do sleep 1; done",
        )
        .expect("a beacon");
    assert_eq!(scan(&server, OUTSIDE, 4241, 4243), "[(4241, 111), (4242, 0), (4243, 111)]");

    // From outside: silence on every TCP port.
    assert_eq!(scan(&outside, SERVER, 1, 65535), "[]", "no TCP port may answer a stranger");

    // The one open port speaks WireGuard: a peer that the operator named comes in.
    let public_key = server.run_ok("wg show wg0 public-key").expect("the server has a key");
    outside.write_file("/root/key", key_pair().0.as_bytes(), 0o600).expect("written");
    outside
        .run_ok(&format!(
            "ip link add mesh type wireguard && wg set mesh private-key /root/key \
             peer {public_key} endpoint {SERVER}:51820 allowed-ips 10.8.0.0/24 && \
             ip addr add {OPERATOR} dev mesh && ip link set mesh up && ip route add 10.8.0.0/24 dev mesh"
        ))
        .expect("the peer is configured");
    let health = outside
        .run_ok("curl -fsS --retry 10 --retry-all-errors --retry-delay 3 --max-time 20 http://10.8.0.1:8000/healthz")
        .expect("the application answers over the mesh");
    assert!(health.contains("postgresql"), "{health}");
    outside
        .run_ok("curl -fsS --max-time 20 -d text=over+the+mesh http://10.8.0.1:8000/notes")
        .expect("a note is written");
    let stored = server
        .run_ok("runuser -u webapp -- psql -At -c 'SELECT text FROM notes' webapp")
        .expect("psql works");
    assert!(stored.contains("over the mesh"), "{stored}");
    // The zone of wg0 opens 22 and 8000, and nothing else, PostgreSQL and the exporter included.
    assert_eq!(scan(&outside, "10.8.0.1", 1, 10_000), "[(22, 0), (8000, 0)]");

    who_is_cut_off_comes_in_again(&server, &outside);
    two_machines_share_no_identity(&server, &outside);
}

/// A person moves the port of the mesh over SSH, and is out: nobody confirms, and the machine is as it was.
fn who_is_cut_off_comes_in_again(server: &Guest, outside: &Guest) {
    give(server, "/root/moved", &[("port=51820", "port=51999")]);
    let state = || {
        let state = server.run_ok(STATE).expect("readable");
        // The environment of before, and what the rules had for the scan.
        let lines =
            state.lines().filter(|line| !line.contains("rpool/ROOT/apply-") && !line.contains(OUTSIDE));
        lines.collect::<Vec<_>>().join("\n")
    };
    let before = state();
    let key = outside
        .run_ok("ssh-keygen -q -t ed25519 -N '' -f /root/person && cat /root/person.pub")
        .expect("a person has a key");
    server
        .run_ok(&format!("install -d -m 700 /root/.ssh && echo '{key}' > /root/.ssh/authorized_keys"))
        .expect("the person may come in");
    let apply = "systemd-run --quiet --unit=session ssh -i /root/person -o StrictHostKeyChecking=accept-new \
         -o ServerAliveInterval=5 -o ServerAliveCountMax=3 root@10.8.0.1 kldload apply --yes /root/moved/appliance.manifest";
    outside.run_ok(apply).expect("the session begins");
    let answers = "curl -fsS --max-time 3 -o /dev/null http://10.8.0.1:8000/healthz 2> /dev/null";
    let log = || {
        let session = outside.run("journalctl --no-pager -o cat -u session").map(|said| said.text());
        let history = server.run("kldload history 2>&1").map(|said| said.text());
        format!("{}\n{}", session.unwrap_or_default(), history.unwrap_or_default())
    };
    let moved =
        "for i in $(seq 300); do test \"$(wg show wg0 listen-port)\" = 51999 && exit; sleep 1; done; exit 1";
    assert!(server.run_for(moved, BOOT).expect("it answers").is_ok(), "the port is never moved: {}", log());
    let out = outside.run_for(answers, BOOT).expect("it answers");
    assert!(!out.is_ok(), "the person is not cut off: {}", log());
    let ended = outside.run_for("while systemctl is-active -q session; do sleep 1; done", BOOT);
    assert!(ended.expect("it answers").is_ok(), "the session is lost");
    // Nothing is done here but to wait.
    let again =
        outside.run_for(&format!("for i in $(seq 300); do {answers} && exit; sleep 1; done; exit 1"), BOOT);
    assert!(again.expect("it answers").is_ok(), "the person does not come in again: {}", log());
    let idle =
        "until kldload history | grep -q 'nobody has confirmed it: taken back by kldload'; do sleep 1; done";
    assert!(server.run_for(idle, BOOT).expect("it answers").is_ok(), "{}", log());
    server.run_ok("rm -r /root/.ssh").expect("it was made");
    assert_same(&before, &state());
}

/// The two came from one image.
fn two_machines_share_no_identity(one: &Guest, other: &Guest) {
    let identities = "cat /etc/machine-id; hostid; cat /etc/ssh/ssh_host_ed25519_key.pub; \
                      cat /etc/ssh/ssh_host_rsa_key.pub; \
                      cat /etc/kldload/wireguard/wg0.pub /etc/kldload/wireguard/wg1.pub /etc/kldload/wireguard/wg2.pub; \
                      zpool get -H -o value guid rpool; \
                      sfdisk --disk-id $(lsblk -npo PKNAME $(zpool list -vPH rpool | awk '/dev/ {print $1; exit}')); \
                      sha256sum < /var/lib/systemd/random-seed";
    let of = |guest: &Guest| -> Vec<String> {
        let text = guest.run_ok(identities).expect("identities are readable");
        text.lines().map(str::to_owned).collect()
    };
    let (first, second) = (of(one), of(other));
    assert_eq!((first.len(), second.len()), (10, 10), "{first:?} {second:?}");
    for (one, two) in first.iter().zip(&second) {
        assert_ne!(one, two, "both machines have it");
    }
    let mut keys = first[4..7].to_vec();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 3, "one key pair per plane");
}
