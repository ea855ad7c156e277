//! Monitoring: node_exporter on its plane, the machine's own metrics in a text file, and what Prometheus must know.
//!
//! The server is another machine of the mesh; its rules and scrape configuration lie ready in
//! `/usr/share/kldload/prometheus`. Formats of Prometheus 2.53 and node_exporter 1.9.
//!
//! Metrics of kldload's own (written by `kldload status --prometheus`):
//! `kldload_pool_online{pool}` (1 or 0) and `kldload_replication_last_success_timestamp_seconds`.

use kld_manifest::Span;
use kld_manifest::model::{Alert, AlertCondition, Plane, Severity};

use crate::context::{Context, NODE_EXPORTER_PORT};
use crate::draft::Draft;
use crate::layers::{hardening, presets, wireguard};
use crate::system::{Because, Enablement, Item, Layer, SystemFile};
use crate::unit_file::{Section, UnitFile};

const SERVICE: &str = "kldload-metrics.service";
const TIMER: &str = "kldload-metrics.timer";
const SHARE: &str = "/usr/share/kldload/prometheus";

/// The plane node_exporter listens on, and the line that opens its port; `None` when no line does.
pub(crate) fn listens_on<'a>(context: &Context<'a>) -> Option<(&'a Plane, Span)> {
    let open = |plane: &'a Plane| Some((plane, context.opening(plane, NODE_EXPORTER_PORT)?.span));
    let first = context.monitoring_plane().and_then(open);
    first.or_else(|| context.planes.iter().copied().find_map(open))
}

/// Adds the exporter when a plane opens its port, and the alerts in any case.
pub(crate) fn add(context: &Context<'_>, draft: &mut Draft) {
    if let Some((plane, span)) = listens_on(context) {
        add_exporter(context, plane, span, draft);
        draft.file(scrape_config(context, plane, span));
    }
    if !context.appliance.monitoring.alerts.is_empty() {
        draft.file(alert_rules(context));
    }
}

fn add_exporter(context: &Context<'_>, plane: &Plane, span: Span, draft: &mut Draft) {
    let distro = context.distro;
    let because = |reason: &str| Because::new(Layer::Monitoring, span, reason);
    draft.role(&distro.packages.monitoring, &because("numbers about the machine"));
    let listen = std::net::SocketAddr::new(plane.address.addr(), NODE_EXPORTER_PORT);
    let arguments = format!(
        "# Arguments of node_exporter. Written by kldload.\n\
         ARGS=\"--web.listen-address={listen} --collector.systemd --collector.textfile.directory={}\"\n",
        distro.paths.textfile_directory
    );
    let reason = format!("node_exporter listens on {} only", plane.interface.value);
    draft.file(SystemFile::text(&distro.paths.node_exporter_defaults, arguments, because(&reason)));

    let mut unit = UnitFile::default();
    wireguard::wait_for_mesh(&mut unit, &because("the address it binds to exists once the mesh is up"));
    for (name, value, reason) in presets::STRICT {
        // The exporter tells about the machine: it must see /proc and the file systems as they are. It runs as an account
        // that can write to none of them.
        if !["ProcSubset", "ProtectProc", "RemoveIPC", "ProtectSystem", "ProtectHome"].contains(name) {
            unit.add(Section::Service, name, *value, Because::new(Layer::Hardening, span, *reason));
        }
    }
    let mut add = |name: &str, value: &str, reason: &str| {
        unit.add(Section::Service, name, value, Because::new(Layer::Hardening, span, reason));
    };
    add("ProtectSystem", "full", "it measures file systems as they are, and changes none");
    add(
        "RestrictAddressFamilies",
        "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "it counts packets of every interface",
    );
    add("IPAddressDeny", "any", "only its plane reads it");
    add("IPAddressAllow", "localhost", "only its plane reads it");
    add("IPAddressAllow", &plane.address.trunc().to_string(), "only its plane reads it");
    draft.file(unit.into_file(
        format!("/etc/systemd/system/{}.d/40-kldload-monitoring.conf", distro.units.node_exporter),
        because("node_exporter starts once its plane is up, in a sandbox"),
    ));
    draft.unit(&distro.units.node_exporter, Enablement::Enabled, because("watched from first boot"));

    draft.file(metrics_service(context, span));
    draft.file(metrics_timer(span));
    draft.unit(TIMER, Enablement::Enabled, because("twice a minute, as often as Prometheus asks"));
}

