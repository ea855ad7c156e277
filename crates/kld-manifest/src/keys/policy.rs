//! Snapshots, replication, monitoring, procedures.

use super::{Key, Kind, Rule, Section};
use crate::values::Wrong;

const COUNT: Kind = Kind::Integer { min: 0, max: 10_000 };

/// How snapshots are kept.
pub(crate) static SNAPSHOTS: Section = Section {
    title: "snapshot_policy",
    one: "`snapshot_policy`",
    doc: "How many snapshots sanoid keeps. A number that is not written is 0.",
    frame: "snapshot_policy:\n  {}\n",
    shorthands: &["snapshot_policy: none\n", "snapshot_policy: hourly=48  daily=30\n"],
    keys: &[
        Key::optional(
            "template",
            Kind::Checked(&TEMPLATE),
            "Name of the sanoid template. Default: `production`.",
            "template: production",
        ),
        Key::optional(
            "frequent_period",
            Kind::Checked(&PERIOD),
            "Minutes between `frequently` snapshots: 5, 10, 15, 20 or 30 (or another number that divides an hour).",
            "frequent_period: 15",
        ),
        Key::optional(
            "frequently",
            COUNT,
            "How many of those are kept. Default: one hour's worth when `frequent_period` is written, else 0.",
            "frequently: 4",
        ),
        Key::optional("hourly", COUNT, "How many hourly snapshots are kept.", "hourly: 48"),
        Key::optional("daily", COUNT, "How many daily snapshots are kept.", "daily: 30"),
        Key::optional("weekly", COUNT, "How many weekly snapshots are kept.", "weekly: 8"),
        Key::optional("monthly", COUNT, "How many monthly snapshots are kept.", "monthly: 12"),
        Key::optional("yearly", COUNT, "How many yearly snapshots are kept.", "yearly: 2"),
    ],
};

/// Where datasets go.
pub(crate) static REPLICATION: Section = Section {
    title: "replication_policy",
    one: "`replication_policy`",
    doc: "Every dataset of the manifest is sent with syncoid to another machine, over a plane.",
    frame: "replication_policy:\n  {}\n",
    shorthands: &[
        "replication_policy:\n  target: backup@10.8.2.9:tank/web\n  schedule: nightly at 02:00\n  transport: wg2 (dedicated)\n",
    ],
    keys: &[
        Key::required(
            "target",
            Kind::Section(&TARGET),
            "`user@host:pool/dataset`, or nested.",
            "target: backup@10.8.2.9:tank/web",
        ),
        Key::required(
            "schedule",
            Kind::Section(&SCHEDULE),
            "`every 15 minutes`, `hourly`, `daily at 04:00`, `nightly at 02:00` or `weekly on Sunday at 03:30`.",
            "schedule: hourly",
        ),
        Key::optional(
            "transport",
            Kind::Text("text that names a plane"),
            "The plane it travels over. Default: wg2.",
            "transport: wg2 (dedicated replication backplane)",
        ),
        Key::optional(
            "encryption",
            Kind::Text("text"),
            "A remark for people: in transit it is always WireGuard; at rest it is `encryption=on` of a dataset.",
            "encryption: in-transit via WireGuard",
        ),
    ],
};

/// The other end.
pub(crate) static TARGET: Section = Section {
    title: "replication_policy: target",
    one: "a replication target",
    doc: "The machine that receives.",
    frame: "replication_policy:\n  schedule: hourly\n  target:\n    {}\n",
    shorthands: &[],
    keys: &[
        Key::required("user", Kind::Text("a login name"), "Account there.", "user: backup"),
        Key::required(
            "host",
            Kind::Text("a host name or an address on the plane"),
            "The machine.",
            "host: 10.8.2.9",
        ),
        Key::required(
            "dataset",
            Kind::Text("a dataset name"),
            "Parent of the copies there.",
            "dataset: tank/web",
        ),
    ],
};

