//! A container of the manifest, with podman: on the mesh and nowhere else, its data on its dataset, no right of root.
//!
//! No registry is near: the image is made of the machine's own perl.

use kld_vm::Guest;

use crate::fixture::BOOT;
use crate::{apply, contract};

/// A web server that greets, says what it may do, and counts its visitors on its dataset.
const GREETER: &str = r#"
use IO::Socket::INET;
# The first process of a container ends by a signal only when it handles it.
$SIG{TERM} = sub { exit 0 };
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
    // What it writes elsewhere is in a layer of its own, which goes with it.
    let perl = |code: &str| format!("podman exec greeter /usr/bin/perl -e '{code}'");
    let write = perl(r#"open my $f, ">", "/etc/written" or exit 1; print $f "x""#);
    guest
        .run_ok(&format!("{write} && test ! -e /etc/written && systemctl restart greeter"))
        .expect("written");
    let is_gone = perl(r#"exit(-e "/etc/written" ? 1 : 0)"#);
    let again = format!("for i in $(seq 60); do {is_gone} && exit; sleep 1; done; exit 1");
    assert!(guest.run_for(&again, BOOT).expect("it answers").is_ok(), "{}", log());
    // It is published on the plane's address alone.
    let elsewhere = guest.run("curl -sS --max-time 5 http://127.0.0.1:8080/").expect("asked");
    assert!(!elsewhere.is_ok(), "{}", elsewhere.text());
    guest.run_ok("ip netns delete peer").expect("removed");
}

/// A service that runs podman itself, in the preset for it: the rest of podman sees its container, and may go into it.
pub(crate) fn a_service_starts_containers_itself(guest: &Guest) {
    let service = "services:\n  - unit: hosted.service\n    \
                   command: /usr/bin/podman run --rm --replace --name hosted localhost/greeter:1\n    \
                   hardening: container-host\n";
    let manifest = include_str!("vault/appliance.manifest").replacen("services:\n", service, 1);
    guest.write_file("/root/hosted.manifest", manifest.as_bytes(), 0o644).expect("written");
    let (status, said, error) = apply::kldload(guest, "apply --yes /root/hosted.manifest");
    assert_eq!(status, 0, "{said}\n{error}");
    let inside = "for i in $(seq 30); do podman exec hosted /usr/bin/perl -e 'print -s q(/greeter.pl)' && exit; sleep 1; done; exit 1";
    let size = guest.run_for(inside, BOOT).expect("it answers");
    let log = guest.run("journalctl --no-pager -u hosted | tail -20").expect("it answers").text();
    assert_eq!((size.status, size.text()), (0, GREETER.len().to_string()), "{}\n{log}", size.error_text());
    assert!(guest.run_ok("podman ps --format '{{.Names}}'").expect("listed").contains("hosted"), "{log}");
    let (status, said, error) = apply::kldload(guest, "undo --yes");
    assert_eq!(status, 0, "{said}\n{error}");
    // What podman has started outlives a unit that only says `podman run`: docs/hardening.md.
    guest.run_ok("! systemctl cat hosted.service && podman rm --force --time 5 hosted").expect("it is gone");
}

/// A registry of one image, as `podman push` has laid it out in a directory. TLS is not for it.
const REGISTRY: &str = r#"
use IO::Socket::INET;
my $server = IO::Socket::INET->new(Listen => 20, LocalAddr => '127.0.0.1', LocalPort => 5000, ReuseAddr => 1) or die $@;
while (my $client = $server->accept) {
    my $first = getc $client;
    next unless defined $first && $first =~ /[GH]/;
    my (undef, $path) = split / /, scalar <$client>;
    1 while defined($_ = <$client>) && /\S/;
    my ($status, $type, $body) = ('404 Not Found', 'application/json', '{}');
    my $file = $path =~ m{^/v2/greeter/manifests/} ? 'manifest.json' : $path =~ m{^/v2/greeter/blobs/sha256:([0-9a-f]{64})$} ? $1 : '';
    if ($path eq '/v2/') {
        $status = '200 OK';
    } elsif ($file && open my $in, '<:raw', "/root/registry/$file") {
        local $/;
        ($status, $body) = ('200 OK', scalar <$in>);
        $type = $file eq 'manifest.json' ? ($body =~ /"mediaType":\s*"([^"]+)"/)[0] : 'application/octet-stream';
    }
    print $client "HTTP/1.1 $status\r\nContent-Type: $type\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n";
    print $client $body if $first eq 'G';
    close $client;
}
"#;

