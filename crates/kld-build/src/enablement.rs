//! What `systemctl enable`, `disable` and `mask` do, on a tree that no systemd runs in.
//!
//! The `[Install]` section of a unit names its links (systemd.unit(5)): `WantedBy=` and `RequiredBy=` put one
//! into `TARGET.wants/` or `TARGET.requires/`, `Alias=` makes another name, `Also=` names further units, and a
//! template is enabled as an instance.

use std::collections::BTreeSet;

/// Where packages install units, first match wins; `/etc` comes first because a file there replaces theirs.
pub(crate) const UNIT_DIRS: [&str; 3] =
    ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// Where links are made.
pub(crate) const LINK_DIR: &str = "/etc/systemd/system";

/// What an `[Install]` section asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Install {
    /// Links to make, relative to [`LINK_DIR`].
    pub(crate) links: BTreeSet<String>,
    /// Units to enable as well.
    pub(crate) also: BTreeSet<String>,
}

/// Reads the `[Install]` section of the unit file of `unit` (`nftables.service`, `postgresql@17-main.service`).
pub(crate) fn parse_install(unit: &str, text: &str) -> Install {
    let mut install = Install::default();
    let mut inside = false;
    for line in join_continued(text) {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line == "[Install]";
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| inside && !line.starts_with(['#', ';']))
        else {
            continue;
        };
        let words = value.split_whitespace().map(|word| expand(unit, word));
        match key.trim() {
            "WantedBy" => install.links.extend(words.map(|target| format!("{target}.wants/{unit}"))),
            "RequiredBy" => install.links.extend(words.map(|target| format!("{target}.requires/{unit}"))),
            "Alias" => install.links.extend(words),
            "Also" => install.also.extend(words),
            _ => {}
        }
    }
    install
}

/// The name of the file that defines a unit: an instance is defined by its template.
pub(crate) fn definition_of(unit: &str) -> String {
    match (unit.split_once('@'), unit.rsplit_once('.')) {
        (Some((prefix, _)), Some((_, suffix))) => format!("{prefix}@.{suffix}"),
        _ => unit.to_owned(),
    }
}

/// A line that ends in a backslash goes on in the next.
fn join_continued(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let (body, continues) = line.strip_suffix('\\').map_or((line, false), |body| (body, true));
        match lines.last_mut().filter(|_| open) {
            Some(last) => {
                last.push(' ');
                last.push_str(body);
            }
            None => lines.push(body.to_owned()),
        }
        open = continues;
    }
    lines
}

/// The specifiers that `[Install]` sections use: `%i` instance, `%p` prefix, `%n` full name, `%%`.
fn expand(unit: &str, word: &str) -> String {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let mut out = String::with_capacity(word.len());
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        match (c, c == '%') {
            (_, false) => out.push(c),
            (_, true) => match chars.next() {
                Some('i' | 'I') => out.push_str(instance),
                Some('p' | 'P') => out.push_str(prefix),
                Some('n') => out.push_str(unit),
                Some('%') => out.push('%'),
                other => {
                    out.push('%');
                    out.extend(other);
                }
            },
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(unit: &str, text: &str) -> Vec<String> {
        parse_install(unit, text).links.into_iter().collect()
    }

    #[test]
    fn wanted_required_and_aliased() {
        let text = "[Unit]\nWantedBy=not-here.target\n[Install]\nWantedBy=sysinit.target multi-user.target\n\
                    # WantedBy=comment.target\nRequiredBy=a.service\nAlias=b.service\n";
        assert_eq!(
            links("x.service", text),
            [
                "a.service.requires/x.service",
                "b.service",
                "multi-user.target.wants/x.service",
                "sysinit.target.wants/x.service"
            ]
        );
    }

    #[test]
    fn instances_come_from_templates() {
        assert_eq!(definition_of("postgresql@17-main.service"), "postgresql@.service");
        assert_eq!(definition_of("ssh.service"), "ssh.service");
        let text = "[Install]\nWantedBy=multi-user.target\nAlias=%p-%i.service\n";
        assert_eq!(
            links("postgresql@17-main.service", text),
            ["multi-user.target.wants/postgresql@17-main.service", "postgresql-17-main.service"]
        );
    }

    #[test]
    fn also_and_continued_lines() {
        let install =
            parse_install("a.service", "[Install]\nAlso=b.socket \\\n  c.timer\nWantedBy=\\\nx.target\n");
        assert_eq!(install.also.into_iter().collect::<Vec<_>>(), ["b.socket", "c.timer"]);
        assert_eq!(install.links.into_iter().collect::<Vec<_>>(), ["x.target.wants/a.service"]);
    }
}
