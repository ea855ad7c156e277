//! Services and containers.

use super::{Key, Kind, Rule, Section};
use crate::values::Wrong;

/// One systemd service.
pub(crate) static SERVICE: Section = Section {
    title: "services",
    one: "a service",
    doc: "A systemd service. With a `command` the unit is written by kldload; without one it comes from a package and is only \
          hardened. Either way it may write to its datasets and nothing else.",
    frame: "services:\n  - {}\n",
    shorthands: &[
        "services:\n  - unit: webapp.service\n    listens: wg0:8000, localhost:5432, wg0:8001/udp\n",
        "services:\n  - unit: webapp.service\n    hardening: ProtectSystem=strict  NoNewPrivileges  User=webapp\n",
        "services:\n  - unit: postgresql.service\n    hardening: database\n",
        "services:\n  - unit: webapp.service\n    environment: DATABASE=postgresql:///webapp  WORKERS=2\n",
    ],
    keys: &[
        Key::required("unit", Kind::Text("a unit name"), "Name of the unit.", "unit: webapp.service"),
        Key::optional(
            "command",
            Kind::Text("an absolute path with arguments"),
            "What it runs. `${WG0_ADDRESS}` is the address of `wg0`.",
            "command: /usr/bin/gunicorn --bind ${WG0_ADDRESS}:8000 app:app",
        ),
        Key::optional(
            "setup",
            Kind::List("commands"),
            "Commands that run once, at first boot, before the service; one per item.",
            "setup:\n  - pg_createcluster 17 main",
        ),
        Key::optional(
            "before_snapshot",
            Kind::Text("an absolute path with arguments"),
            "Runs, as root, before a snapshot of its datasets is taken; when it fails, none is.",
            "dataset: rpool/srv/webapp\nbefore_snapshot: /usr/bin/webapp-ctl pause",
        ),
        Key::optional(
            "after_snapshot",
            Kind::Text("an absolute path with arguments"),
            "Runs after it, also when `before_snapshot` has failed.",
            "dataset: rpool/srv/webapp\nafter_snapshot: /usr/bin/webapp-ctl resume",
        ),
        Key::optional(
            "user",
            Kind::Text("a login name"),
            "Account it runs as; declared under `users:` unless it comes with a package.",
            "user: webapp",
        ),
        Key::optional(
            "listens",
            Kind::Items(&LISTEN),
            "Where it listens: `wg0:8000`, `localhost:5432`, with `/udp` for UDP. The zone must open the port.",
            "listens: wg0:8000",
        ),
        Key::optional(
            "dataset",
            Kind::List("datasets of zfs_layout"),
            "The datasets it may write to. A dataset belongs to one service.",
            "dataset: rpool/srv/webapp",
        ),
        Key::optional(
            "writes",
            Kind::List("absolute paths"),
            "Further directories it may write to, below /run, /var/lib, /var/log or /var/cache.",
            "writes: /var/log/webapp",
        ),
        Key::optional(
            "hardening",
            Kind::Pairs("sandboxing directives of systemd.exec(5) and systemd.resource-control(5)"),
            "A preset (`strict`, `packaged`, `database`, `web`, `container-host`; see hardening.md), and directives that replace \
             single ones of it; a directive without a value means `yes`.",
            "hardening: web  ProtectHome=read-only",
        ),
        Key::optional(
            "after",
            Kind::List("unit names"),
            "Units it starts after.",
            "after: postgresql.service",
        ),
        Key::optional(
            "environment",
            Kind::Pairs("variable names"),
            "Environment variables. Secrets do not go here.",
            "environment: WORKERS=2",
        ),
        Key::optional(
            "secrets",
            Kind::List("names from `secrets:`"),
            "Secrets handed over as credentials.",
            "secrets: session-key",
        ),
        Key::optional(
            "max_exposure",
            Kind::Checked(&EXPOSURE),
            "Highest `systemd-analyze security` exposure that is accepted, 0.0 to 10.0.",
            "max_exposure: 4.0",
        ),
    ],
};

/// Where something listens.
pub(crate) static LISTEN: Section = Section {
    title: "services: listens",
    one: "`listens`",
    doc: "One address that a service listens on.",
    frame: "services:\n  - unit: webapp.service\n    listens:\n      - {}\n",
    shorthands: &[],
    keys: &[
        Key::required(
            "on",
            Kind::Text("an interface of network_topology, or `localhost`"),
            "The interface whose address is bound.",
            "on: wg0",
        ),
        Key::required("port", Kind::Integer { min: 1, max: 65535 }, "The port.", "port: 8000"),
        Key::optional("protocol", Kind::Choice(&["tcp", "udp"]), "Default: tcp.", "protocol: tcp"),
    ],
};

