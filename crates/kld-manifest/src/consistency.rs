//! What must hold between sections: every name that is used is declared, every place is given once, every port that is
//! listened on is open.
//!
//! Where a section could not be read completely ([`Gaps`](crate::lower::Gaps)), a name that is not found there is not
//! reported: the line that is missing may be the one that is wrong.

mod addresses;
mod listening;

use std::collections::BTreeMap;

use crate::diagnostic::Reporter;
use crate::keys::all_of;
use crate::lower::Draft;
use crate::lower::network::plane_number;
use crate::model::{Profile, ReplicationHost, Service};
use crate::names::{DatasetName, SecretName, UserName};
use crate::nearest::did_you_mean;
use crate::span::{Span, Spanned};

/// Reports everything in the draft that does not fit together.
pub(crate) fn check(draft: &Draft, report: &mut Reporter) {
    datasets(draft, report);
    accounts(draft, report);
    secrets(draft, report);
    units(draft, report);
    replication(draft, report);
    variables(draft, report);
    profile(draft, report);
    addresses::check(draft, report);
    listening::check(draft, report);
}

/// A hint with the nearest known name, or all of them.
fn known_names(written: &str, known: &[&str], what: &str) -> String {
    did_you_mean(written, known.iter().copied()).unwrap_or_else(|| match known.len() {
        0 => format!("declare it under `{what}:`"),
        1..=6 => format!("`{what}` has {}", all_of(known)),
        _ => format!("declare it under `{what}:`"),
    })
}

/// Each dataset that a service or container uses is laid out, and used once.
fn datasets(draft: &Draft, report: &mut Reporter) {
    let known: Vec<&str> = draft.datasets.iter().map(|dataset| dataset.name.as_str()).collect();
    let services = draft.services.iter().flat_map(|s| s.datasets.iter().map(|d| (s.unit.as_str(), d)));
    let containers = draft.containers.iter().flat_map(|c| c.mounts.iter().map(|(d, _)| (c.name.as_str(), d)));
    let mut users: BTreeMap<&DatasetName, (&str, Span)> = BTreeMap::new();
    for (user, dataset) in services.chain(containers) {
        if !draft.gaps.datasets && !known.contains(&dataset.as_str()) {
            let message = format!("`{user}` uses the dataset `{}`, which is not laid out", dataset.value);
            report.error("unknown-dataset", dataset.span, message).hint(known_names(
                dataset.as_str(),
                &known,
                "zfs_layout",
            ));
            continue;
        }
        match users.get(&dataset.value) {
            Some((first, place)) => {
                let message = format!("the dataset `{}` already belongs to `{first}`", dataset.value);
                report
                    .error("dataset-shared", dataset.span, message)
                    .hint("give each service a dataset of its own: it is snapshotted and rolled back alone")
                    .related(*place, "first used here");
            }
            None => {
                users.insert(&dataset.value, (user, dataset.span));
            }
        }
    }
}

/// Accounts that the base system brings (Debian's base-passwd, Fedora's setup).
const SYSTEM_ACCOUNTS: [&str; 16] = [
    "root", "nobody", "daemon", "bin", "sys", "sync", "mail", "news", "proxy", "www-data", "backup", "list",
    "irc", "lp", "games", "man",
];
/// Accounts that a package makes, where their name differs from the package's.
const PACKAGE_ACCOUNTS: [(&str, &str); 9] = [
    ("postgres", "postgresql"),
    ("mysql", "mariadb"),
    ("mysql", "mysql"),
    ("redis", "redis"),
    ("www-data", "nginx"),
    ("www-data", "apache2"),
    ("_chrony", "chrony"),
    ("debian-transmission", "transmission"),
    ("git", "gitea"),
];

fn is_known_account(draft: &Draft, user: &UserName) -> bool {
    let name = user.as_str();
    let package =
        |package: &str| draft.package_names().any(|p| p == package || p.starts_with(&format!("{package}-")));
    draft.users.iter().any(|declared| declared.name.value == *user)
        || SYSTEM_ACCOUNTS.contains(&name)
        || package(name)
        || PACKAGE_ACCOUNTS.iter().any(|(account, by)| *account == name && package(by))
}

/// Owners of files and accounts of our own services exist.
fn accounts(draft: &Draft, report: &mut Reporter) {
    if draft.gaps.users {
        return;
    }
    let known: Vec<&str> = draft.users.iter().map(|user| user.name.as_str()).collect();
    let mut need = |user: &UserName, span: Span, by: &str| {
        if !is_known_account(draft, user) {
            report
                .error("unknown-user", span, format!("{by} needs the account `{user}`, which nobody makes"))
                .hint(known_names(user.as_str(), &known, "users"));
        }
    };
    for service in draft.services.iter().filter(|service| service.command.is_some()) {
        if let Some(user) = &service.user {
            need(&user.value, user.span, &format!("`{}`", service.unit.value));
        }
    }
    for file in &draft.files {
        if let Some(owner) = &file.owner {
            need(&owner.value.0, owner.span, &format!("`{}`", file.path.value));
        }
    }
    for rule in draft.outbound_rules() {
        if let Some(user) = &rule.user {
            need(user, rule.span, "this rule");
        }
    }
}

/// Each secret that is handed over is declared.
fn secrets(draft: &Draft, report: &mut Reporter) {
    if draft.gaps.secrets {
        return;
    }
    let known: Vec<&str> = draft.secrets.iter().map(|secret| secret.name.as_str()).collect();
    let services = draft.services.iter().flat_map(|service| &service.secrets);
    let containers = draft.containers.iter().flat_map(|container| &container.secrets);
    for secret in services.chain(containers) {
        let secret: &Spanned<SecretName> = secret;
        if !known.contains(&secret.as_str()) {
            report
                .error(
                    "unknown-secret",
                    secret.span,
                    format!("the secret `{}` is not declared", secret.value),
                )
                .hint(known_names(secret.as_str(), &known, "secrets"));
        }
    }
}

