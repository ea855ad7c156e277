//! Syntax tree → [`Draft`]: every section read through the table of keys, one module per section.
//!
//! A draft holds whatever could be read. What does not fit together is found afterwards, on the draft, by
//! [`consistency`](crate::consistency).

mod accounts;
mod containers;
mod datasets;
pub(crate) mod fields;
mod listens;
mod monitoring;
pub(crate) mod network;
pub(crate) mod paths;
mod policy;
mod procedures;
pub(crate) mod rules;
pub(crate) mod schedule;
mod services;
mod steps;
mod wireguard;

use crate::diagnostic::Reporter;
use crate::keys::ROOT;
use crate::model::{
    Appliance, Container, Dataset, Distro, DistroFamily, FileSpec, Monitoring, Outbound, OutboundRule, Plane,
    Procedure, Profile, Replication, ReplicationHost, Secret, Service, SnapshotPolicy, User, Verify, Zone,
};
use crate::names::{HostName, PackageName, UnitName};
use crate::nearest::did_you_mean;
use crate::span::{Span, Spanned};
use crate::syntax::Node;
use crate::text::Text;
use fields::{Fields, parse_name};

/// What could be read of a manifest.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) name: Option<Spanned<HostName>>,
    purpose: Option<Spanned<String>>,
    owner: Option<Spanned<String>>,
    distro: Option<Spanned<Distro>>,
    pub(crate) profile: Option<Spanned<Profile>>,
    pub(crate) datasets: Vec<Dataset>,
    pub(crate) zones: Vec<Zone>,
    pub(crate) planes: Vec<Plane>,
    outbound: Outbound,
    packages: Vec<Spanned<PackageName>>,
    pub(crate) users: Vec<User>,
    pub(crate) files: Vec<FileSpec>,
    pub(crate) services: Vec<Service>,
    pub(crate) containers: Vec<Container>,
    pub(crate) secrets: Vec<Secret>,
    snapshots: Option<SnapshotPolicy>,
    pub(crate) replication: Option<Replication>,
    monitoring: Monitoring,
    upgrade_procedure: Procedure,
    dr_procedure: Procedure,
    pub(crate) verify: Vec<Verify>,
    pub(crate) gaps: Gaps,
    /// Where the replication promises encryption at rest.
    pub(crate) at_rest: Option<Span>,
}

/// Sections of which something could not be read: a name that is not found there may be what is missing.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    pub(crate) datasets: bool,
    pub(crate) interfaces: bool,
    pub(crate) users: bool,
    pub(crate) secrets: bool,
    pub(crate) services: bool,
}

