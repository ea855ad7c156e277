//! What several layers must agree on: which plane is which, who listens where, who waits for the mesh.

use std::net::{IpAddr, Ipv4Addr};

use kld_manifest::model::{Appliance, Listen, ListenOn, Plane, Protocol, Service, Zone, ZoneKind};
use kld_manifest::names::{InterfaceName, UnitName};

use crate::distro::{DistroSpec, PackagedService};

/// The unit that makes what an image must not hold.
pub const IDENTITY_UNIT: &str = "kldload-identity.service";
/// The unit that is active once every plane has its address.
pub(crate) const MESH_UNIT: &str = "kldload-mesh.service";
/// Port of node_exporter (the registry of Prometheus' exporter ports).
pub(crate) const NODE_EXPORTER_PORT: u16 = 9100;
/// Port of SSH.
pub(crate) const SSH_PORT: u16 = 22;

/// One appliance and its distribution, with the questions the layers ask about them.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) appliance: &'a Appliance,
    pub(crate) distro: &'a DistroSpec,
    /// Sorted by interface name.
    pub(crate) planes: Vec<&'a Plane>,
    /// Public zones first, then planes; each sorted by interface name.
    pub(crate) zones: Vec<&'a Zone>,
    /// Sorted by unit name.
    pub(crate) services: Vec<&'a Service>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(appliance: &'a Appliance, distro: &'a DistroSpec) -> Self {
        let mut planes: Vec<_> = appliance.planes.iter().collect();
        planes.sort_by_key(|p| &p.interface.value);
        let mut zones: Vec<_> = appliance.zones.iter().collect();
        zones.sort_by_key(|z| (z.kind, &z.interface.value));
        let mut services: Vec<_> = appliance.services.iter().collect();
        services.sort_by_key(|s| &s.unit.value);
        Self { appliance, distro, planes, zones, services }
    }

    pub(crate) fn plane(&self, interface: &InterfaceName) -> Option<&'a Plane> {
        self.planes.iter().copied().find(|p| p.interface.value == *interface)
    }

    /// The plane machines are administered over: the first.
    pub(crate) fn management_plane(&self) -> Option<&'a Plane> {
        self.planes.first().copied()
    }

    /// The plane machines are watched over: `wg1`, else the first.
    pub(crate) fn monitoring_plane(&self) -> Option<&'a Plane> {
        self.planes
            .iter()
            .copied()
            .find(|p| p.interface.as_str() == "wg1")
            .or_else(|| self.management_plane())
    }

    /// The zone of a plane.
    pub(crate) fn plane_zone(&self, interface: &InterfaceName) -> Option<&'a Zone> {
        self.zones.iter().copied().find(|z| z.kind == ZoneKind::Plane && z.interface.value == *interface)
    }

    /// The line that opens a TCP port on a plane.
    pub(crate) fn opening(&self, plane: &Plane, port: u16) -> Option<&'a kld_manifest::model::Allow> {
        self.plane_zone(&plane.interface)?.allow.iter().find(|allow| {
            allow.protocol == Protocol::Tcp && allow.ports.iter().any(|r| (r.first..=r.last).contains(&port))
        })
    }

    /// The unit that runs a service's process, and what is known of it when a package brings it.
    pub(crate) fn running_unit(&self, service: &Service) -> (UnitName, Option<&'a PackagedService>) {
        let packaged = service.command.is_none().then(|| self.distro.packaged(&service.unit)).flatten();
        let unit = packaged.map_or_else(|| with_suffix(&service.unit), |p| crate::distro::unit(&p.runs));
        (unit, packaged)
    }

    /// The address something binds to; `None` on a public interface, whose address is not known before DHCP.
    pub(crate) fn address(&self, listen: &Listen) -> Option<IpAddr> {
        match &listen.on {
            ListenOn::Loopback => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            ListenOn::Plane(interface) => self.plane(interface).map(|p| p.address.addr()),
            ListenOn::Public(_) => None,
        }
    }
}

/// True when something binds to an address that only exists once the mesh is up.
pub(crate) fn on_a_plane(listens: &[Listen]) -> bool {
    listens.iter().any(|listen| matches!(listen.on, ListenOn::Plane(_)))
}

/// `NAME.service` for a unit written without its type.
pub(crate) fn with_suffix(unit: &UnitName) -> UnitName {
    const TYPES: [&str; 6] = [".service", ".socket", ".timer", ".target", ".mount", ".path"];
    if TYPES.iter().any(|t| unit.as_str().ends_with(t)) {
        return unit.clone();
    }
    format!("{unit}.service").parse().unwrap_or_else(|_| unit.clone())
}

/// The name of a unit without its type.
pub(crate) fn without_suffix(unit: &UnitName) -> &str {
    unit.as_str().strip_suffix(".service").unwrap_or(unit.as_str())
}

/// A name as part of a unit name (systemd-escape(1)): `/` becomes `-`, other unsafe bytes `\xNN`.
pub(crate) fn unit_escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'/' => out.push('-'),
            b if b.is_ascii_alphanumeric() || b":_.".contains(&b) => out.push(char::from(b)),
            b => out.push_str(&format!("\\x{b:02x}")),
        }
    }
    out
}

/// `tcp` or `udp`, as every tool writes it.
pub(crate) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_systemd_escape_does() {
        for (name, escaped) in [
            ("srv/gitea", "srv-gitea"),
            ("srv/gitea-lfs", "srv-gitea\\x2dlfs"),
            ("a_b.c:d", "a_b.c:d"),
            ("a b", "a\\x20b"),
        ] {
            assert_eq!(unit_escape(name), escaped);
        }
    }

    #[test]
    fn a_unit_without_a_type_is_a_service() {
        for (unit, full) in [
            ("gitea", "gitea.service"),
            ("gitea.service", "gitea.service"),
            ("backup.timer", "backup.timer"),
            ("my.app", "my.app.service"),
        ] {
            assert_eq!(with_suffix(&crate::distro::unit(unit)).as_str(), full);
        }
    }
}