/// What the engine asks podman, and what it answers: the machine in memory says the same (`kld-engine/tests/contract.rs`).
fn podman_says_what_the_one_in_memory_does(guest: &Guest) {
    let wrong = contract::differences_in(guest, contract::PODMAN);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An apply has the image before the unit starts, or is as if it had never been.
pub(crate) fn images_are_pulled_or_the_apply_is_undone(guest: &Guest) {
    podman_says_what_the_one_in_memory_does(guest);
    guest.write_file("/root/registry.pl", REGISTRY.as_bytes(), 0o644).expect("written");
    let digest = guest
        .run_for(
            "set -e
             printf '[[registry]]\\nlocation = \"localhost:5000\"\\ninsecure = true\\n' > /etc/containers/registries.conf.d/here.conf
             podman create --name second localhost/greeter:1 >&2
             podman commit --quiet --change 'ENV SECOND=yes' second localhost/greeter:2 >&2
             podman push --quiet --format v2s2 localhost/greeter:2 dir:/root/registry >&2
             podman rm second >&2; podman image rm localhost/greeter:2 >&2
             systemd-run --quiet --unit=registry perl /root/registry.pl
             sha256sum /root/registry/manifest.json | cut -c -64",
            BOOT,
        )
        .expect("it answers");
    assert!(digest.is_ok(), "{}", digest.error_text());
    let pinned = format!("localhost:5000/greeter@sha256:{}", digest.text().trim());
    let give = |image: &str| {
        let manifest = include_str!("vault/appliance.manifest").replace("localhost/greeter:1", image);
        guest.write_file("/root/new.manifest", manifest.as_bytes(), 0o644).expect("written");
    };
    let images = "podman image list --format '{{.Repository}} {{.Id}}' | sort; podman ps --format '{{.Image}} {{.Names}}'";
    let before = guest.run_ok(images).expect("listed");

    give("localhost:5000/none:1");
    let (_, plan, error) = apply::kldload(guest, "plan /root/new.manifest");
    assert!(
        plan.contains("+ image    localhost:5000/none:1") && plan.contains("not pinned"),
        "{plan}\n{error}"
    );
    let (status, said, error) = apply::kldload(guest, "apply --yes /root/new.manifest");
    assert_eq!(status, 1, "{said}\n{error}");
    assert!(error.contains("failed at image localhost:5000/none:1, and everything is as it was"), "{error}");
    assert_eq!(guest.run_ok(images).expect("listed"), before);

    give(&pinned);
    let (status, said, error) = apply::kldload(guest, "apply --yes /root/new.manifest");
    assert_eq!(status, 0, "{said}\n{error}");
    assert!(said.contains(&format!("+ image    {pinned}")) && !said.contains("not pinned"), "{said}");
    let running = guest.run_ok(images).expect("listed");
    assert!(
        running.contains("localhost:5000/greeter ") && running.contains(&format!("{pinned} greeter")),
        "{running}"
    );
    let (status, said, error) = apply::kldload(guest, "undo --yes");
    assert_eq!(status, 0, "{said}\n{error}");
    // The image stays, as packages do, and nothing runs it.
    assert!(error.contains(&format!("left: podman image rm {pinned}")), "{error}");
    guest.run_ok(&format!("podman image rm {pinned}")).expect("nobody runs it");
    assert_eq!(guest.run_ok(images).expect("listed"), before);
    guest.run_ok("systemctl stop registry; rm -r /root/registry").expect("gone");
}