/// Reads every section of a manifest.
pub(crate) fn lower(nodes: Vec<Node<'_>>, report: &mut Reporter) -> Draft {
    let fields = Fields::read(&ROOT, Span::DEFAULT, nodes, report);
    let profile = profile(&fields, report);
    let mut gaps = Gaps::default();

    let datasets = section(&fields, "zfs_layout", &mut gaps.datasets, datasets::lower, report);
    let zones = section(&fields, "network_topology", &mut gaps.interfaces, network::lower_zones, report);
    let users = section(&fields, "users", &mut gaps.users, accounts::lower_users, report);
    let secrets = section(&fields, "secrets", &mut gaps.secrets, accounts::lower_secrets, report);
    let services = section(&fields, "services", &mut gaps.services, services::lower, report);
    let containers = section(&fields, "containers", &mut gaps.services, containers::lower, report);
    let files = section(&fields, "files", &mut false, accounts::lower_files, report);
    let verify = section(&fields, "verify", &mut false, procedures::lower_verify, report);

    let (replication, at_rest) = match fields.node("replication_policy") {
        Some(node) => policy::lower_replication(node, report),
        None => (None, None),
    };
    let mut wireguard = wireguard::Written::default();
    if let Some(node) = fields.node("wireguard") {
        wireguard = wireguard::lower(node, report);
        gaps.interfaces |= wireguard.incomplete;
    }
    let target = replication.as_ref().and_then(|replication| match replication.host {
        ReplicationHost::Address(address) => Some(address),
        ReplicationHost::Name(_) => None,
    });
    let planes = wireguard::resolve(wireguard, &zones, target, report);
    let outbound = match fields.node("outbound") {
        Some(node) => network::lower_outbound(node, report),
        None => Outbound { allow: Vec::new(), unrestricted: false, span: Span::DEFAULT },
    };
    let snapshots = match fields.node("snapshot_policy") {
        Some(node) => policy::lower_snapshots(node, report),
        // Nothing in it would take them.
        None if profile.as_ref().is_some_and(|profile| profile.value == Profile::Core) => None,
        None => Some(policy::default_snapshots()),
    };
    let monitoring = match fields.node("monitoring") {
        Some(node) => {
            let known = known_units(&services, &containers);
            let units = monitoring::Units { known: &known, incomplete: gaps.services };
            monitoring::lower(node, units, report)
        }
        None => Monitoring::default(),
    };
    let mut procedure =
        |name: &str| fields.node(name).map(|node| procedures::lower(node, report)).unwrap_or_default();
    let (upgrade_procedure, dr_procedure) = (procedure("upgrade_procedure"), procedure("dr_procedure"));
    check_layout_present(&fields, profile.as_ref(), report);

    Draft {
        name: fields.parsed("name", report),
        purpose: fields.string("purpose", report),
        owner: fields.string("owner", report),
        distro: distro(&fields, report),
        profile,
        datasets,
        zones,
        planes,
        outbound,
        packages: packages(&fields, report),
        users,
        files,
        services,
        containers,
        secrets,
        snapshots,
        replication,
        monitoring,
        upgrade_procedure,
        dr_procedure,
        verify,
        gaps,
        at_rest,
    }
}

/// Reads one section; `gap` is set when an entry of it could not be read.
fn section<'a, T>(
    fields: &Fields<'a>,
    name: &str,
    gap: &mut bool,
    read: fn(&Node<'a>, &mut Reporter) -> Vec<T>,
    report: &mut Reporter,
) -> Vec<T> {
    let Some(node) = fields.node(name) else {
        *gap |= fields.has(name);
        return Vec::new();
    };
    let entries = read(node, report);
    if node.children.is_empty() && node.value.is_none() {
        report
            .error("missing-value", node.span(), format!("`{name}` is empty"))
            .hint("leave the line out, or write the entries on deeper lines");
    }
    *gap |= node.any_pending() || entries.len() < node.children.len();
    entries
}

fn known_units(services: &[Service], containers: &[Container]) -> Vec<UnitName> {
    let containers =
        containers.iter().filter_map(|container| format!("{}.service", container.name.value).parse().ok());
    services.iter().map(|service| service.unit.value.clone()).chain(containers).collect()
}

fn profile(fields: &Fields<'_>, report: &mut Reporter) -> Option<Spanned<Profile>> {
    let text = fields.text("profile", report)?.bare();
    Some(text.with(match text.as_str() {
        "core" => Profile::Core,
        "desktop" => Profile::Desktop,
        _ => Profile::Server,
    }))
}

fn check_layout_present(fields: &Fields<'_>, profile: Option<&Spanned<Profile>>, report: &mut Reporter) {
    if let Some(profile) = profile.filter(|profile| profile.value != Profile::Core)
        && !fields.has("zfs_layout")
        && fields.is_complete()
    {
        report
            .error("missing-key", profile.span, "`zfs_layout` is missing: a server keeps its data on datasets of its own")
            .hint("write `zfs_layout:` and below it a dataset: `rpool/srv/data: recordsize=128k  compression=lz4`");
    }
}

/// Names as people write them; the longest first, so that `CentOS Stream` is not `CentOS` with a release `Stream`.
const DISTROS: [(&str, DistroFamily); 11] = [
    ("red hat enterprise linux", DistroFamily::Rhel),
    ("centos stream", DistroFamily::CentosStream),
    ("rocky linux", DistroFamily::Rocky),
    ("alpine linux", DistroFamily::Alpine),
    ("arch linux", DistroFamily::Arch),
    ("centos", DistroFamily::CentosStream),
    ("debian", DistroFamily::Debian),
    ("ubuntu", DistroFamily::Ubuntu),
    ("fedora", DistroFamily::Fedora),
    ("rocky", DistroFamily::Rocky),
    ("rhel", DistroFamily::Rhel),
];
const SHORT_DISTROS: [(&str, DistroFamily); 2] =
    [("alpine", DistroFamily::Alpine), ("arch", DistroFamily::Arch)];

