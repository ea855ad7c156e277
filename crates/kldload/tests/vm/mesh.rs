//! From outside: a second machine on the same wire sees one UDP port; a WireGuard peer sees the application.

use std::time::Duration;

use kld_vm::{Guest, Mac, Nic};

use crate::fixture::{boot_until_well, key_pair, machine, operator, scratch, webapp_image};

/// Two machines from one image, joined by a cable: `server` as shipped, `outside` with its own mesh taken down,
/// so that it is a stranger with a network card.
struct Wire {
    server: Guest,
    outside: Guest,
    private_key: String,
}

/// Addresses on the wire.
const SERVER: &str = "192.0.2.1";
const OUTSIDE: &str = "192.0.2.2";

fn wire() -> Wire {
    let (private_key, public_key) = key_pair();
    let socket = |name: &str| scratch().join(name);
    let (a, b) = (socket("wire-a"), socket("wire-b"));
    for path in [&a, &b] {
        let _ = std::fs::remove_file(path);
    }
    let server = machine(webapp_image(), 1)
        .nic(Nic::Cable { mac: Mac::numbered(11), local: a.clone(), remote: b.clone() })
        .credential(operator(&public_key, "10.8.0.9/32"));
    let outside = machine(webapp_image(), 2).nic(Nic::Cable { mac: Mac::numbered(12), local: b, remote: a });
    // Both at once: one boots while the other waits for its disk.
    let (server, outside) = std::thread::scope(|scope| {
        let server = scope.spawn(|| boot_until_well(&server));
        let outside = boot_until_well(&outside);
        (server.join().expect("the server boots"), outside)
    });
    for (guest, address, mac) in [(&server, SERVER, "0b"), (&outside, OUTSIDE, "0c")] {
        let script = format!(
            "dev=$(ip -o link | awk -F': ' '/52:54:00:6b:00:{mac}/ {{print $2}}'); ip addr add {address}/24 dev $dev; ip link set $dev up"
        );
        guest.run_ok(&script).expect("the wire has addresses");
    }
    outside
        .run_ok("systemctl stop webapp postgresql@17-main; nft flush ruleset; for i in wg0 wg1 wg2; do ip link set $i down; done")
        .expect("the second machine becomes a stranger");
    Wire { server, outside, private_key }
}

/// Tries to connect to every TCP port, a thousand at a time, and prints the ones that answer in any way.
const SCAN: &str = r#"
import selectors, socket, sys, time
host, answers = sys.argv[1], []
for first in range(1, 65536, 4096):
    sel, waiting = selectors.DefaultSelector(), 0
    for port in range(first, min(first + 4096, 65536)):
        s = socket.socket(); s.setblocking(False)
        s.connect_ex((host, port)); sel.register(s, selectors.EVENT_WRITE, port); waiting += 1
    end = time.monotonic() + 4
    while waiting and time.monotonic() < end:
        for key, _ in sel.select(timeout=end - time.monotonic()):
            error = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            answers.append((key.data, error)); sel.unregister(key.fileobj); key.fileobj.close(); waiting -= 1
    for key in list(sel.get_map().values()): key.fileobj.close()
print(answers)
"#;

#[test]
fn strangers_see_one_udp_port_and_peers_see_the_application() {
    let Wire { server, outside, private_key } = wire();
    let limit = Duration::from_secs(400);

    // The scan works: a port that is open on the way back is found.
    outside.write_file("/root/scan.py", SCAN.as_bytes(), 0o600).expect("written");
    server
        .run_ok("nft insert rule inet kldload output ip daddr 192.0.2.2 accept")
        .expect("the server may look too");
    outside
        .run_ok("systemd-run --unit=beacon python3 -m http.server --bind 192.0.2.2 4242; sleep 3")
        .expect("a beacon");
    server.write_file("/root/scan.py", SCAN.as_bytes(), 0o600).expect("written");
    let seen = server
        .run_for(&format!("ulimit -n 8192; python3 /root/scan.py {OUTSIDE}"), limit)
        .expect("it scans")
        .text();
    assert!(seen.contains("(4242, 0)"), "the scan must find an open port: {seen}");

    // From outside: silence on every TCP port, on IPv4 and on the link-local IPv6 address.
    let scan = outside
        .run_for(&format!("ulimit -n 8192; python3 /root/scan.py {SERVER}"), limit)
        .expect("it scans")
        .text();
    assert_eq!(scan.trim(), "[]", "no TCP port may answer a stranger");

    // The one open port speaks WireGuard: a peer that the operator named comes in.
    let public_key = server.run_ok("wg show wg0 public-key").expect("the server has a key");
    outside.write_file("/root/key", private_key.as_bytes(), 0o600).expect("written");
    outside
        .run_ok(&format!(
            "ip link add mesh type wireguard && wg set mesh private-key /root/key \
             peer {} endpoint {SERVER}:51820 allowed-ips 10.8.0.0/24 && \
             ip addr add 10.8.0.9/24 dev mesh && ip link set mesh up",
            public_key.trim()
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
    // The zone of wg0 opens 8000 and 22, and nothing else.
    let inside =
        outside.run_for("ulimit -n 8192; python3 /root/scan.py 10.8.0.1", limit).expect("it scans").text();
    assert_eq!(inside.trim(), "[(22, 0), (8000, 0)]");

    // The two machines came from one image, and share no identity.
    let identities = "cat /etc/machine-id; hostid; cat /etc/ssh/ssh_host_ed25519_key.pub; \
                      cat /etc/kldload/wireguard/wg0.pub; cat /etc/kldload/wireguard/wg1.pub; cat /etc/kldload/wireguard/wg2.pub; \
                      zpool get -H -o value guid rpool; \
                      sfdisk --disk-id $(lsblk -npo PKNAME $(zpool list -vPH rpool | awk '/dev/ {print $1; exit}')); \
                      sha256sum < /var/lib/systemd/random-seed";
    let of = |guest: &Guest| {
        guest
            .run_ok(identities)
            .expect("identities are readable")
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (first, second) = (of(&server), of(&outside));
    assert_eq!(first.len(), 9, "{first:?}");
    for (one, two) in first.iter().zip(&second) {
        assert_ne!(one, two, "both machines have it");
    }
    let mut keys = first[3..6].to_vec();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 3, "one key pair per plane");
}
