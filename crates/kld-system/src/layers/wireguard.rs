//! The planes: WireGuard interfaces by systemd-networkd, with keys that are born on the machine.
//!
//! Nothing waits for the internet: an interface has its address as soon as it exists, and [`MESH_UNIT`] is active once all
//! of them do. Whatever binds to a plane is ordered after that unit. Follows systemd.netdev(5) and systemd.network(5).

use kld_manifest::model::{Carrier, Plane};

use crate::context::{Context, IDENTITY_UNIT, MESH_UNIT};
use crate::draft::Draft;
use crate::ini_file::IniFile;
use crate::node::{NodePeer, NodePlane};
use crate::system::{Because, Enablement, Layer, SystemFile};
use crate::unit_file::{Section, UnitFile};

/// Where private keys lie, one file for each plane.
const KEYS: &str = "/etc/kldload/wireguard";
/// Addresses of the planes as environment variables.
pub(crate) const PLANES_ENV: &str = "/etc/kldload/planes.env";
/// Bytes of a packet over Ethernet (1500) less IPv6 (40), UDP (8) and WireGuard (32) headers.
const MTU_ON_PUBLIC: u32 = 1420;
/// The same 80 bytes once more, for a plane inside another.
const MTU_ON_PLANE: u32 = 1340;

/// Adds every plane, and the unit that waits for them.
pub(crate) fn add(context: &Context<'_>, draft: &mut Draft) {
    let Some(first) = context.planes.first() else { return };
    let span = first.interface.span;
    let because = |reason: &str| Because::new(Layer::WireGuard, span, reason);
    draft.role(&context.distro.packages.mesh, &because("shows who is connected"));
    let keys =
        SystemFile::directory(KEYS, 0o750, because("private keys, made on the machine, one for each plane"));
    draft.file(keys.with_owner("root", &context.distro.accounts.network));
    for plane in &context.planes {
        draft.file(netdev(plane, context));
        draft.file(network(plane));
    }
    draft.file(planes_env(context));
    draft.file(mesh_unit(context));
    draft.unit(MESH_UNIT, Enablement::Enabled, because("services that listen on a plane start after it"));
}

/// Orders a unit after the mesh; it does not start without.
pub(crate) fn wait_for_mesh(unit: &mut UnitFile, because: &Because) {
    unit.add(Section::Unit, "Requires", MESH_UNIT, because.clone());
    unit.add(Section::Unit, "After", MESH_UNIT, because.clone());
}

fn key_file(plane: &Plane) -> String {
    format!("{KEYS}/{}.key", plane.interface.value)
}

fn netdev(plane: &Plane, context: &Context<'_>) -> SystemFile {
    let because = |reason: &str| Because::new(Layer::WireGuard, plane.interface.span, reason);
    let mut file = IniFile::default();
    file.block("NetDev");
    file.set("Name", &plane.interface.value, because("the plane's interface"));
    file.set("Kind", "wireguard", because("an interface that only key holders can use"));
    let (mtu, reason) = match plane.carrier.value {
        Carrier::Public => (MTU_ON_PUBLIC, "1500 of Ethernet less 80 for the tunnel over IPv6"),
        Carrier::Plane(_) => (MTU_ON_PLANE, "1420 of the carrying plane less 80 for the tunnel inside it"),
    };
    file.set("MTUBytes", mtu, Because::new(Layer::WireGuard, plane.carrier.span, reason));
    file.block("WireGuard");
    file.set(
        "PrivateKeyFile",
        key_file(plane),
        because("made on the machine at first boot, never in an image"),
    );
    let port = Because::new(Layer::WireGuard, plane.port.span, "the UDP port peers send to");
    file.set("ListenPort", plane.port.value, port);
    let mut peers: Vec<_> = plane.peers.iter().collect();
    peers.sort_by_key(|p| (&p.name.value, &p.public_key.value));
    for peer in peers {
        let because = |reason: &str| Because::new(Layer::WireGuard, peer.name.span, reason);
        file.block("WireGuardPeer");
        file.set("PublicKey", &peer.public_key.value, because(&format!("who `{}` is", peer.name.value)));
        for allowed in &peer.allowed_ips {
            let reason = format!("the addresses `{}` may use in this plane", peer.name.value);
            file.set("AllowedIPs", allowed.value, Because::new(Layer::WireGuard, allowed.span, reason));
        }
        if let Some(endpoint) = &peer.endpoint {
            let reason = format!("where `{}` is reached", peer.name.value);
            file.set("Endpoint", &endpoint.value, Because::new(Layer::WireGuard, endpoint.span, reason));
        }
        if let Some(seconds) = &peer.keepalive_seconds {
            let reason = "keeps the way back open through address translation";
            file.set(
                "PersistentKeepalive",
                seconds.value,
                Because::new(Layer::WireGuard, seconds.span, reason),
            );
        }
    }
    file.into_file(
        format!("/etc/systemd/network/50-{}.netdev", plane.interface.value),
        because(&format!(
            "plane {}: only peers with a known key can send packets here",
            plane.interface.value
        )),
    )
    .with_mode(0o640)
    .with_owner("root", &context.distro.accounts.network)
}

