//! A container of the manifest, with podman: on the mesh and nowhere else, its data on its dataset, no right of root.
//!
//! No registry is near: the image is made of the machine's own perl.

use kld_vm::Guest;

use crate::fixture::BOOT;

/// A web server that greets, says what it may do, and counts its visitors on its dataset.
const GREETER: &str = r#"
use IO::Socket::INET;
my $server = IO::Socket::INET->new(Listen => 5, LocalPort => 80, ReuseAddr => 1) or die $@;
while (my $client = $server->accept) {
    1 while defined($_ = <$client>) && /\S/;
    open my $count, '>>', '/data/visits' or die $!;
    print $count "x";
    close $count;
    open my $status, '<', '/proc/self/status';
    my ($rights) = grep { /^CapEff/ } <$status>;
    my $answer = "$ENV{GREETING}\ntoken of " . (-s '/run/secrets/token') . " bytes\nvisits " . (-s '/data/visits') . "\n$rights";
    print $client "HTTP/1.0 200 OK\r\n\r\n$answer";
    close $client;
}
"#;

/// A peer of wg0 in a network namespace of the same machine: its packets take the way of any peer's.
const PEER: &str = "set -e
    ip netns add peer
    umask 077; wg genkey > /run/peer.key
    wg set wg0 peer $(wg pubkey < /run/peer.key) allowed-ips 10.8.0.50/32
    ip link add mesh type wireguard
    ip link set mesh netns peer
    ip netns exec peer wg set mesh private-key /run/peer.key \
        peer $(wg show wg0 public-key) endpoint 127.0.0.1:51820 allowed-ips 10.8.0.0/24
    ip -n peer address add 10.8.0.50/32 dev mesh
    ip -n peer link set mesh up
    ip -n peer route add 10.8.0.0/24 dev mesh";

pub(crate) fn a_container_answers_peers_and_nobody_else(guest: &Guest) {
    guest.write_file("/var/lib/greeter.pl", GREETER.as_bytes(), 0o644).expect("written");
    let made = guest
        .run_for(
            "set -e
             systemctl stop greeter
             root=$(mktemp -d)
             for file in /usr/bin/perl $(ldd /usr/bin/perl | grep -o '/[^ ]*'); do cp -L --parents $file $root; done
             cp -r --parents /usr/lib/x86_64-linux-gnu/perl-base $root
             cp /var/lib/greeter.pl $root/greeter.pl
             mkdir -p $root/run/secrets $root/data $root/proc $root/dev $root/sys $root/etc
             tar -C $root -c . | podman import --change 'CMD [\"/usr/bin/perl\", \"/greeter.pl\"]' - localhost/greeter:1
             systemctl start greeter",
            BOOT,
        )
        .expect("it answers");
    let log =
        || guest.run("journalctl --no-pager -u greeter | tail -20").map(|o| o.text()).unwrap_or_default();
    assert!(made.is_ok(), "{}\n{}", made.error_text(), log());

    guest.run_ok(PEER).expect("there is a peer");
    let ask = "curl -sS --retry 20 --retry-all-errors --retry-delay 2 --max-time 20 http://10.8.0.1:8080/";
    let answer = guest.run_for(&format!("ip netns exec peer {ask}"), BOOT).expect("it answers");
    assert!(answer.is_ok(), "{}\n{}", answer.error_text(), log());
    // 32 bytes are 44 letters of base64.
    let (answer, rights) = (answer.text(), "CapEff:\t0000000000000000");
    assert_eq!(answer, format!("good morning\ntoken of 44 bytes\nvisits 1\n{rights}"));
    assert_eq!(guest.run_ok("cat /srv/greeter/visits").expect("on its dataset"), "x");
    // It is published on the plane's address alone.
    let elsewhere = guest.run("curl -sS --max-time 5 http://127.0.0.1:8080/").expect("asked");
    assert!(!elsewhere.is_ok(), "{}", elsewhere.text());
    guest.run_ok("ip netns delete peer").expect("removed");
}
