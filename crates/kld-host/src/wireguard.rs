//! `wg show … dump`: the peers of an interface.
//!
//! The dump's first line holds the interface's private key; it is read past and never kept (`wg(8)`).

use std::time::Duration;

use crate::{Cmd, ParseError};

const DEADLINE: Duration = Duration::from_secs(10);

/// An interface without its private key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// Base64.
    pub public_key: String,
    /// UDP port it listens on.
    pub port: u16,
    /// In the order of the dump.
    pub peers: Vec<Peer>,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    /// Base64.
    pub public_key: String,
    /// Address and port, once known.
    pub endpoint: Option<String>,
    /// Networks, `10.0.0.2/32`.
    pub allowed_ips: Vec<String>,
    /// Seconds since 1970 of the last handshake; `None` when there was none.
    pub handshake: Option<u64>,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
}

/// The dump of one interface.
pub fn dump_cmd(interface: &str) -> Cmd {
    Cmd::new("wg").args(["show", interface, "dump"]).timeout(DEADLINE)
}

/// Reads the output of [`dump_cmd`].
///
/// # Errors
/// When a line has not its columns; the message never quotes the line, which may hold a key.
pub fn parse_dump(text: &str) -> Result<Interface, ParseError> {
    let error =
        |line: usize, what: &str| ParseError { tool: "wg show dump", reason: format!("line {line}: {what}") };
    let mut lines =
        text.lines().enumerate().map(|(index, line)| (index + 1, line.split('\t').collect::<Vec<_>>()));
    let (_, first) = lines.next().ok_or_else(|| error(1, "no interface"))?;
    let [_private, public_key, port, _mark] = first[..] else {
        return Err(error(1, "four columns expected"));
    };
    let port = port.parse().map_err(|_| error(1, "no port in the third column"))?;
    let peer = |(number, columns): (usize, Vec<&str>)| {
        let [public_key, _preshared, endpoint, allowed, handshake, received, sent, _keepalive] = columns[..]
        else {
            return Err(error(number, "eight columns expected"));
        };
        let count = |text: &str| text.parse::<u64>().map_err(|_| error(number, "no number of a count"));
        let known = |text: &str| (text != "(none)").then(|| text.to_owned());
        Ok(Peer {
            public_key: public_key.to_owned(),
            endpoint: known(endpoint),
            allowed_ips: known(allowed).iter().flat_map(|list| list.split(',')).map(str::to_owned).collect(),
            handshake: Some(count(handshake)?).filter(|&time| time > 0),
            received: count(received)?,
            sent: count(sent)?,
        })
    };
    Ok(Interface {
        public_key: public_key.to_owned(),
        port,
        peers: lines.map(peer).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_peers_and_drops_the_private_key() {
        let text = "PRIVATE=\tPUBLIC=\t51820\toff\n\
                    PEER1=\t(none)\t192.0.2.7:41414\t10.78.0.2/32,fd00::2/128\t1719000000\t1024\t2048\t25\n\
                    PEER2=\t(none)\t(none)\t(none)\t0\t0\t0\toff\n";
        let interface = parse_dump(text).expect("is what wg writes");
        assert_eq!((interface.port, interface.peers.len()), (51820, 2));
        assert!(!format!("{interface:?}").contains("PRIVATE"));
        assert_eq!(interface.peers[0].allowed_ips, ["10.78.0.2/32", "fd00::2/128"]);
        assert_eq!(interface.peers[0].handshake, Some(1_719_000_000));
        assert_eq!(interface.peers[1], Peer { public_key: "PEER2=".to_owned(), ..Peer::default() });
    }

    #[test]
    fn errors_do_not_show_keys() {
        for bad in [
            "",
            "PRIVATE=",
            "PRIVATE=\tP\tx\toff",
            "PRIVATE=\tP\t1\toff\nPEER",
            "PRIVATE=\tP\t1\toff\na\tb\tc\td\tx\t0\t0\toff",
        ] {
            let error = parse_dump(bad).expect_err("is broken").to_string();
            assert!(!error.contains("PRIVATE") && !error.contains("PEER"), "{error}");
        }
    }
}
