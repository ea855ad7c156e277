//! Network cards of a guest.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// QEMU's own prefix and a number: the same number is the same address.
    pub const fn numbered(number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        Self([0x52, 0x54, 0x00, 0x6b, high, low])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A network card and what is at the other end of its cable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nic {
    /// A router in QEMU (10.0.2.0/24 with DHCP): the guest reaches what the host reaches.
    User {
        /// The card's address.
        mac: Mac,
        /// A UDP port of the host's loopback that leads to the guest's WireGuard port.
        forward: Option<Forward>,
        /// The guest reaches nothing; forwarded ports still reach the guest.
        isolated: bool,
    },
    /// A cable to another guest, or to a process that speaks Ethernet: frames as datagrams on two unix sockets.
    /// Either end may start first, or again.
    Cable {
        /// The card's address.
        mac: Mac,
        /// This end's socket.
        local: PathBuf,
        /// The other end's socket.
        remote: PathBuf,
    },
}

/// One UDP port that leads into a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// On 127.0.0.1 of the host.
    pub host: u16,
    /// In the guest.
    pub guest: u16,
}

impl Nic {
    /// A way out, and one UDP port in: host port → guest port, on the host's loopback only.
    pub fn user(mac: Mac, host: u16, guest: u16) -> Self {
        Self::User { mac, forward: Some(Forward { host, guest }), isolated: false }
    }

    /// A card that leads nowhere but into QEMU.
    pub fn isolated(mac: Mac) -> Self {
        Self::User { mac, forward: None, isolated: true }
    }

    /// The value of `-netdev` and of `-device`.
    pub(crate) fn args(&self, index: usize) -> (String, String) {
        let path = |path: &PathBuf| path.display().to_string().replace(',', ",,");
        let (netdev, mac) = match self {
            Self::User { mac, forward, isolated } => {
                let isolated = if *isolated { ",restrict=on" } else { "" };
                let forward =
                    forward.map(|Forward { host, guest }| format!(",hostfwd=udp:127.0.0.1:{host}-:{guest}"));
                (format!("user,id=net{index}{isolated}{}", forward.unwrap_or_default()), mac)
            }
            Self::Cable { mac, local, remote } => {
                let (local, remote) = (path(local), path(remote));
                let local = format!("local.type=unix,local.path={local}");
                (format!("dgram,id=net{index},{local},remote.type=unix,remote.path={remote}"), mac)
            }
        };
        (netdev, format!("virtio-net-pci,netdev=net{index},mac={mac}"))
    }
}

/// A UDP port of the loopback that was free a moment ago.
///
/// # Errors
/// When there is none.
pub fn free_udp_port() -> io::Result<u16> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
