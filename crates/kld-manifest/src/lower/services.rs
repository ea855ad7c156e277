//! `services` and `containers`.

use super::fields::{Fields, impossible, items, parse_name, plain_item};
use super::paths;
use crate::diagnostic::Reporter;
use crate::directives::{DIRECTIVES, words_of};
use crate::keys::{CONTAINER, LISTEN, MOUNT, PUBLISH, SERVICE, Section};
use crate::model::{Container, Directive, Listen, ListenOn, Protocol, Publish, Service};
use crate::names::{DatasetName, InterfaceName, UnitName, UserName};
use crate::nearest::did_you_mean;
use crate::span::{Span, Spanned};
use crate::syntax::{Marker, Node};
use crate::text::Text;
use crate::values::{self, Wrong};

/// The services, in the order written. An item without a readable unit is left out.
pub(super) fn lower(node: &Node<'_>, report: &mut Reporter) -> Vec<Service> {
    super::fields::no_value(node, report);
    let mut services: Vec<Service> = Vec::new();
    for item in items(node, report) {
        let Some(service) = service(item, report) else { continue };
        if let Some(first) = services.iter().find(|s| s.unit.value == service.unit.value) {
            report
                .error(
                    "unit-twice",
                    service.unit.span,
                    format!("`{}` is described twice", service.unit.value),
                )
                .related(first.unit.span, "first described here");
            continue;
        }
        services.push(service);
    }
    services
}

fn service(item: &Node<'_>, report: &mut Reporter) -> Option<Service> {
    let fields = Fields::of(&SERVICE, item, report);
    let unit = unit(&fields, report);
    let command = fields.string("command", report).filter(|command| {
        let good = check_command(&command.value);
        if let Err(wrong) = &good {
            let word = Spanned::new(first_word(&command.value), first_word_span(command));
            let message = format!("`{}` cannot be started: {}", word.value, wrong.reason);
            report.error("relative-command", word.span, message).maybe_hint(wrong.hint.clone());
        }
        good.is_ok()
    });
    let setup = commands(&fields, report);
    let mut hardening = pairs(&fields, "hardening", report);
    hardening.retain(|directive| check_directive(directive, report));
    let user = user(&fields, &mut hardening, report);
    let writes =
        fields.list("writes", report).into_iter().filter_map(|word| writable(word, report)).collect();
    let after = names(&fields, "after", report);
    for unit in &after {
        let unit: &Spanned<UnitName> = unit;
        if !unit.as_str().contains('.') {
            report
                .error("invalid-name", unit.span, format!("`{}` has no unit type", unit.value))
                .hint(format!("write `{}.service`", unit.value));
        }
    }
    Some(Service {
        command,
        setup,
        user,
        listens: listens(&fields, report),
        datasets: names(&fields, "dataset", report),
        writes,
        hardening,
        after,
        environment: environment(&fields, report),
        secrets: names(&fields, "secrets", report),
        max_exposure_tenths: fields.text("max_exposure", report).and_then(|text| {
            crate::keys::parse_exposure(text.bare().as_str()).ok().map(|tenths| text.with(tenths))
        }),
        unit: unit?,
    })
}

fn unit(fields: &Fields<'_>, report: &mut Reporter) -> Option<Spanned<UnitName>> {
    let unit = fields.parsed::<UnitName>("unit", report)?;
    let stem = unit.as_str().strip_suffix(".service");
    if stem.is_none_or(|stem| stem.is_empty() || stem.starts_with('.')) {
        let hint = if unit.as_str().contains('.') {
            "only services are described in a manifest".to_owned()
        } else {
            format!("write `{}.service`", unit.value)
        };
        report.error("invalid-name", unit.span, format!("`{}` is not a service", unit.value)).hint(hint);
    }
    Some(unit)
}

fn first_word(command: &str) -> String {
    command.split_whitespace().next().unwrap_or_default().to_owned()
}

fn first_word_span(command: &Spanned<String>) -> Span {
    let length = command.value.split_whitespace().next().map_or(1, |word| word.chars().count());
    Span { length: crate::text::saturated(length).min(command.span.length).max(1), ..command.span }
}