fn distro(fields: &Fields<'_>, report: &mut Reporter) -> Option<Spanned<Distro>> {
    let text = fields.text("distro", report)?.bare();
    match parse_distro(text) {
        Ok(distro) => Some(text.with(distro)),
        Err(Unknown::Family(place)) => {
            let written = place.as_str();
            let known = ["Debian", "Ubuntu", "CentOS", "Rocky", "RHEL", "Fedora", "Arch", "Alpine"];
            let hint = did_you_mean(written, known).unwrap_or_else(|| {
                format!("write {} and the release", crate::keys::one_of(&known).replace('`', ""))
            });
            let message = format!("`{written}` is not a distribution kldload knows");
            report.error("unknown-distro", place.span(), message).hint(hint);
            None
        }
        Err(Unknown::Release(place)) => {
            report
                .error("unknown-distro", place.span(), format!("`{}` is not a release", place.as_str()))
                .hint("write the distribution and one word for the release: `Debian 13`");
            None
        }
    }
}

/// The part of a distribution's line that is not understood.
enum Unknown<'a> {
    Family(Text<'a>),
    Release(Text<'a>),
}

/// The family and the release.
fn parse_distro(text: Text<'_>) -> Result<Distro, Unknown<'_>> {
    let lower = text.as_str().to_ascii_lowercase();
    let known = DISTROS.iter().chain(&SHORT_DISTROS);
    let found = known.copied().find(|(name, _)| {
        lower.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
    });
    let Some((name, family)) = found else {
        let words = text.words();
        return Err(Unknown::Family(words.first().copied().filter(|_| words.len() <= 2).unwrap_or(text)));
    };
    let rest = text.from(name.len()).trim();
    let release = rest.as_str();
    if release.is_empty() {
        return Ok(Distro { family, release: None });
    }
    let good = release.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b));
    if good { Ok(Distro { family, release: Some(release.to_owned()) }) } else { Err(Unknown::Release(rest)) }
}

fn packages(fields: &Fields<'_>, report: &mut Reporter) -> Vec<Spanned<PackageName>> {
    let mut packages: Vec<Spanned<PackageName>> = Vec::new();
    for word in fields.list("packages", report) {
        let Some(package) = parse_name::<PackageName>(word, report) else { continue };
        match packages.iter().find(|p| p.value == package.value) {
            Some(first) => {
                report
                    .error("duplicate-value", package.span, format!("`{}` is named twice", package.value))
                    .related(first.span, "first named here");
            }
            None => packages.push(package),
        }
    }
    packages
}

impl Draft {
    pub(crate) fn package_names(&self) -> impl Iterator<Item = &str> {
        self.packages.iter().map(|package| package.as_str())
    }

    pub(crate) fn outbound_rules(&self) -> &[OutboundRule] {
        &self.outbound.allow
    }

    /// The checked model. `None` when a part without which there is no machine is missing; that has been reported.
    pub(crate) fn finish(self) -> Option<Appliance> {
        let pool = match self.datasets.first() {
            Some(dataset) => dataset.name.pool().parse().ok()?,
            None => "rpool".parse().ok()?,
        };
        Some(Appliance {
            name: self.name?,
            purpose: self.purpose,
            owner: self.owner,
            distro: self.distro?,
            profile: self.profile?,
            pool,
            datasets: self.datasets,
            zones: self.zones,
            planes: self.planes,
            outbound: self.outbound,
            packages: self.packages,
            users: self.users,
            files: self.files,
            services: self.services,
            containers: self.containers,
            secrets: self.secrets,
            snapshots: self.snapshots,
            replication: self.replication,
            monitoring: self.monitoring,
            upgrade_procedure: self.upgrade_procedure,
            dr_procedure: self.dr_procedure,
            verify: self.verify,
        })
    }
}