/// One container.
pub(crate) static CONTAINER: Section = Section {
    title: "containers",
    one: "a container",
    doc: "A container run by podman as the service `NAME.service`.",
    frame: "containers:\n  - {}\n",
    shorthands: &[
        "containers:\n  - name: web\n    image: docker.io/library/nginx:1.27.1\n    publish: wg0:8000 -> 80\n    mount: rpool/srv/webapp-db -> /usr/share/nginx/html\n",
    ],
    keys: &[
        Key::required("name", Kind::Text("a name"), "Its name.", "name: grafana"),
        Key::required(
            "image",
            Kind::Text("an image reference"),
            "Image with its registry and a tag other than `latest`, or a digest.",
            "image: docker.io/grafana/grafana:11.2.0",
        ),
        Key::optional(
            "publish",
            Kind::Items(&PUBLISH),
            "Ports: where on the machine, and which inside.",
            "publish: wg0:8000 -> 3000",
        ),
        Key::optional(
            "mount",
            Kind::Items(&MOUNT),
            "Datasets, and where they are inside.",
            "mount: rpool/srv/webapp-db -> /var/lib/grafana",
        ),
        Key::optional(
            "environment",
            Kind::Pairs("variable names"),
            "Environment variables.",
            "environment: GF_LOG_LEVEL=warn",
        ),
        Key::optional("secrets", Kind::List("names from `secrets:`"), "Secrets.", "secrets: session-key"),
        Key::optional(
            "capabilities",
            Kind::List("capabilities(7)"),
            "Rights of root that its programs need, such as changing their account. Default: none; ports below 1024 need none.",
            "capabilities: CAP_CHOWN, CAP_SETUID, CAP_SETGID",
        ),
    ],
};

/// A published port.
pub(crate) static PUBLISH: Section = Section {
    title: "containers: publish",
    one: "`publish`",
    doc: "One port of a container, reachable on an interface of the machine.",
    frame: "containers:\n  - name: web\n    image: docker.io/library/nginx:1.27.1\n    publish:\n      - {}\n",
    shorthands: &[],
    keys: &[
        Key::required("on", Kind::Text("an interface, or `localhost`"), "The interface.", "on: wg0"),
        Key::required("port", Kind::Integer { min: 1, max: 65535 }, "The port on the machine.", "port: 8000"),
        Key::optional("protocol", Kind::Choice(&["tcp", "udp"]), "Default: tcp.", "protocol: tcp"),
        Key::required("to", Kind::Integer { min: 1, max: 65535 }, "The port inside.", "to: 80"),
    ],
};

/// A mounted dataset.
pub(crate) static MOUNT: Section = Section {
    title: "containers: mount",
    one: "`mount`",
    doc: "One dataset that a container sees.",
    frame: "containers:\n  - name: web\n    image: docker.io/library/nginx:1.27.1\n    mount:\n      - {}\n",
    shorthands: &[],
    keys: &[
        Key::required(
            "dataset",
            Kind::Text("a dataset of zfs_layout"),
            "The dataset.",
            "dataset: rpool/srv/webapp-db",
        ),
        Key::required("path", Kind::Checked(&ABSOLUTE_PATH), "Where it is inside.", "path: /data"),
    ],
};

pub(super) static ABSOLUTE_PATH: Rule =
    Rule { what: "an absolute path", pattern: "^/", check: |text| crate::lower::paths::check_absolute(text) };

static EXPOSURE: Rule = Rule {
    what: "an exposure",
    pattern: "^(10(\\.0)?|[0-9](\\.[0-9])?)$",
    check: |text| parse_exposure(text).map(drop),
};

/// `4.0` → 40.
pub(crate) fn parse_exposure(text: &str) -> Result<u8, Wrong> {
    let (whole, tenth) = text.split_once('.').unwrap_or((text, "0"));
    let one_digit = |t: &str| t.len() == 1 && t.bytes().all(|b| b.is_ascii_digit());
    let tenths = (one_digit(tenth) && (one_digit(whole) || whole == "10"))
        .then(|| whole.parse::<u8>().ok().zip(tenth.parse::<u8>().ok()))
        .flatten()
        .map(|(whole, tenth)| whole * 10 + tenth);
    tenths.filter(|t| *t <= 100).ok_or_else(|| {
        Wrong::because("an exposure is a number from 0.0 to 10.0 with one decimal").hint("for example `4.0`")
    })
}