fn metrics_service(context: &Context<'_>, span: Span) -> SystemFile {
    let because = |reason: &str| Because::new(Layer::Monitoring, span, reason);
    let directory = &context.distro.paths.textfile_directory;
    let mut unit = UnitFile::default();
    let mut add =
        |section, name: &str, value: &str, reason: &str| unit.add(section, name, value, because(reason));
    use Section::{Service, Unit};
    add(Unit, "Description", "Write kldload's metrics", "what people read in the log");
    add(Service, "Type", "oneshot", "done when the file is written");
    let command = format!("/usr/bin/kldload status --prometheus --output {directory}/kldload.prom");
    add(Service, "ExecStart", &command, "pool, replication and services as numbers");
    add(Service, "TimeoutStartSec", "25s", "a pool that hangs does not pile up processes");
    add(Service, "ReadWritePaths", directory, "where node_exporter looks");
    for (name, value, reason) in hardening::OBSERVER {
        add(Service, name, value, reason);
    }
    unit.into_file(
        format!("/etc/systemd/system/{SERVICE}"),
        because("numbers that node_exporter does not have"),
    )
}

fn metrics_timer(span: Span) -> SystemFile {
    let because = |reason: &str| Because::new(Layer::Monitoring, span, reason);
    let mut unit = UnitFile::default();
    let mut add =
        |section, name: &str, value: &str, reason: &str| unit.add(section, name, value, because(reason));
    use Section::{Install, Timer, Unit};
    add(Unit, "Description", "When to write kldload's metrics", "what people read in the log");
    add(Timer, "OnActiveSec", "10s", "soon after the start");
    add(Timer, "OnUnitInactiveSec", "30s", "twice a minute, never two at once");
    add(Timer, "AccuracySec", "1s", "a minute of delay would hide a minute of trouble");
    add(Install, "WantedBy", "timers.target", "part of every start");
    unit.into_file(format!("/etc/systemd/system/{TIMER}"), because("how fresh the numbers are"))
}

/// The job of this machine, for the server's `scrape_config_files`.
fn scrape_config(context: &Context<'_>, plane: &Plane, span: Span) -> SystemFile {
    let host = &context.appliance.name.value;
    let target = std::net::SocketAddr::new(plane.address.addr(), NODE_EXPORTER_PORT);
    let text = format!(
        "# Name this file under scrape_config_files on the Prometheus server. Written by kldload.\n\
         scrape_configs:\n  - job_name: {}\n    scrape_interval: 30s\n    static_configs:\n      - targets: [{}]\n        labels:\n          host: {}\n",
        yaml(host.as_str()),
        yaml(&target.to_string()),
        yaml(host.as_str())
    );
    let because = Because::new(
        Layer::Monitoring,
        span,
        "what the Prometheus server of the mesh must know of this machine",
    );
    SystemFile::text(format!("{SHARE}/scrape/{host}.yml"), text, because)
}

