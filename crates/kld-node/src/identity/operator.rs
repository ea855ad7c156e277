//! Operators: people who reach this machine over the mesh, given when it starts and kept.
//!
//! An operator is one WireGuard peer of one plane. Those that are given at a start replace those of earlier starts, so
//! that access can be taken away; none given means that the earlier ones stay. One that is not valid is named and left
//! out, the others count. They go to a drop-in of the plane's `.netdev` (systemd.netdev(5), `[WireGuardPeer]`).

use super::wireguard::PublicKey;
use super::{Changes, Node, StepResult, write_if_other};
use crate::machine::Access;
use ipnet::IpNet;
use kld_system::node::{NodeConfig, NodePlane};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

/// An operator as somebody wrote it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct RawOperator {
    /// Where it was written.
    pub(super) origin: String,
    pub(super) plane: String,
    pub(super) public_key: String,
    pub(super) allowed_ips: Vec<String>,
    pub(super) endpoint: Option<String>,
    pub(super) name: Option<String>,
}

/// An operator that fits the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Operator {
    public_key: PublicKey,
    allowed_ips: Vec<IpNet>,
    endpoint: Option<String>,
    name: Option<String>,
}

/// `plane=wg0 public_key=… allowed_ips=10.8.0.2/32,… [endpoint=host:port] [name=…]`.
pub(super) fn parse_line(line: &str) -> Result<RawOperator, String> {
    let mut fields = BTreeMap::new();
    for word in line.split_ascii_whitespace() {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word:.64}` is not `key=value`"))?;
        if !["plane", "public_key", "allowed_ips", "endpoint", "name"].contains(&key) {
            return Err(format!(
                "`{key:.64}` is not known: plane, public_key, allowed_ips, endpoint and name are"
            ));
        }
        if fields.insert(key, value.to_owned()).is_some() {
            return Err(format!("`{key}` is given twice"));
        }
    }
    let mut need = |key: &str| fields.remove(key).ok_or_else(|| format!("`{key}=` is missing"));
    Ok(RawOperator {
        origin: String::new(),
        plane: need("plane")?,
        public_key: need("public_key")?,
        allowed_ips: need("allowed_ips")?.split(',').map(str::to_owned).collect(),
        endpoint: fields.remove("endpoint"),
        name: fields.remove("name"),
    })
}

/// `wg0,PUBLIC_KEY,10.8.0.2/32[,host:port]`, after `kldload.operator=`.
pub(super) fn parse_argument(text: &str) -> Result<RawOperator, String> {
    let fields: Vec<String> = text.split(',').map(str::to_owned).collect();
    let (fields, endpoint) = match fields.len() {
        3 => (fields, None),
        4 => (fields[..3].to_vec(), fields.last().cloned()),
        _ => return Err("`plane,public_key,allowed_ip[,host:port]` is expected".to_owned()),
    };
    let [plane, public_key, allowed_ip] = <[String; 3]>::try_from(fields).unwrap_or_default();
    Ok(RawOperator { plane, public_key, allowed_ips: vec![allowed_ip], endpoint, ..RawOperator::default() })
}

pub(super) fn ensure(node: &Node<'_>, given: &[RawOperator]) -> StepResult {
    let mut changes = Changes::default();
    let (operators, warnings) = check_all(node.config, given);
    changes.warnings = warnings;
    // Nothing usable given: who got in before still gets in.
    if operators.values().all(Vec::is_empty) {
        return Ok(changes);
    }
    for (interface, operators) in operators {
        let path = drop_in(interface);
        if operators.is_empty() {
            if node.machine.has(&path) {
                node.machine.remove(path.as_ref())?;
                changes.made.push(format!("{interface}: none any more"));
            }
        } else if write_if_other(node.machine, &path, render(&operators).as_bytes(), Access::NETWORK)? {
            changes.made.push(format!("{interface}: {}", operators.len()));
        }
    }
    Ok(changes)
}

fn drop_in(interface: &str) -> String {
    format!("/etc/systemd/network/50-{interface}.netdev.d/50-operator.conf")
}

/// The valid operators of every plane, and why the others are not.
fn check_all<'a>(
    config: &'a NodeConfig,
    given: &[RawOperator],
) -> (BTreeMap<&'a str, Vec<Operator>>, Vec<String>) {
    let mut valid: BTreeMap<&str, Vec<Operator>> =
        config.planes.iter().map(|plane| (plane.interface.as_str(), Vec::new())).collect();
    let mut warnings = Vec::new();
    for raw in given {
        let plane = config.planes.iter().find(|plane| plane.interface == raw.plane);
        let checked =
            plane.ok_or_else(|| format!("plane `{:.64}` does not exist", raw.plane)).and_then(|plane| {
                let known = valid.get(plane.interface.as_str()).map_or(&[][..], Vec::as_slice);
                Ok((plane, check(raw, plane, known)?))
            });
        match checked {
            Ok((plane, operator)) => valid.entry(&plane.interface).or_default().push(operator),
            Err(reason) => warnings.push(format!("{}: {reason}", raw.origin)),
        }
    }
    for operators in valid.values_mut() {
        operators.sort_by_key(|operator| operator.public_key);
    }
    (valid, warnings)
}

/// Checks one operator against its plane and those who are on it already.
fn check(raw: &RawOperator, plane: &NodePlane, known: &[Operator]) -> Result<Operator, String> {
    let public_key: PublicKey = raw.public_key.parse().map_err(|()| {
        format!("`{:.64}` is not a WireGuard public key (44 characters of base64)", raw.public_key)
    })?;
    let peers: BTreeSet<PublicKey> =
        plane.peers.iter().filter_map(|peer| peer.public_key.parse().ok()).collect();
    if peers.contains(&public_key) {
        return Err(format!("`{public_key}` is a peer of {} already", plane.interface));
    }
    if known.iter().any(|other| other.public_key == public_key) {
        return Err(format!("`{public_key}` is given twice"));
    }
    if raw.allowed_ips.is_empty() {
        return Err("no allowed address".to_owned());
    }
    let taken: Vec<IpNet> = plane
        .peers
        .iter()
        .flat_map(|peer| peer.allowed_ips.iter().copied())
        .chain(known.iter().flat_map(|other| other.allowed_ips.iter().copied()))
        .collect();
    let check_ip = |text: &String| check_allowed_ip(text, plane, &taken);
    let allowed_ips = raw.allowed_ips.iter().map(check_ip).collect::<Result<_, _>>()?;
    let endpoint = raw.endpoint.as_deref().map(check_endpoint).transpose()?;
    let name = raw.name.as_deref().map(check_name).transpose()?;
    Ok(Operator { public_key, allowed_ips, endpoint, name })
}

/// WireGuard routes by these: a net that holds someone else's address takes their traffic away.
fn check_allowed_ip(text: &str, plane: &NodePlane, taken: &[IpNet]) -> Result<IpNet, String> {
    let single = || text.parse::<IpAddr>().map(IpNet::from);
    let net =
        text.parse::<IpNet>().or_else(|_| single()).map_err(|_| format!("`{text:.64}` is not a network"))?;
    let (net, all) = (net.trunc(), plane.address.trunc());
    if !all.contains(&net) {
        return Err(format!("`{net}` is not inside {all}, the network of {}", plane.interface));
    }
    if net.contains(&plane.address.addr()) {
        return Err(format!("`{net}` holds this machine's own address"));
    }
    match taken.iter().find(|other| other.contains(&net) || net.contains(*other)) {
        Some(other) => Err(format!("`{net}` overlaps `{other}`, which another peer has")),
        None => Ok(net),
    }
}

/// `host:port`; the host is a name or an address, IPv6 in brackets.
fn check_endpoint(text: &str) -> Result<String, String> {
    let bad = || format!("`{text:.64}` is not an endpoint (`host:port`)");
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let is_port = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&host.len())
                && !host.starts_with(['-', '.'])
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        }
    };
    if is_host && is_port { Ok(text.to_owned()) } else { Err(bad()) }
}

/// The name becomes a comment in a file of systemd: one line of harmless characters.
fn check_name(text: &str) -> Result<String, String> {
    let good = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@+".contains(&b));
    if good {
        Ok(text.to_owned())
    } else {
        Err("the name is not 1 to 64 letters, digits or `-_.@+`".to_owned())
    }
}

fn render(operators: &[Operator]) -> String {
    let mut text = String::from("# Written by `kldload node init`: operators given at run time.\n");
    for operator in operators {
        text.push('\n');
        if let Some(name) = &operator.name {
            let _ = writeln!(text, "# {name}");
        }
        let _ = writeln!(text, "[WireGuardPeer]\nPublicKey={}", operator.public_key);
        for net in &operator.allowed_ips {
            let _ = writeln!(text, "AllowedIPs={net}");
        }
        if let Some(endpoint) = &operator.endpoint {
            let _ = writeln!(text, "Endpoint={endpoint}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::{config, key};
    use expect_test::expect;
    use proptest::prelude::*;

    #[test]
    fn lines_and_arguments_say_the_same() {
        let line =
            format!("plane=wg0 public_key={} allowed_ips=10.8.0.2/32 endpoint=192.0.2.7:51820", key(9));
        let argument = format!("wg0,{},10.8.0.2/32,192.0.2.7:51820", key(9));
        assert_eq!(parse_line(&line), parse_argument(&argument));
        let config = config();
        let (valid, warnings) = check_all(&config, &[parse_line(&(line + " name=ops@example.com")).unwrap()]);
        assert!(warnings.is_empty(), "{warnings:?}");
        expect![[r#"
            # Written by `kldload node init`: operators given at run time.

            # ops@example.com
            [WireGuardPeer]
            PublicKey=CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=
            AllowedIPs=10.8.0.2/32
            Endpoint=192.0.2.7:51820
        "#]]
        .assert_eq(&render(&valid["wg0"]));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_reason() {
        let good = format!("public_key={} allowed_ips=10.8.0.2/32", key(9));
        let with_ip = |ip: &str| format!("plane=wg0 public_key={} allowed_ips={ip}", key(9));
        let lines = [
            "hello".to_owned(),
            good.clone(),
            "plane=wg0 allowed_ips=10.8.0.2/32".to_owned(),
            format!("plane=wg0 public_key={}", key(9)),
            format!("plane=wg9 {good}"),
            format!("plane=wg0 plane=wg0 {good}"),
            format!("plane=wg0 private_key=x {good}"),
            format!("plane=wg0 {good} endpoint=host"),
            format!("plane=wg0 {good} endpoint=host:0"),
            format!("plane=wg0 {good} endpoint=host:65536"),
            format!("plane=wg0 {good} endpoint=host:+1"),
            format!("plane=wg0 {good} endpoint=-o:1"),
            format!("plane=wg0 {good} endpoint=[::g]:1"),
            format!("plane=wg0 {good} endpoint=a]b:1"),
            format!("plane=wg0 {good} name=a[b]"),
            "plane=wg0 public_key=short allowed_ips=10.8.0.2/32".to_owned(),
            format!("plane=wg0 public_key={} allowed_ips=10.8.0.2/32", key(0)),
            format!("plane=wg0 public_key={} allowed_ips=10.8.0.2/32", &key(9)[..43]),
            format!("plane=wg0 public_key={} allowed_ips=10.8.0.9/32", key(7)),
            with_ip("10.8.0.1"),
            with_ip("10.8.0.0/24"),
            with_ip("10.8.0.0/30"),
            with_ip("0.0.0.0/0"),
            with_ip("10.9.0.2/32"),
            with_ip("::/0"),
            with_ip("10.8.0.7/32"),
            with_ip("10.8.0.2/33"),
            with_ip(""),
            with_ip("10.8.0.2/32,,"),
            with_ip("10.8.0.2/32\u{a0}"),
        ];
        let mut table = String::new();
        for line in &lines {
            let reason = parse_line(line)
                .and_then(|raw| check_all(&config(), &[raw]).1.into_iter().next().map_or(Ok(()), Err))
                .expect_err(line);
            let _ = writeln!(table, "{}", reason.trim_start_matches(": "));
        }
        expect![[r#"
            `hello` is not `key=value`
            `plane=` is missing
            `public_key=` is missing
            `allowed_ips=` is missing
            plane `wg9` does not exist
            `plane` is given twice
            `private_key` is not known: plane, public_key, allowed_ips, endpoint and name are
            `host` is not an endpoint (`host:port`)
            `host:0` is not an endpoint (`host:port`)
            `host:65536` is not an endpoint (`host:port`)
            `host:+1` is not an endpoint (`host:port`)
            `-o:1` is not an endpoint (`host:port`)
            `[::g]:1` is not an endpoint (`host:port`)
            `a]b:1` is not an endpoint (`host:port`)
            the name is not 1 to 64 letters, digits or `-_.@+`
            `short` is not a WireGuard public key (44 characters of base64)
            `AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=` is not a WireGuard public key (44 characters of base64)
            `CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk` is not a WireGuard public key (44 characters of base64)
            `BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=` is a peer of wg0 already
            `10.8.0.1/32` holds this machine's own address
            `10.8.0.0/24` holds this machine's own address
            `10.8.0.0/30` holds this machine's own address
            `0.0.0.0/0` is not inside 10.8.0.0/24, the network of wg0
            `10.9.0.2/32` is not inside 10.8.0.0/24, the network of wg0
            `::/0` is not inside 10.8.0.0/24, the network of wg0
            `10.8.0.7/32` overlaps `10.8.0.7/32`, which another peer has
            `10.8.0.2/33` is not a network
            `` is not a network
            `` is not a network
            `10.8.0.2/32 ` is not a network
        "#]].assert_eq(&table);
        for argument in ["", "wg0", "wg0,k", "wg0,k,10.8.0.2/32,h:1,x"] {
            assert!(parse_argument(argument).is_err(), "{argument}");
        }
    }

    #[test]
    fn two_operators_may_not_share_a_key_or_an_address() {
        let line =
            |n, ip: &str| parse_line(&format!("plane=wg0 public_key={} allowed_ips={ip}", key(n))).unwrap();
        let given = [line(9, "10.8.0.2"), line(9, "10.8.0.3"), line(10, "10.8.0.2"), line(11, "10.8.0.4")];
        let config = config();
        let (valid, warnings) = check_all(&config, &given);
        assert_eq!(valid["wg0"].len(), 2);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    proptest! {
        /// Whatever is given, the file holds nothing but sections, comments and the three settings of a peer.
        #[test]
        fn nothing_else_gets_into_the_file(
            ip in "(10\\.8\\.0\\.[0-9]{1,3}(/[0-9]{2})?|\\PC{0,20})",
            endpoint in proptest::option::of("([a-z0-9.:\\[\\]-]{1,20}:[0-9]{1,5}|\\PC{0,20}|a\n\\[NetDev\\])"),
            name in proptest::option::of("([A-Za-z]{1,8}|\\PC{0,20}|a\nKind=x)"),
        ) {
            let raw = RawOperator {
                plane: "wg0".into(), public_key: key(9), allowed_ips: vec![ip], endpoint, name, ..RawOperator::default()
            };
            let config = config();
            let (valid, warnings) = check_all(&config, &[raw]);
            prop_assert_eq!(valid["wg0"].len() + warnings.len(), 1);
            for line in render(&valid["wg0"]).lines() {
                let known = ["# ", "PublicKey=", "AllowedIPs=10.8.0.", "Endpoint="];
                prop_assert!(
                    line.is_empty() || line == "[WireGuardPeer]" || known.iter().any(|start| line.starts_with(start)),
                    "{}", line
                );
                prop_assert!(line.is_ascii());
            }
        }
    }
}
