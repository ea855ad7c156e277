//! Public interfaces by systemd-networkd, names by systemd-resolved, time by systemd-timesyncd. Nothing listens beyond loopback.

use crate::context::Context;
use crate::distro::DistroSpec;
use crate::draft::Draft;
use crate::ini_file::IniFile;
use crate::system::{Because, Enablement, Layer, SystemFile};

/// What is switched off on every interface: protocols that announce the machine or answer strangers.
pub(crate) const QUIET: &[(&str, &str, &str)] = &[
    ("LLMNR", "no", "answers nobody who asks the neighbourhood for a name"),
    ("MulticastDNS", "no", "answers nobody who asks the neighbourhood for a service"),
    ("LLDP", "no", "listens to no announcements"),
    ("EmitLLDP", "no", "does not announce the machine"),
];

/// Adds the network of a server.
pub(crate) fn add(context: &Context<'_>, draft: &mut Draft) {
    add_plain(context.distro, draft);
    add_host_name(context, draft);
}

/// Adds DHCP on every cable, a resolver and a clock.
pub(crate) fn add_plain(distro: &DistroSpec, draft: &mut Draft) {
    let because = |reason: &str| Because::always(Layer::Network, reason);
    draft.role(&distro.packages.network, &because("names and time"));

    let mut file = IniFile::default();
    file.block("Match");
    file.set("Name", "en* eth*", because("every cable, whatever the kernel calls it"));
    file.block("Link");
    file.set("RequiredForOnline", "no", because("nothing on this machine waits for a cable"));
    file.block("Network");
    file.set("DHCP", "ipv4", because("the site gives the address"));
    file.set("IPv6AcceptRA", "yes", because("the site gives the address"));
    for (name, value, reason) in QUIET {
        file.set(name, value, because(reason));
    }
    file.block("DHCPv4");
    file.set("UseDomains", "no", because("the site does not complete names"));
    file.set("UseHostname", "no", because("the machine keeps its name"));
    file.set("SendHostname", "no", because("the machine does not announce itself"));
    file.block("IPv6AcceptRA");
    file.set("UseDomains", "no", because("the site does not complete names"));
    draft.file(
        file.into_file(
            "/etc/systemd/network/80-public.network",
            because("addresses of the public interfaces"),
        ),
    );

    let mut file = IniFile::default();
    file.block("Resolve");
    file.set("LLMNR", "no", because("no socket for questions of the neighbourhood"));
    file.set("MulticastDNS", "no", because("no socket for questions of the neighbourhood"));
    draft.file(file.into_file(
        "/etc/systemd/resolved.conf.d/50-loopback.conf",
        because("the resolver listens on loopback only"),
    ));
    draft.file(SystemFile::symlink(
        "/etc/resolv.conf",
        "../run/systemd/resolve/stub-resolv.conf",
        because("every program asks the local resolver"),
    ));
    for (unit, reason) in [
        ("systemd-networkd.service", "brings interfaces up"),
        ("systemd-resolved.service", "resolves names"),
        ("systemd-timesyncd.service", "certificates and logs need the time"),
    ] {
        draft.unit(unit, Enablement::Enabled, because(reason));
    }
}

/// Adds the machine's name.
pub(crate) fn add_host_name(context: &Context<'_>, draft: &mut Draft) {
    let name = &context.appliance.name;
    let because = |reason: &str| Because::new(Layer::Network, name.span, reason);
    draft.file(SystemFile::text("/etc/hostname", format!("{}\n", name.value), because("the machine's name")));
    let short = name.as_str().split('.').next().unwrap_or_default();
    let own = if short == name.as_str() { short.to_owned() } else { format!("{} {short}", name.value) };
    let hosts = format!("127.0.0.1 localhost\n127.0.1.1 {own}\n::1 localhost ip6-localhost ip6-loopback\n");
    draft.file(SystemFile::text(
        "/etc/hosts",
        hosts,
        because("the machine finds itself without asking anybody"),
    ));
}
