//! Zones: default deny in and out, exactly the ports the manifest names, everything dropped is logged.
//!
//! One table, `inet kldload`, replaced atomically; tables of others (podman's) are left alone. A packet for a plane's
//! address that comes in anywhere else is dropped, and so is one that would leave for a plane's network anywhere else:
//! when a plane is down its traffic stops, it does not go out in clear.

pub(crate) mod flow;
mod inbound;
mod outbound;
mod rule;
pub(crate) mod verdict;

use kld_manifest::model::ZoneKind;

use crate::context::{Context, protocol_name};
use crate::draft::Draft;
use crate::node::NodeOpenPort;
use crate::system::{Because, Enablement, Item, Layer, SystemFile};
use rule::{Chain, Names};

/// Name of the table; its family is `inet`.
pub(crate) const TABLE: &str = "kldload";
/// Where the rules lie; the distribution's unit reads this file.
const PATH: &str = "/etc/nftables.conf";

/// Adds the rules and what loads them.
pub(crate) fn add(context: &Context<'_>, draft: &mut Draft) {
    let because = |reason: &str| Because::always(Layer::Firewall, reason);
    draft.role(&context.distro.packages.firewall, &because("the firewall"));
    let chains = chains(context);
    let parts = chains
        .iter()
        .flat_map(|chain| {
            let head = chain
                .hook
                .map(|hook| Item::new(format!("chain {}: {hook}", chain.name), chain.because.clone()));
            let rules = chain
                .rules
                .iter()
                .map(|r| Item::new(format!("{}: {}", chain.name, r.value), r.because.clone()));
            head.into_iter().chain(rules)
        })
        .collect();
    let file = SystemFile::text(
        PATH,
        rule::to_text(TABLE, &chains),
        because("nothing passes that nobody asked for"),
    );
    draft.file(file.with_mode(0o755).with_parts(parts));
    draft.unit(
        &context.distro.units.firewall,
        Enablement::Enabled,
        because("loaded before the network comes up"),
    );
}

/// All chains, in the order they are written.
fn chains(context: &Context<'_>) -> Vec<Chain> {
    let mut chains = inbound::chains(context);
    chains.push(outbound::forward(context));
    chains.push(outbound::output(context));
    chains
}

/// The rules, to be asked.
pub(crate) fn ruleset(context: &Context<'_>) -> verdict::Ruleset {
    verdict::Ruleset::new(chains(context), context)
}

/// Every port that a zone opens.
pub(crate) fn open_ports(context: &Context<'_>) -> Vec<NodeOpenPort> {
    let mut all: Vec<_> = inbound::openings(context)
        .into_iter()
        .flat_map(|opening| {
            let interface = opening.interface.clone();
            opening.ports.into_iter().map(move |range| NodeOpenPort {
                interface: interface.clone(),
                protocol: protocol_name(opening.protocol).to_owned(),
                first: range.first,
                last: range.last,
            })
        })
        .collect();
    all.sort_by(|a, b| (&a.interface, &a.protocol, a.first).cmp(&(&b.interface, &b.protocol, b.first)));
    all
}

fn plane_names(context: &Context<'_>) -> Vec<String> {
    context.planes.iter().map(|p| p.interface.to_string()).collect()
}

/// Every interface that is neither a plane nor the machine itself.
fn public(context: &Context<'_>) -> Names {
    let own = ["lo".to_owned()].into_iter();
    let bridge = (!context.appliance.containers.is_empty()).then(|| BRIDGE.to_owned());
    Names::Not(own.chain(plane_names(context)).chain(bridge).collect())
}

/// The bridge of podman's default network.
const BRIDGE: &str = "podman0";

/// The public zones' names; several mean that each has rules of its own.
fn public_zones(context: &Context<'_>) -> usize {
    context.zones.iter().filter(|z| z.kind == ZoneKind::Public).count()
}
