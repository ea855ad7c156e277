//! `containers`: images, published ports, mounted datasets.

use super::fields::{Fields, impossible, items, no_value, parse_name, plain_item};
use super::listens::{listen, structured_listen};
use super::paths;
use super::services::{environment, names};
use crate::diagnostic::Reporter;
use crate::keys::{CONTAINER, MOUNT, PUBLISH, Section};
use crate::model::{Container, Listen, Publish};
use crate::names::{DatasetName, UnitName};
use crate::span::Spanned;
use crate::syntax::Node;
use crate::text::Text;
use crate::values::{self, Wrong};

/// The containers, in the order written.
pub(super) fn lower(node: &Node<'_>, report: &mut Reporter) -> Vec<Container> {
    no_value(node, report);
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
    let capabilities = names(&fields, "capabilities", report);
    // Without an image there is still a name to check others against.
    let image = image.unwrap_or_else(|| Spanned::default_value(String::new()));
    Some(Container { name: name?, image, publish, mounts, environment, secrets, capabilities })
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
