//! Warnings: what a machine can be made without, and what somebody will miss one night.

use crate::diagnostic::Reporter;
use crate::model::{Appliance, Profile, ZoneKind};
use crate::span::Span;

/// Adds the warnings. `at_rest` is where the replication promises encryption at rest.
pub(crate) fn advise(appliance: &Appliance, at_rest: Option<Span>, report: &mut Reporter) {
    encryption(appliance, at_rest, report);
    public_zones(appliance, report);
    environment(appliance, report);
    if appliance.profile.value == Profile::Core {
        return;
    }
    if appliance.verify.is_empty() {
        report
            .warning(
                "no-verify",
                Span::DEFAULT,
                "nothing proves that the machine does its job: there is no `verify` section",
            )
            .hint(
                "add `verify:` with a `- name:` and a `command:` that fails when the service does not answer",
            );
    }
    match &appliance.snapshots {
        None => {
            report
                .warning("no-snapshots", Span::DEFAULT, "`snapshot_policy: none`: a deleted file is gone")
                .hint("leave the section out to keep 36 hourly, 30 daily and 3 monthly snapshots");
        }
        Some(policy) if !policy.span.is_written() => {
            report
                .warning(
                    "no-snapshots",
                    Span::DEFAULT,
                    "there is no `snapshot_policy`: 36 hourly, 30 daily and 3 monthly snapshots are kept",
                )
                .hint("write down what the service needs: `snapshot_policy: hourly=36  daily=30  monthly=3`");
        }
        Some(policy) => {
            let kept = [
                policy.frequently,
                policy.hourly,
                policy.daily,
                policy.weekly,
                policy.monthly,
                policy.yearly,
            ];
            if kept.iter().all(|count| *count == 0) {
                report
                    .warning("no-snapshots", policy.span, "this policy keeps no snapshot at all")
                    .hint("give a number: `hourly: 36`");
            }
        }
    }
}

/// A dataset's key is born on the machine: who recovers the data must know where it is kept.
fn encryption(appliance: &Appliance, at_rest: Option<Span>, report: &mut Reporter) {
    let encrypted: Vec<_> =
        appliance.datasets.iter().filter_map(|d| d.encryption.as_ref().map(|e| (d, e))).collect();
    let told = appliance.dr_procedure.steps.iter().any(|step| step.text.value.to_lowercase().contains("key"));
    if let Some((dataset, encryption)) = encrypted.first().filter(|_| !told) {
        let message = format!(
            "`{}` is encrypted with a key born on the machine, and `dr_procedure` does not say where it is kept",
            dataset.name.value
        );
        report
            .warning("key-not-kept", encryption.span, message)
            .hint("keep a copy of the key off the machine, and write the step that loads it");
    }
    if let Some(span) = at_rest.filter(|_| encrypted.is_empty()) {
        report
            .warning(
                "not-encrypted-at-rest",
                span,
                "this promises encryption at rest, but no dataset has `encryption=on`",
            )
            .hint("write `encryption=on` behind the datasets that need it");
    }
}

fn public_zones(appliance: &Appliance, report: &mut Reporter) {
    for zone in appliance.zones.iter().filter(|zone| zone.kind == ZoneKind::Public) {
        for allow in
            zone.allow.iter().filter(|allow| allow.rate_per_second.is_none() && allow.from.is_empty())
        {
            report
                .warning(
                    "open-without-rate",
                    allow.span,
                    format!("anybody may open connections on `{}` at any rate", zone.interface.value),
                )
                .hint("add `rate 20/second`, or `from NETWORK`; the default rate limit is used otherwise");
        }
    }
}

fn environment(appliance: &Appliance, report: &mut Reporter) {
    const WORDS: [&str; 5] = ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "PRIVATE_KEY"];
    let services = appliance.services.iter().flat_map(|service| &service.environment);
    let containers = appliance.containers.iter().flat_map(|container| &container.environment);
    for pair in services.chain(containers) {
        let name = pair.name.to_ascii_uppercase();
        let by_reference =
            name.ends_with("_FILE") || pair.value.starts_with('/') || pair.value.starts_with("${");
        if WORDS.iter().any(|word| name.contains(word)) && !by_reference && !pair.value.is_empty() {
            let length = crate::text::saturated(pair.name.chars().count());
            report
                .warning(
                    "secret-in-environment",
                    Span { length, ..pair.span },
                    format!("`{}` looks like a secret, and this text is in the image", pair.name),
                )
                .hint("declare it under `secrets:` and hand it over with `secrets:` of the service");
        }
    }
}
