//! Zones, planes, peers, outbound rules.

use super::{Key, Kind, Rule, Section};
use crate::values::Wrong;

/// What may come in through one interface.
pub(crate) static ZONE: Section = Section {
    title: "network_topology: zones",
    one: "a zone",
    doc: "The ports that one interface accepts. On one line: `TCP` or `UDP`, the ports, then what they are for; further \
          rules after a comma. `from NETWORK` and `rate N/second` may stand in the line. A line without `TCP` or `UDP` \
          opens nothing and is a note.",
    frame: "network_topology:\n  wg0:\n    {}\n",
    shorthands: &[
        "network_topology:\n  eth0: TCP 80,443 (HTTPS only), UDP 27015-27030 game\n",
        "network_topology:\n  wg0: TCP 22 SSH from 10.8.0.0/28 rate 5/second\n",
    ],
    keys: &[
        Key::optional(
            "allow",
            Kind::Items(&ALLOW),
            "The ports that are open.",
            "allow:\n  - tcp: 3000\n    purpose: Gitea admin UI",
        ),
        Key::optional("note", Kind::Text("text"), "A remark for people.", "note: syncoid source"),
    ],
};

/// One inbound rule.
pub(crate) static ALLOW: Section = Section {
    title: "network_topology: allow",
    one: "a rule",
    doc: "Ports accepted in a zone. Exactly one of `tcp` and `udp`.",
    frame: "network_topology:\n  wg0:\n    allow:\n      - {}\n",
    shorthands: &[],
    keys: &[
        Key::optional("tcp", Kind::List("ports and port ranges"), "TCP ports.", "tcp: 80, 443"),
        Key::optional("udp", Kind::List("ports and port ranges"), "UDP ports.", "udp: 27015-27030"),
        Key::optional(
            "purpose",
            Kind::Text("text"),
            "What they are for.",
            "purpose: Gitea admin UI\ntcp: 3000",
        ),
        Key::optional(
            "from",
            Kind::List("networks"),
            "Accept only from these networks. Default: from anybody in the zone.",
            "from: 10.8.0.0/24\ntcp: 22",
        ),
        Key::optional(
            "rate",
            Kind::Checked(&RATE),
            "Most new connections per second from one address.",
            "rate: 20/second\ntcp: 443",
        ),
    ],
};

/// Planes and peers.
pub(crate) static WIREGUARD: Section = Section {
    title: "wireguard",
    one: "`wireguard`",
    doc: "The WireGuard planes by name (`wg0:`, `wg1:`, …), and the peers that may talk on them.",
    frame: "wireguard:\n  {}\n",
    shorthands: &[],
    keys: &[Key::optional(
        "peers",
        Kind::Items(&PEER),
        "Other machines and people.",
        "peers:\n  - name: laptop\n    plane: wg0\n    public_key: mDwZ9oVXXkSjlkPBBFnHDmoDjVl1LUNLgDVeYQWDfUA=\n    allowed_ips: 10.8.0.2/32",
    )],
};

/// One WireGuard interface.
pub(crate) static PLANE: Section = Section {
    title: "wireguard: planes",
    one: "a plane",
    doc: "One WireGuard interface. Its key pair is born on the machine at first boot; only public keys of others stand in a \
          manifest.",
    frame: "wireguard:\n  wg1:\n    {}\n",
    shorthands: &[
        "wireguard:\n  wg0: address=10.8.0.1/24  port=51820\n  wg1: address=10.8.1.1/24  port=51821  over=wg0\n",
    ],
    keys: &[
        Key::optional(
            "address",
            Kind::Text("an address with the length of its network"),
            "The machine's address on the plane. Default for wgN: the first of 10.8.N.0/24 that neither a peer nor the \
             replication target has.",
            "address: 10.8.1.1/24",
        ),
        Key::optional(
            "port",
            Kind::Integer { min: 1, max: 65535 },
            "UDP port it listens on. Default for wgN: 51820 + N.",
            "port: 51821",
        ),
        Key::optional(
            "over",
            Kind::Text("a plane, or `public`"),
            "What carries its packets. Default: `public` for wg0, wg0 for every other, so that one UDP port is open to the \
             world.",
            "over: wg0",
        ),
    ],
};

/// One WireGuard peer.
pub(crate) static PEER: Section = Section {
    title: "wireguard: peers",
    one: "a peer",
    doc: "A machine or person on a plane. One key pair per plane: the same public key on two planes is refused.",
    frame: "wireguard:\n  peers:\n    - {}\n",
    shorthands: &[],
    keys: &[
        Key::required("name", Kind::Text("a name"), "A name for people.", "name: laptop"),
        Key::required("plane", Kind::Text("a plane"), "The plane it is on.", "plane: wg0"),
        Key::required(
            "public_key",
            Kind::Text("a WireGuard public key"),
            "Its public key: 32 bytes in base64, as `wg pubkey` prints it.",
            "public_key: mDwZ9oVXXkSjlkPBBFnHDmoDjVl1LUNLgDVeYQWDfUA=",
        ),
        Key::required(
            "allowed_ips",
            Kind::List("networks inside the plane's"),
            "The addresses it may use on the plane.",
            "allowed_ips: 10.8.0.2/32",
        ),
        Key::optional(
            "endpoint",
            Kind::Checked(&ENDPOINT),
            "Where it is reached, when it has a fixed place.",
            "endpoint: laptop.example.com:51820",
        ),
        Key::optional(
            "keepalive",
            Kind::Integer { min: 1, max: 65535 },
            "Seconds between packets that keep a NAT open.",
            "keepalive: 25",
        ),
    ],
};

/// One outbound rule.
pub(crate) static OUTBOUND_RULE: Section = Section {
    title: "outbound",
    one: "an outbound rule",
    doc: "Connections that the machine may open on the public interface. Exactly one of `tcp` and `udp`.",
    frame: "outbound:\n  - {}\n",
    shorthands: &[
        "outbound: TCP 80,443 package updates, TCP 25 to 192.0.2.0/24\n",
        "outbound: any\n",
        "outbound: nothing\n",
    ],
    keys: &[
        Key::optional("tcp", Kind::List("ports and port ranges"), "TCP destination ports.", "tcp: 80, 443"),
        Key::optional("udp", Kind::List("ports and port ranges"), "UDP destination ports.", "udp: 3478"),
        Key::optional(
            "purpose",
            Kind::Text("text"),
            "What it is for.",
            "purpose: package updates\ntcp: 80, 443",
        ),
        Key::optional(
            "to",
            Kind::List("networks"),
            "Only to these networks. Default: anywhere.",
            "to: 192.0.2.0/24\ntcp: 25",
        ),
        Key::optional(
            "user",
            Kind::Text("a login name"),
            "Only processes of this account.",
            "user: webapp\ntcp: 443",
        ),
    ],
};

static RATE: Rule = Rule {
    what: "a rate",
    pattern: "^[1-9][0-9]*/second$",
    check: |text| crate::lower::rules::parse_rate(text).map(drop),
};

static ENDPOINT: Rule = Rule {
    what: "an endpoint",
    pattern: "^(.+):[0-9]{1,5}$",
    check: |text| {
        let wrong = || {
            Wrong::because("an endpoint is a host name or an address, a colon and a port")
                .hint("for example `laptop.example.com:51820` or `[2001:db8::1]:51820`")
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        crate::values::parse_port(port)?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let good = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.parse::<crate::names::HostName>().is_ok(),
        };
        if good { Ok(()) } else { Err(wrong()) }
    },
};
