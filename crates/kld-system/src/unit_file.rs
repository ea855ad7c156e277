//! systemd unit files and drop-ins as typed directives, each with its reason; text comes last.
//!
//! Follows systemd.syntax(7). Values are written as given: whoever makes a directive gives it in systemd's notation.

use std::fmt;

use crate::system::{Because, Item, SystemFile};

/// A section of a unit file, in the order people expect to read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Section {
    Unit,
    Service,
    Container,
    Timer,
    Install,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unit => "Unit",
            Self::Service => "Service",
            Self::Container => "Container",
            Self::Timer => "Timer",
            Self::Install => "Install",
        })
    }
}

/// One `Name=value` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitDirective {
    pub(crate) section: Section,
    pub(crate) name: String,
    pub(crate) value: String,
}

impl fmt::Display for UnitDirective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

/// A unit file or a drop-in under construction.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnitFile {
    directives: Vec<Item<UnitDirective>>,
}

impl UnitFile {
    /// Adds a line; a name may come several times.
    pub(crate) fn add(&mut self, section: Section, name: &str, value: impl Into<String>, because: Because) {
        let directive = UnitDirective { section, name: name.to_owned(), value: value.into() };
        self.directives.push(Item::new(directive, because));
    }

    /// Replaces every line of that name in the section by this one.
    pub(crate) fn replace(
        &mut self,
        section: Section,
        name: &str,
        value: impl Into<String>,
        because: Because,
    ) {
        self.directives.retain(|d| d.value.section != section || d.value.name != name);
        self.add(section, name, value, because);
    }

    /// The finished file.
    pub(crate) fn into_file(mut self, path: impl Into<String>, because: Because) -> SystemFile {
        self.directives.sort_by_key(|d| d.value.section);
        let mut text = format!(
            "# {}.\n# Written by kldload; `kldload explain` gives the reason of every line.\n",
            sentence(&because.reason)
        );
        let mut current = None;
        for directive in &self.directives {
            if current != Some(directive.value.section) {
                current = Some(directive.value.section);
                text.push_str(&format!("\n[{}]\n", directive.value.section));
            }
            text.push_str(&format!("{}\n", directive.value));
        }
        let parts = self.directives.into_iter().map(|d| Item::new(d.value.to_string(), d.because)).collect();
        SystemFile::text(path, text, because).with_parts(parts)
    }
}

/// A reason as the first sentence of a comment. Names of programs and units keep their first letter.
pub(crate) fn sentence(reason: &str) -> String {
    let first_word = reason.split(' ').next().unwrap_or_default();
    if !first_word.bytes().all(|b| b.is_ascii_lowercase()) {
        return reason.to_owned();
    }
    let mut letters = reason.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Quotes an argument for `ExecStart=` and `Environment=` (systemd.syntax(7), "Quoting"): only when it needs it.
/// `%` is doubled, because specifiers are resolved inside quotes too; `$` is left to [`escape_dollar`].
pub(crate) fn quote(argument: &str) -> String {
    let escaped = argument.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('\n', "\\n");
    let plain =
        !argument.is_empty() && !argument.contains(|c: char| c.is_whitespace() || "\"'\\;".contains(c));
    if plain { escaped } else { format!("\"{escaped}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_only_when_they_need_it() {
        for (argument, quoted) in [
            ("PORT=8000", "PORT=8000"),
            ("", "\"\""),
            ("GREETING=hello world", "\"GREETING=hello world\""),
            ("Q=say \"hi\"", "\"Q=say \\\"hi\\\"\""),
            ("P=100%", "P=100%%"),
            ("B=a\\b", "\"B=a\\\\b\""),
            ("N=a\nb", "\"N=a\\nb\""),
        ] {
            assert_eq!(quote(argument), quoted, "{argument}");
        }
    }

    #[test]
    fn a_reason_becomes_a_sentence_unless_it_begins_with_a_name() {
        assert_eq!(sentence("what may come in"), "What may come in");
        assert_eq!(sentence("node_exporter listens on wg1 only"), "node_exporter listens on wg1 only");
        assert_eq!(sentence("postgresql@17-main: sandboxed"), "postgresql@17-main: sandboxed");
    }
}
