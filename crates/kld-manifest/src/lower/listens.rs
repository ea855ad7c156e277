//! Where services and containers listen: `wg0:3000`, `localhost:5432`, `wg0:53/udp`, or keys.

use super::fields::{Fields, impossible, items, parse_name, plain_item};
use crate::diagnostic::Reporter;
use crate::keys::{LISTEN, Section};
use crate::model::{Listen, ListenOn, Protocol};
use crate::names::InterfaceName;
use crate::syntax::Node;
use crate::text::Text;
use crate::values;

/// Every place of `listens:`.
pub(super) fn listens(fields: &Fields<'_>, report: &mut Reporter) -> Vec<Listen> {
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
pub(super) fn listen(word: Text<'_>, report: &mut Reporter) -> Option<Listen> {
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

pub(super) fn structured_listen<'a>(
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