/// systemd.service(5): the program of `ExecStart=` is an absolute path. The prefixes `@ - : + !` are not taken: some of
/// them switch the sandbox off.
fn check_command(command: &str) -> Result<(), Wrong> {
    let program = command.split_whitespace().next().unwrap_or_default();
    if program.starts_with('/') {
        return paths::check_absolute(program);
    }
    let bare = program.trim_start_matches(['@', '-', ':', '+', '!']);
    if bare.len() < program.len() && bare.starts_with('/') {
        return Err(Wrong::because("systemd's prefixes are not taken, some switch the sandbox off")
            .hint(format!("write `{bare}`")));
    }
    Err(Wrong::because("systemd starts programs by absolute path")
        .hint(format!("for example `/usr/bin/{bare}`")))
}

/// Commands, each a whole line: commas mean nothing here.
fn commands(fields: &Fields<'_>, report: &mut Reporter) -> Vec<Spanned<String>> {
    let Some(node) = fields.node("setup") else { return Vec::new() };
    let mut lines: Vec<Text<'_>> = node.value.into_iter().collect();
    lines.extend(items(node, report).into_iter().filter_map(|item| plain_item(item, report)));
    if lines.is_empty() && !node.any_pending() && node.children.is_empty() {
        report.error("missing-value", node.span(), "`setup` is empty");
    }
    lines.into_iter().map(|line| line.with(line.unquoted())).collect()
}

/// `NAME=value` words and nested `NAME: value` lines; a bare word is `yes`.
fn pairs(fields: &Fields<'_>, name: &str, report: &mut Reporter) -> Vec<Directive> {
    let Some(node) = fields.node(name) else { return Vec::new() };
    let mut pairs: Vec<Directive> = Vec::new();
    for entry in node.properties().iter().chain(&node.children) {
        let Some(key) = entry.key.filter(|_| matches!(entry.marker, Marker::Line | Marker::Property)) else {
            if !entry.any_pending() {
                report.error("expected-key", entry.text.span(), "`NAME: value` is wanted here");
            }
            continue;
        };
        if entry.pending {
            continue;
        }
        super::fields::no_deeper_lines(entry, report);
        if let Some(value) =
            entry.value.filter(|v| entry.marker == Marker::Property && v.as_str().ends_with(','))
        {
            report
                .error("impossible-value", value.span(), format!("`{}` ends with a comma", value.as_str()))
                .hint(format!(
                    "separate them with spaces; a comma that is meant stands in quotes: `\"{}\"`",
                    value.as_str()
                ));
            continue;
        }
        let value = match (entry.value, entry.marker) {
            (Some(value), _) => value.unquoted(),
            // The seed's `NoNewPrivileges`.
            (None, Marker::Property) if name == "hardening" => "yes".to_owned(),
            (None, _) => {
                report
                    .error("missing-value", key.span(), format!("`{}` has no value", key.as_str()))
                    .hint(format!("write `{}=value`", key.as_str()));
                continue;
            }
        };
        if let Some(first) = pairs.iter().find(|pair| pair.name == key.as_str()) {
            report
                .error("duplicate-key", key.span(), format!("`{}` is written twice", key.as_str()))
                .related(first.span, "first written here");
            continue;
        }
        pairs.push(Directive { name: key.as_str().to_owned(), value, span: entry.text.span() });
    }
    pairs
}

fn check_directive(directive: &Directive, report: &mut Reporter) -> bool {
    let Directive { name, value, span } = directive;
    let name_span = Span { length: crate::text::saturated(name.chars().count()).max(1), ..*span };
    if !DIRECTIVES.contains(&name.as_str()) {
        let near = did_you_mean(name, DIRECTIVES.iter().copied());
        let hint = near.unwrap_or_else(|| "see the sandboxing section of systemd.exec(5)".to_owned());
        report
            .error("unknown-directive", name_span, format!("systemd has no hardening directive `{name}`"))
            .hint(hint);
        return false;
    }
    if let Some(words) = words_of(name)
        && values::parse_flag(value).is_err()
        && !words.contains(&value.as_str())
    {
        let words: Vec<&str> = words.iter().copied().chain(["yes", "no"]).collect();
        report
            .error("impossible-value", *span, format!("`{value}` is not a possible `{name}`"))
            .hint(format!("it takes {}", crate::keys::one_of(&words)));
        return false;
    }
    true
}

/// The account: `user:`, or `User=` among the directives, as in the seed's example.
fn user(
    fields: &Fields<'_>,
    hardening: &mut Vec<Directive>,
    report: &mut Reporter,
) -> Option<Spanned<UserName>> {
    let written = fields.parsed::<UserName>("user", report);
    let Some(at) = hardening.iter().position(|directive| directive.name == "User") else { return written };
    let directive = hardening.remove(at);
    let user = match directive.value.parse::<UserName>() {
        Ok(user) => Spanned::new(user, directive.span),
        Err(error) => {
            report.error("invalid-name", directive.span, error.to_string());
            return written;
        }
    };
    match written {
        Some(written) if written.value != user.value => {
            report
                .error(
                    "user-twice",
                    user.span,
                    format!("`User={}` contradicts `user: {}`", user.value, written.value),
                )
                .hint("write the account once")
                .related(written.span, "the other account");
            Some(written)
        }
        Some(written) => Some(written),
        None => Some(user),
    }
}