/// A container's unit must not be a service's.
fn units(draft: &Draft, report: &mut Reporter) {
    for container in &draft.containers {
        let unit = format!("{}.service", container.name.value);
        if let Some(service) = draft.services.iter().find(|service| service.unit.as_str() == unit) {
            report
                .error(
                    "unit-twice",
                    container.name.span,
                    format!("the container would be `{unit}`, which is a service"),
                )
                .hint("give the container another name")
                .related(service.unit.span, "the service is described here");
        }
    }
}

/// The replication's plane exists, and the target is on it.
fn replication(draft: &Draft, report: &mut Reporter) {
    let Some(replication) = &draft.replication else { return };
    let plane = &replication.plane;
    let Some(found) = draft.planes.iter().find(|p| p.interface.value == plane.value) else {
        if !draft.gaps.interfaces {
            let span = if plane.span.is_written() { plane.span } else { replication.span };
            let known: Vec<&str> = draft.planes.iter().map(|p| p.interface.as_str()).collect();
            let message =
                format!("replication travels over `{}`, which this manifest does not have", plane.value);
            let hint = if known.is_empty() {
                format!("add `{}: syncoid source` to `network_topology`", plane.value)
            } else {
                format!(
                    "add `{}: syncoid source` to `network_topology`, or write `transport: {}`",
                    plane.value, known[0]
                )
            };
            report.error("unknown-plane", span, message).hint(hint);
        }
        return;
    };
    if let ReplicationHost::Address(address) = replication.host {
        if !found.address.contains(&address) {
            let message = format!(
                "the target `{address}` is not on `{}`, which is `{}`",
                plane.value,
                found.address.trunc()
            );
            report
                .error("target-off-plane", replication.span, message)
                .hint("replicate to an address of the plane")
                .related(found.address.span, "the plane's address");
        } else if found.address.addr() == address {
            let message =
                format!("the target `{address}` is this machine's own address on `{}`", plane.value);
            report
                .error("address-twice", replication.span, message)
                .hint("one of the two needs another address")
                .related(found.address.span, "the machine's address");
        }
    }
}

/// `${WG1_ADDRESS}` names a plane that exists.
fn variables(draft: &Draft, report: &mut Reporter) {
    if draft.gaps.interfaces {
        return;
    }
    let mut texts: Vec<(&str, Span, usize)> = Vec::new();
    for service in &draft.services {
        let Service { command, setup, before_snapshot, after_snapshot, environment, .. } = service;
        let commands = command.iter().chain(setup).chain(before_snapshot).chain(after_snapshot);
        texts.extend(commands.map(|text| (text.value.as_str(), text.span, 0)));
        texts.extend(environment.iter().map(|pair| (pair.value.as_str(), pair.span, pair.name.len() + 1)));
    }
    for container in &draft.containers {
        texts.extend(
            container.environment.iter().map(|pair| (pair.value.as_str(), pair.span, pair.name.len() + 1)),
        );
    }
    texts.extend(draft.verify.iter().map(|proof| (proof.command.value.as_str(), proof.command.span, 0)));
    for (text, span, offset) in texts {
        for (at, _) in text.match_indices("${WG") {
            let Some(end) = text[at..].find('}') else { continue };
            let name = &text[at + 2..at + end];
            let plane = name
                .strip_suffix("_ADDRESS")
                .map(str::to_ascii_lowercase)
                .filter(|p| plane_number(p).is_some());
            if plane.as_ref().is_some_and(|plane| draft.planes.iter().any(|p| p.interface.as_str() == plane))
            {
                continue;
            }
            // The span of a quoted or nested value may begin elsewhere: then all of it is marked.
            let column = span.column + crate::text::saturated(text[..at].chars().count() + offset);
            let length = crate::text::saturated(end + 1);
            let exact = column + length <= span.column + span.length && offset == 0;
            let span = if exact { Span { column, length, ..span } } else { span };
            match plane {
                Some(plane) => {
                    let message = format!(
                        "`${{{name}}}` is the address of `{plane}`, which this manifest does not have"
                    );
                    report
                        .error("unknown-plane", span, message)
                        .hint(format!("add `{plane}:` to `network_topology`"));
                }
                None if name[2..].starts_with(|c: char| c.is_ascii_digit()) => {
                    report
                        .error(
                            "unknown-variable",
                            span,
                            format!("`${{{name}}}` is not a variable kldload sets"),
                        )
                        .hint("the address of a plane is `${WG0_ADDRESS}`, `${WG1_ADDRESS}`, …");
                }
                // Somebody else's variable.
                None => {}
            }
        }
    }
}

/// `core` is the stock distribution: nothing of kldload runs in it.
fn profile(draft: &Draft, report: &mut Reporter) {
    let Some(profile) = draft.profile.as_ref().filter(|profile| profile.value == Profile::Core) else {
        return;
    };
    let first = draft.planes.first().map(|plane| (plane.interface.span, "a WireGuard plane"));
    let service = draft.services.first().map(|service| (service.unit.span, "a service"));
    let container = draft.containers.first().map(|container| (container.name.span, "a container"));
    if let Some((place, what)) = first.or(service).or(container) {
        let message =
            format!("the profile `core` is the stock distribution on ZFS, it has no place for {what}");
        report
            .error("core-profile", profile.span, message)
            .hint("write `profile: server`")
            .related(place, "wanted here");
    }
}