/// When something runs.
pub(crate) static SCHEDULE: Section = Section {
    title: "replication_policy: schedule",
    one: "a schedule",
    doc: "Exactly one of these.",
    frame: "replication_policy:\n  target: backup@10.8.2.9:tank/web\n  schedule:\n    {}\n",
    shorthands: &[
        "replication_policy:\n  target: backup@10.8.2.9:tank/web\n  schedule: every 15 minutes\n",
        "replication_policy:\n  target: backup@10.8.2.9:tank/web\n  schedule: weekly on Sunday at 03:30\n",
    ],
    keys: &[
        Key::optional(
            "every_minutes",
            Kind::Integer { min: 1, max: 59 },
            "Every so many minutes.",
            "every_minutes: 15",
        ),
        Key::optional("hourly", Kind::Integer { min: 0, max: 59 }, "Every hour at this minute.", "hourly: 0"),
        Key::optional("daily", Kind::Checked(&CLOCK), "Every day at this time.", "daily: \"02:00\""),
        Key::optional("weekly", Kind::Text("a day and a time"), "Every week.", "weekly: Sunday 03:30"),
    ],
};

/// What is watched.
pub(crate) static MONITORING: Section = Section {
    title: "monitoring",
    one: "`monitoring`",
    doc: "Alerts and who may scrape. node_exporter listens on the monitoring plane.",
    frame: "monitoring:\n  {}\n",
    shorthands: &[
        "monitoring:\n  alerts:\n    - pool DEGRADED: page immediately\n    - webapp down >1m: page immediately\n    - any service down: page\n    - disk usage >80%: warn 24h before action required\n    - replication lag >90 minutes: warn\n",
        "monitoring:\n  alerts:\n    - metric: pool_health != ONLINE\n      action: page\n    - metric: replication_lag_minutes > 90\n      action: warn\n    - metric: service_up == 0\n      action: page\n    - metric: disk_usage_percent > 80\n      action: warn\n",
    ],
    keys: &[
        Key::optional(
            "alerts",
            Kind::Items(&ALERT),
            "What is told, and how loud.",
            "alerts:\n  - pool DEGRADED: page immediately",
        ),
        Key::optional(
            "prometheus",
            Kind::List("addresses"),
            "Prometheus servers that may scrape. Default: every peer of the monitoring plane.",
            "prometheus: 10.8.1.9",
        ),
    ],
};

/// One alert.
pub(crate) static ALERT: Section = Section {
    title: "monitoring: alerts",
    one: "an alert",
    doc: "One alert: `metric` with `action`, or `condition` with `severity`, or a PromQL `expr` with `severity`. On one \
          line: the condition, a colon, then `page` or `warn`.",
    frame: "monitoring:\n  alerts:\n    - {}\n",
    shorthands: &[],
    keys: &[
        Key::optional(
            "metric",
            Kind::Text("a comparison"),
            "`pool_health != ONLINE`, `replication_lag_minutes > 90`, `service_up == 0` or `disk_usage_percent > 80`.",
            "metric: pool_health != ONLINE\naction: page",
        ),
        Key::optional(
            "action",
            Kind::Text("`page` or `warn`, and a remark"),
            "How loud, with `metric`.",
            "action: page immediately\nmetric: service_up == 0",
        ),
        Key::optional(
            "condition",
            Kind::Choice(&["pool_not_online", "replication_lag", "service_down", "disk_usage"]),
            "What must hold.",
            "condition: pool_not_online\nseverity: page",
        ),
        Key::optional(
            "severity",
            Kind::Choice(&["page", "warn"]),
            "`page` wakes somebody; `warn` waits until tomorrow.",
            "severity: page\ncondition: pool_not_online",
        ),
        Key::optional(
            "for",
            Kind::Duration,
            "How long it must hold first. Default: at once.",
            "for: 1m\ncondition: service_down\nseverity: page",
        ),
        Key::optional(
            "unit",
            Kind::Text("a unit of this manifest"),
            "With `service_down`: which. Default: any.",
            "unit: webapp.service\ncondition: service_down\nseverity: page",
        ),
        Key::optional(
            "percent",
            Kind::Integer { min: 1, max: 99 },
            "With `disk_usage`.",
            "percent: 80\ncondition: disk_usage\nseverity: warn",
        ),
        Key::optional(
            "minutes",
            Kind::Integer { min: 1, max: 525_600 },
            "With `replication_lag`.",
            "minutes: 90\ncondition: replication_lag\nseverity: warn",
        ),
        Key::optional(
            "expr",
            Kind::Text("PromQL"),
            "Any expression.",
            "expr: node_load1 > 8\nseverity: warn",
        ),
    ],
};