fn writable(word: Text<'_>, report: &mut Reporter) -> Option<Spanned<String>> {
    const PARENTS: [&str; 4] = ["/run", "/var/lib", "/var/log", "/var/cache"];
    let path = word.as_str();
    let result = paths::check_absolute(path).and_then(|()| {
        if PARENTS.iter().any(|parent| path != *parent && paths::is_at_or_below(path, parent)) {
            return Ok(());
        }
        Err(Wrong::because(
            "a service writes to its dataset, and below /run, /var/lib, /var/log or /var/cache",
        )
        .hint("give the service a dataset"))
    });
    match result {
        Ok(()) => Some(word.with(path.to_owned())),
        Err(wrong) => {
            impossible("writes", word, wrong, report);
            None
        }
    }
}

/// Variable names as a shell takes them.
fn environment(fields: &Fields<'_>, report: &mut Reporter) -> Vec<Directive> {
    let mut pairs = pairs(fields, "environment", report);
    pairs.retain(|pair| {
        let name = pair.name.as_str();
        let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !good {
            let span = Span { length: crate::text::saturated(name.chars().count()).max(1), ..pair.span };
            report
                .error("invalid-name", span, format!("`{name}` is not a name for an environment variable"))
                .hint("letters, digits and `_`, no digit first; separate variables with spaces");
        }
        good
    });
    pairs
}

fn names<T>(fields: &Fields<'_>, key: &str, report: &mut Reporter) -> Vec<Spanned<T>>
where
    T: std::str::FromStr<Err: std::fmt::Display> + PartialEq,
{
    let mut names: Vec<Spanned<T>> = Vec::new();
    for word in fields.list(key, report) {
        let Some(name) = parse_name::<T>(word, report) else { continue };
        match names.iter().find(|n| n.value == name.value) {
            Some(first) => {
                report
                    .error("duplicate-value", name.span, format!("`{}` is named twice", word.as_str()))
                    .related(first.span, "first named here");
            }
            None => names.push(name),
        }
    }
    names
}

fn listens(fields: &Fields<'_>, report: &mut Reporter) -> Vec<Listen> {
    let Some(node) = fields.node("listens") else { return Vec::new() };
    let mut listens: Vec<Listen> = node
        .value
        .map(Text::list)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|word| listen(word, report))
        .collect();
    for item in items(node, report) {
        if item.children.iter().all(|line| line.key.is_none()) {
            listens.extend(plain_item(item, report).and_then(|word| listen(word, report)));
        } else {
            listens.extend(structured_listen(item, &LISTEN, report).map(|(listen, _)| listen));
        }
    }
    listens
}

/// `wg0:3000`, `localhost:5432`, `wg0:53/udp`.
fn listen(word: Text<'_>, report: &mut Reporter) -> Option<Listen> {
    let word = word.bare();
    let (place, protocol) = match word.split_once("/") {
        Some((place, protocol)) => match protocol.as_str() {
            "tcp" => (place, Protocol::Tcp),
            "udp" => (place, Protocol::Udp),
            other => {
                report
                    .error(
                        "listen-not-understood",
                        protocol.span(),
                        format!("`{other}` is not `tcp` or `udp`"),
                    )
                    .hint("write `wg0:53/udp` for UDP and nothing for TCP");
                return None;
            }
        },
        None => (word, Protocol::Tcp),
    };
    let Some((on, port)) = place.rsplit_once(":").filter(|(on, _)| !on.is_empty()) else {
        report
            .error(
                "listen-not-understood",
                word.span(),
                format!("`{}` is not `interface:port`", word.as_str()),
            )
            .hint("write `wg0:8000` or `localhost:5432`");
        return None;
    };
    let on = listen_on(on, report);
    let port = match values::parse_port(port.as_str()) {
        Ok(port) => port,
        Err(wrong) => {
            impossible("port", if port.is_empty() { word } else { port }, wrong, report);
            return None;
        }
    };
    Some(Listen { on: on?, port, protocol, span: word.span() })
}