fn network(plane: &Plane) -> SystemFile {
    let because = |reason: &str| Because::new(Layer::WireGuard, plane.interface.span, reason);
    let mut file = IniFile::default();
    file.block("Match");
    file.set("Name", &plane.interface.value, because("the plane's interface"));
    file.block("Network");
    let address = Because::new(Layer::WireGuard, plane.address.span, "this machine's address in the plane");
    file.set("Address", plane.address.value, address);
    for (name, value, reason) in super::network::QUIET {
        file.set(name, value, because(reason));
    }
    file.set(
        "LinkLocalAddressing",
        "no",
        because("a plane has the addresses that are written down, no others"),
    );
    file.set("IPv6AcceptRA", "no", because("peers are not routers"));
    // Routes to networks behind a peer; the plane's own network has one through the address.
    let mut routes: Vec<_> = plane
        .peers
        .iter()
        .flat_map(|p| &p.allowed_ips)
        .filter(|allowed| !plane.address.trunc().contains(&allowed.value))
        .collect();
    routes.sort_by_key(|r| r.value);
    routes.dedup_by_key(|r| r.value);
    for route in routes {
        let because = |reason: &str| Because::new(Layer::WireGuard, route.span, reason);
        file.block("Route");
        file.set("Destination", route.value, because("a network behind a peer"));
        file.set("Scope", "link", because("WireGuard finds the peer by address, there is no gateway"));
    }
    file.into_file(
        format!("/etc/systemd/network/50-{}.network", plane.interface.value),
        because(&format!("the address of plane {}", plane.interface.value)),
    )
}

fn planes_env(context: &Context<'_>) -> SystemFile {
    let mut text =
        String::from("# Addresses of this machine's planes, for EnvironmentFile= and for scripts.\n");
    for plane in &context.planes {
        let name = env_name(plane.interface.as_str());
        text.push_str(&format!(
            "{name}_ADDRESS={}\n{name}_NETWORK={}\n",
            plane.address.addr(),
            plane.address.trunc()
        ));
    }
    let because = Because::always(Layer::WireGuard, "a command in the manifest can say ${WG0_ADDRESS}");
    SystemFile::text(PLANES_ENV, text, because)
}

/// An interface name as part of a variable name.
fn env_name(interface: &str) -> String {
    interface.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

fn mesh_unit(context: &Context<'_>) -> SystemFile {
    let span = context.planes.first().map(|p| p.interface.span).unwrap_or_default();
    let because = |reason: &str| Because::new(Layer::WireGuard, span, reason);
    let mut unit = UnitFile::default();
    let mut add =
        |section, name: &str, value: &str, reason: &str| unit.add(section, name, value, because(reason));
    use Section::{Install, Service, Unit};
    add(Unit, "Description", "Every WireGuard plane has its address", "what people read in the log");
    add(Unit, "Requires", "systemd-networkd.service", "interfaces come from it");
    add(
        Unit,
        "Wants",
        IDENTITY_UNIT,
        "keys come from it; when a step of it fails that has nothing to do with the mesh, people can still get in",
    );
    add(
        Unit,
        "After",
        &format!("{IDENTITY_UNIT} systemd-networkd.service"),
        "keys and interfaces come from them",
    );
    add(Service, "Type", "oneshot", "done when the addresses are there");
    add(Service, "RemainAfterExit", "yes", "services can require it");
    let interfaces: Vec<_> =
        context.planes.iter().map(|p| format!("--interface={}", p.interface.value)).collect();
    let command =
        format!("/usr/lib/systemd/systemd-networkd-wait-online {} --timeout=60", interfaces.join(" "));
    add(Service, "ExecStart", &command, "waits for the planes, not for a cable or the internet");
    for (name, value, reason) in super::hardening::MESH {
        add(Service, name, value, reason);
    }
    add(Install, "WantedBy", "multi-user.target", "part of every start");
    unit.into_file(
        format!("/etc/systemd/system/{MESH_UNIT}"),
        because("the point in the boot from which addresses of planes can be bound to"),
    )
}

/// What the machine must know of a plane.
pub(crate) fn node_plane(plane: &Plane) -> NodePlane {
    let mut peers: Vec<_> = plane
        .peers
        .iter()
        .map(|peer| NodePeer {
            name: peer.name.value.clone(),
            public_key: peer.public_key.value.clone(),
            allowed_ips: peer.allowed_ips.iter().map(|a| a.value).collect(),
            endpoint: peer.endpoint.as_ref().map(|e| e.value.clone()),
            keepalive_seconds: peer.keepalive_seconds.as_ref().map(|k| k.value),
        })
        .collect();
    peers.sort_by(|a, b| (&a.name, &a.public_key).cmp(&(&b.name, &b.public_key)));
    NodePlane {
        interface: plane.interface.to_string(),
        address: plane.address.value,
        port: plane.port.value,
        carrier: match &plane.carrier.value {
            Carrier::Public => None,
            Carrier::Plane(carrier) => Some(carrier.to_string()),
        },
        key_file: key_file(plane),
        peers,
    }
}