/// What `kldload upgrade` and `kldload dr` carry out.
pub(crate) static PROCEDURE: Section = Section {
    title: "upgrade_procedure, dr_procedure",
    one: "a procedure",
    doc: "Numbered steps, carried out by `kldload upgrade` and `kldload dr`. A step that begins with the name of a \
          program and reads as a command line is run by `/bin/sh -c` as root, without input; any other is asked of the \
          person at the terminal, and so is a login (`ssh HOST`). `Verify: …` must hold before the procedure goes on. \
          `If failed: …` is taken only when a step before it, and after the branch above it, has failed; then the \
          procedure ends. Targets stand on a line of their own or as a step: `RTO: 8 minutes  RPO: 24 hours`. What a \
          step is, is shown by `kldload upgrade --dry-run`; `steps:` says it exactly.",
    frame: "dr_procedure:\n  {}\n",
    shorthands: &[
        "dr_procedure:\n  1. zpool import tank\n  2. If failed: call the owner\n  3. RTO target: 8 minutes  RPO target: 24 hours\n",
        "upgrade_procedure:\n  1. apt-get -y dist-upgrade\n  2. Verify: kst\n  3. If failed: kldload undo --yes\n",
    ],
    keys: &[
        Key::optional(
            "rto",
            Kind::Duration,
            "Recovery time objective: how long the service may be gone. Measured from the start to the last `Verify:`.",
            "rto: 8 minutes",
        ),
        Key::optional(
            "rpo",
            Kind::Duration,
            "Recovery point objective: how much work may be lost. Measured as the age, at the start, of the newest \
             snapshot of each service's dataset.",
            "rpo: 24 hours",
        ),
        Key::optional(
            "steps",
            Kind::Items(&STEP),
            "The steps in order.",
            "steps:\n  - text: zpool import tank",
        ),
    ],
};

/// One step.
pub(crate) static STEP: Section = Section {
    title: "procedures: steps",
    one: "a step",
    doc: "One step: exactly one of `text`, `command`, `verify` and `ask`.",
    frame: "dr_procedure:\n  steps:\n    - {}\n",
    shorthands: &[],
    keys: &[
        Key::optional(
            "text",
            Kind::Text("a command or a sentence"),
            "Read as a numbered step is.",
            "text: zpool import tank",
        ),
        Key::optional(
            "command",
            Kind::Text("a command"),
            "Run by `/bin/sh -c` as root, whatever it looks like.",
            "command: ./migrate --all",
        ),
        Key::optional(
            "verify",
            Kind::Text("a command or a sentence"),
            "As `Verify: …`: tried again until it holds, at most for `timeout` or the `--within` of the command.",
            "verify: kst",
        ),
        Key::optional(
            "ask",
            Kind::Text("a sentence"),
            "Asked of the person, whatever it looks like.",
            "ask: reboot the router",
        ),
        Key::optional(
            "if_failed",
            Kind::Text("a command or a sentence"),
            "As a step `If failed: …` behind this one.",
            "if_failed: zpool import -f tank\ncommand: zpool import tank",
        ),
        Key::optional(
            "timeout",
            Kind::Duration,
            "The step has failed when it takes longer. Default: as long as it takes.",
            "timeout: 10m\ncommand: zpool import tank",
        ),
        Key::optional(
            "on_failure",
            Kind::Flag,
            "Taken only when an earlier step failed. Default: whether the text begins with `If failed:`.",
            "on_failure: yes\ntext: call the owner",
        ),
    ],
};

static TEMPLATE: Rule = Rule {
    what: "a template name",
    pattern: "^[a-z][a-z0-9_-]{0,31}$",
    check: |text| {
        let first = text.starts_with(|c: char| c.is_ascii_lowercase());
        let rest = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b));
        if first && rest && text.len() <= 32 {
            Ok(())
        } else {
            Err(Wrong::because("only small letters, digits, `-` and `_` are allowed, a letter first"))
        }
    },
};

static PERIOD: Rule = Rule {
    what: "a period",
    pattern: "^[1-9][0-9]?$",
    check: |text| match crate::values::parse_integer(text, 1, 60) {
        Ok(minutes) if 60 % minutes == 0 => Ok(()),
        _ => Err(Wrong::because("it must be a number of minutes that divides an hour")
            .hint("use 5, 10, 15, 20 or 30")),
    },
};

static CLOCK: Rule = Rule {
    what: "a time of day",
    pattern: "^([01]?[0-9]|2[0-3]):[0-5][0-9]$",
    check: |text| crate::lower::schedule::parse_clock(text).map(drop),
};