fn listen_on(on: Text<'_>, report: &mut Reporter) -> Option<ListenOn> {
    match on.as_str() {
        "localhost" => return Some(ListenOn::Loopback),
        "127.0.0.1" | "[::1]" | "::1" | "lo" => {
            report
                .error(
                    "listen-not-understood",
                    on.span(),
                    format!("`{}` is written `localhost`", on.as_str()),
                )
                .hint("write `localhost:PORT`");
            return None;
        }
        "*" | "0.0.0.0" | "[::]" | "::" => {
            report
                .error(
                    "listens-everywhere",
                    on.span(),
                    format!("`{}` would listen on every interface", on.as_str()),
                )
                .hint("name the interface: `wg0:8000` for a plane, `eth0:443` for the public side");
            return None;
        }
        text if text.parse::<std::net::IpAddr>().is_ok() => {
            report
                .error(
                    "listen-not-understood",
                    on.span(),
                    format!("`{text}` is an address, not an interface"),
                )
                .hint("name the interface that has it: `wg0:8000`");
            return None;
        }
        _ => {}
    }
    let interface = parse_name::<InterfaceName>(on, report)?.value;
    let plane = super::network::plane_number(interface.as_str()).is_some();
    Some(if plane { ListenOn::Plane(interface) } else { ListenOn::Public(interface) })
}

