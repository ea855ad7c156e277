//! What listens, and where: nothing but WireGuard and DHCP may be reached on an address that is not a plane's.

use super::{DEADLINE, Probe, Status, View};
use kld_host::Cmd;
use kld_system::node::NodeConfig;
use std::net::IpAddr;

/// UDP ports on which DHCP answers come back (RFC 2131, RFC 8415); systemd-networkd's sockets.
const DHCP: [u16; 2] = [68, 546];
pub(super) const SHOW: &str = "ss -lntup";

/// One socket of `ss -Hlntup`.
#[derive(Debug, PartialEq, Eq)]
struct Listener {
    protocol: String,
    /// `None`: every address.
    address: Option<IpAddr>,
    port: u16,
    /// The program's name, when the kernel says it; WireGuard's sockets have none.
    program: Option<String>,
}

pub(super) fn probe(view: &View) -> Vec<Probe> {
    let Some(config) = &view.config else {
        return vec![Probe::new("sockets", Status::Info, "nothing is promised").with_command(SHOW)];
    };
    let text = match view.machine.run_text(Cmd::new("ss").arg("-Hlntup").timeout(DEADLINE)) {
        Ok(text) => text,
        Err(error) => return vec![Probe::unanswered("sockets", &error)],
    };
    let mut exposed = Vec::new();
    let mut count = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        count += 1;
        match parse_listener(line) {
            None => exposed.push(format!(
                "unknown socket `{}`",
                line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
            )),
            Some(listener) if !is_expected(&listener, config) => {
                let program = listener.program.as_deref().unwrap_or("the kernel");
                exposed.push(format!("{program} on {} port {}", listener.protocol, listener.port));
            }
            Some(_) => {}
        }
    }
    exposed.dedup();
    vec![if exposed.is_empty() {
        Probe::new("sockets", Status::Ok, format!("{count} listen, all where they may")).with_command(SHOW)
    } else {
        Probe::new("sockets", Status::Fail, format!("reachable from outside a plane: {}", exposed.join(", ")))
            .with_command(SHOW)
            .with_subjects(exposed)
    }]
}

fn is_expected(listener: &Listener, config: &NodeConfig) -> bool {
    let planes = || config.planes.iter();
    if let Some(address) = listener.address
        && (address.is_loopback() || planes().any(|plane| plane.address.addr() == address))
    {
        return true;
    }
    let is_plane = |name: &str| planes().any(|plane| plane.interface == name);
    let is_wireguard = listener.program.is_none()
        && planes().any(|plane| plane.port == listener.port)
        && listener.protocol == "udp";
    let is_dhcp = listener.protocol == "udp" && DHCP.contains(&listener.port);
    let is_public = config.open_ports.iter().any(|open| {
        !is_plane(&open.interface)
            && open.protocol == listener.protocol
            && (open.first..=open.last).contains(&listener.port)
    });
    is_wireguard || is_dhcp || is_public
}

/// `tcp LISTEN 0 128 10.8.0.1:22 0.0.0.0:* users:(("sshd",pid=1,fd=3))`.
fn parse_listener(line: &str) -> Option<Listener> {
    let mut fields = line.split_ascii_whitespace();
    let protocol = fields.next()?.to_owned();
    let (address, port) = fields.nth(3)?.rsplit_once(':')?;
    let address = address.split('%').next()?.trim_start_matches('[').trim_end_matches(']');
    let address = match address {
        "*" => None,
        text => Some(text.parse::<IpAddr>().ok()?).filter(|address| !address.is_unspecified()),
    };
    let program =
        line.split_once("users:((\"").and_then(|(_, rest)| rest.split('"').next()).map(str::to_owned);
    Some(Listener { protocol, address, port: port.parse().ok()?, program })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ss_writes() {
        let parse = |line| parse_listener(line).unwrap();
        let sshd = parse(
            "tcp   LISTEN 0      128          10.8.0.1:22        0.0.0.0:*    users:((\"sshd\",pid=512,fd=6))",
        );
        assert_eq!((sshd.protocol.as_str(), sshd.port, sshd.program.as_deref()), ("tcp", 22, Some("sshd")));
        assert_eq!(sshd.address, "10.8.0.1".parse().ok());
        assert_eq!(parse("udp UNCONN 0 0 0.0.0.0:51820 0.0.0.0:*").address, None);
        assert_eq!(parse("udp UNCONN 0 0 [::]:51820 [::]:*").address, None);
        assert_eq!(parse("tcp LISTEN 0 4096 *:9100 *:* users:((\"a\",pid=1,fd=1))").address, None);
        assert_eq!(parse("udp UNCONN 0 0 [fe80::1%eth0]:546 [::]:*").port, 546);
        assert_eq!(parse("udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:*").address, "127.0.0.53".parse().ok());
        for bad in [
            "",
            "tcp",
            "tcp LISTEN 0 1 nonsense x",
            "tcp LISTEN 0 1 1.2.3:22 x",
            "tcp LISTEN 0 1 1.2.3.4:http x",
        ] {
            assert_eq!(parse_listener(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_line_gets_an_answer(line in "(tcp LISTEN 0 1 )?[\\[\\]%:*.0-9a-f]{0,20}( x users:\\(\\(\"\\PC{0,9})?|\\PC{0,40}") {
            drop(parse_listener(&line));
        }
    }
}