fn alert_rules(context: &Context<'_>) -> SystemFile {
    let host = context.appliance.name.as_str();
    let mut text = format!(
        "# Alerts of {host}, for rule_files on the Prometheus server. Written by kldload.\ngroups:\n  - name: {}\n    rules:\n",
        yaml(host)
    );
    let mut parts = Vec::new();
    for alert in &context.appliance.monitoring.alerts {
        let (name, expression) = expression(alert, context);
        let severity = match alert.severity {
            Severity::Warn => "warn",
            Severity::Page => "page",
        };
        text.push_str(&format!("      - alert: {}\n        expr: {}\n", yaml(&name), yaml(&expression)));
        if !alert.hold.is_zero() {
            text.push_str(&format!("        for: {}s\n", alert.hold.as_secs()));
        }
        text.push_str(&format!(
            "        labels:\n          severity: {severity}\n        annotations:\n          summary: {}\n",
            yaml(&format!("{host}: {}", alert.text).replace("{{", "{ {"))
        ));
        let because = Because::new(Layer::Monitoring, alert.span, format!("{severity}: {}", alert.text));
        parts.push(Item::new(format!("{name}: {expression}"), because));
    }
    let span = context.appliance.monitoring.alerts.first().map(|a| a.span).unwrap_or_default();
    let because = Because::new(Layer::Monitoring, span, "what somebody must be told about");
    SystemFile::text(format!("{SHARE}/rules/{host}.yml"), text, because).with_parts(parts)
}

/// Name and PromQL of an alert. Silence is an alarm too: a machine that tells nothing is not well.
fn expression(alert: &Alert, context: &Context<'_>) -> (String, String) {
    let host = context.appliance.name.as_str();
    let job = format!("job=\"{host}\"");
    match &alert.condition {
        AlertCondition::PoolNotOnline => {
            let metric = format!("kldload_pool_online{{{job},pool=\"{}\"}}", context.appliance.pool);
            ("PoolNotOnline".to_owned(), format!("{metric} == 0 or absent({metric})"))
        }
        AlertCondition::ReplicationLag { minutes } => {
            let metric = format!("kldload_replication_last_success_timestamp_seconds{{{job}}}");
            (
                "ReplicationLag".to_owned(),
                format!("time() - {metric} > {} or absent({metric})", u64::from(*minutes) * 60),
            )
        }
        AlertCondition::ServiceDown { unit } => {
            let running = |name: &kld_manifest::names::UnitName| {
                let known = context.services.iter().find(|s| {
                    crate::context::with_suffix(&s.unit.value) == crate::context::with_suffix(name)
                });
                known
                    .map_or_else(|| crate::context::with_suffix(name), |s| context.running_unit(s).0)
                    .to_string()
            };
            let units: Vec<String> = match unit {
                Some(unit) => vec![running(unit)],
                None => context.services.iter().map(|s| running(&s.unit.value)).collect(),
            };
            let down: Vec<_> = units
                .iter()
                .map(|unit| {
                    let metric = format!("node_systemd_unit_state{{{job},name=\"{unit}\",state=\"active\"}}");
                    format!("{metric} == 0 or absent({metric})")
                })
                .collect();
            let name = unit.as_ref().map_or_else(
                || "ServiceDown".to_owned(),
                |u| format!("ServiceDown_{}", identifier(u.as_str())),
            );
            (name, if down.is_empty() { format!("up{{{job}}} == 0") } else { down.join(" or ") })
        }
        AlertCondition::DiskUsage { percent } => {
            let metric = |name: &str| format!("node_filesystem_{name}_bytes{{{job},fstype=\"zfs\"}}");
            let (free, size) = (metric("avail"), metric("size"));
            let now = format!("100 * (1 - {free} / {size}) > {percent}");
            // "warn 24h before action required": also when six hours of growth, continued for a day, lead there.
            let soon = format!("100 * (1 - predict_linear({free}[6h], 86400) / {size}) > {percent}");
            let early = alert.text.contains("24h before");
            ("DiskUsage".to_owned(), if early { format!("{now} or {soon}") } else { now })
        }
        AlertCondition::Expression(expression) => ("Expression".to_owned(), expression.clone()),
    }
}

/// Letters, digits and `_` only, as alert names have them.
fn identifier(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// A YAML double-quoted scalar; JSON's strings are a subset of it.
fn yaml(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}