fn structured_listen<'a>(
    item: &Node<'a>,
    section: &'static Section,
    report: &mut Reporter,
) -> Option<(Listen, Fields<'a>)> {
    let fields = Fields::of(section, item, report);
    let on = fields.text("on", report).and_then(|on| listen_on(on.bare(), report));
    let port = fields.integer::<u16>("port", report);
    let protocol = match fields.text("protocol", report).map(|p| p.bare().as_str()) {
        Some("udp") => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    Some((Listen { on: on?, port: port?.value, protocol, span: item.text.span() }, fields))
}

/// The containers, in the order written.
pub(super) fn lower_containers(node: &Node<'_>, report: &mut Reporter) -> Vec<Container> {
    super::fields::no_value(node, report);
    let mut containers: Vec<Container> = Vec::new();
    for item in items(node, report) {
        let Some(container) = container(item, report) else { continue };
        if let Some(first) = containers.iter().find(|c| c.name.value == container.name.value) {
            report
                .error(
                    "unit-twice",
                    container.name.span,
                    format!("`{}` is described twice", container.name.value),
                )
                .related(first.name.span, "first described here");
            continue;
        }
        containers.push(container);
    }
    containers
}

fn container(item: &Node<'_>, report: &mut Reporter) -> Option<Container> {
    let fields = Fields::of(&CONTAINER, item, report);
    let name = fields.parsed::<UnitName>("name", report);
    if let Some(name) = name.as_ref().filter(|name| name.as_str().ends_with(".service")) {
        report
            .error("invalid-name", name.span, format!("`{}` is a unit, a container has a name", name.value))
            .hint(format!("write `{}`", name.as_str().trim_end_matches(".service")));
    }
    let image =
        fields.text("image", report).map(Text::bare).and_then(|text| match check_image(text.as_str()) {
            Ok(()) => Some(text.with(text.as_str().to_owned())),
            Err(wrong) => {
                impossible("image", text, wrong, report);
                None
            }
        });
    let publish = arrows(&fields, "publish", &PUBLISH, publish, structured_publish, report);
    let mounts = arrows(&fields, "mount", &MOUNT, mount, structured_mount, report);
    let environment = environment(&fields, report);
    let secrets = names(&fields, "secrets", report);
    // Without an image there is still a name to check others against.
    let image = image.unwrap_or_else(|| Spanned::default_value(String::new()));
    Some(Container { name: name?, image, publish, mounts, environment, secrets })
}

/// What stands before and after `->`, from one line, from plain items, or from items with keys.
fn arrows<'a, T>(
    fields: &Fields<'a>,
    name: &str,
    section: &'static Section,
    read: fn(Text<'a>, Text<'a>, Text<'a>, &mut Reporter) -> Option<T>,
    read_keys: fn(&Node<'a>, &'static Section, &mut Reporter) -> Option<T>,
    report: &mut Reporter,
) -> Vec<T> {
    let Some(node) = fields.node(name) else { return Vec::new() };
    let mut found = Vec::new();
    let mut words = node.value.map(Text::list).unwrap_or_default();
    for item in items(node, report) {
        if item.children.iter().all(|line| line.key.is_none()) {
            words.extend(plain_item(item, report));
        } else {
            found.extend(read_keys(item, section, report));
        }
    }
    for word in words {
        match word.split_once("->").filter(|(from, to)| !from.is_empty() && !to.is_empty()) {
            Some((from, to)) => found.extend(read(word, from, to, report)),
            None => {
                let example = section.title.ends_with("publish");
                let form = if example { "wg1:3000 -> 3000" } else { "rpool/srv/grafana -> /var/lib/grafana" };
                report
                    .error(
                        "arrow-missing",
                        word.span(),
                        format!("`{}` does not say where it goes inside", word.as_str()),
                    )
                    .hint(format!("write `{name}: {form}`"));
            }
        }
    }
    found
}

fn publish(whole: Text<'_>, from: Text<'_>, to: Text<'_>, report: &mut Reporter) -> Option<Publish> {
    let listen = listen(from, report);
    let container_port =
        values::parse_port(to.as_str()).map_err(|wrong| impossible("port", to, wrong, report)).ok();
    Some(Publish { listen: Listen { span: whole.span(), ..listen? }, container_port: container_port? })
}

fn structured_publish(item: &Node<'_>, section: &'static Section, report: &mut Reporter) -> Option<Publish> {
    let (listen, fields) = structured_listen(item, section, report)?;
    let container_port = fields.integer::<u16>("to", report)?.value;
    Some(Publish { listen, container_port })
}

type Mount = (Spanned<DatasetName>, Spanned<String>);

fn mount(_: Text<'_>, from: Text<'_>, to: Text<'_>, report: &mut Reporter) -> Option<Mount> {
    let dataset = parse_name::<DatasetName>(from, report);
    let path = paths::check_absolute(to.as_str()).map_err(|wrong| impossible("path", to, wrong, report)).ok();
    Some((dataset?, path.map(|()| to.with(to.as_str().to_owned()))?))
}

fn structured_mount(item: &Node<'_>, section: &'static Section, report: &mut Reporter) -> Option<Mount> {
    let fields = Fields::of(section, item, report);
    let dataset = fields.parsed::<DatasetName>("dataset", report);
    let path = fields.string("path", report);
    Some((dataset?, path?))
}

/// An image reference that names one thing: registry, repository, and a digest or a tag other than `latest`.
fn check_image(image: &str) -> Result<(), Wrong> {
    let good = |t: &str, more: &[u8]| {
        !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let (registry, path) = name.split_once('/').unwrap_or(("", name));
    let (path, tag) = match path.rsplit_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (path, None),
    };
    if !(registry.contains('.') || registry.contains(':') || registry == "localhost") {
        return Err(Wrong::because("it does not say which registry")
            .hint(format!("for example `docker.io/library/{image}`")));
    }
    if !good(registry, b".:-") || !good(path, b"/._-") || path.starts_with('/') || path.ends_with('/') {
        return Err(
            Wrong::because("it is no image reference").hint("for example `docker.io/grafana/grafana:11.2.0`")
        );
    }
    match (digest, tag) {
        (Some(digest), _) => {
            let hex = digest.strip_prefix("sha256:").unwrap_or_default();
            if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()) {
                return Ok(());
            }
            Err(Wrong::because("a digest is `sha256:` and 64 hexadecimal digits"))
        }
        (None, Some("latest")) => Err(Wrong::because("`latest` is another image every week")
            .hint("name a version, or a digest: `@sha256:…`")),
        (None, Some(tag)) if good(tag, b"._-") => Ok(()),
        (None, Some(_)) => Err(Wrong::because("its tag holds letters, digits and `._-`")),
        (None, None) => Err(Wrong::because("without a tag it means `latest`")
            .hint("name a version, or a digest: `@sha256:…`")),
    }
}

#[cfg(test)]
mod tests {
    use super::check_image;

    #[test]
    fn images_name_one_thing() {
        let digest = "a".repeat(64);
        for good in ["docker.io/grafana/grafana:11.2.0", "localhost/x:1", "r.example:5000/a/b:1.0_x"] {
            assert_eq!(check_image(good), Ok(()), "{good}");
        }
        assert_eq!(check_image(&format!("docker.io/library/nginx@sha256:{digest}")), Ok(()));
        for bad in [
            "nginx",
            "nginx:1.27",
            "docker.io/nginx",
            "docker.io/nginx:latest",
            "docker.io/nginx@sha256:ab",
            "docker.io/a b:1",
            "",
        ] {
            assert!(check_image(bad).is_err(), "{bad}");
        }
    }
}
