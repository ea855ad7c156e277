//! Reads nodes through the table of keys: what is not in the table, is there twice or is missing is reported here, so
//! that the sections only say what they want.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::diagnostic::Reporter;
use crate::keys::{Key, Section, refused_key};
use crate::nearest::did_you_mean;
use crate::span::{Span, Spanned};
use crate::syntax::{Marker, Node};
use crate::text::Text;
use crate::values::{self, Wrong};

/// The keys of one section, each at most once.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    owner: Span,
    entries: Vec<(&'static Key, Node<'a>)>,
    /// Every line was understood; if not, a key that is missing may be on the line that was not.
    complete: bool,
}

impl<'a> Fields<'a> {
    /// Reads `nodes` as keys of `section`; `owner` is the place to name when a required key is missing.
    pub(crate) fn read(
        section: &'static Section,
        owner: Span,
        nodes: impl IntoIterator<Item = Node<'a>>,
        report: &mut Reporter,
    ) -> Self {
        let mut fields = Self { owner, entries: Vec::new(), complete: true };
        for node in nodes {
            fields.complete &= fields.accept(section, node, report);
        }
        for key in section.keys.iter().filter(|key| key.required && fields.complete) {
            if !fields.has(key.name) {
                let what = if owner.is_written() { "here" } else { "in the manifest" };
                report
                    .error("missing-key", owner, format!("`{}` is missing {what}", key.name))
                    .hint(format!("for example `{}`", key.example.lines().next().unwrap_or_default()));
            }
        }
        fields
    }

    /// The keys of `node`: its property list, its deeper lines, or both.
    pub(crate) fn of(section: &'static Section, node: &Node<'a>, report: &mut Reporter) -> Self {
        let nodes = node.properties().into_iter().chain(node.children.iter().cloned());
        Self::read(section, node.span(), nodes, report)
    }

    /// False when the line may have been meant to be a key that is then missing.
    fn accept(&mut self, section: &'static Section, node: Node<'a>, report: &mut Reporter) -> bool {
        let Some(written) = node.key.filter(|_| matches!(node.marker, Marker::Line | Marker::Property))
        else {
            if !node.any_pending() {
                report
                    .error("expected-key", node.text.span(), "a key is wanted here")
                    .hint(format!("write `key: value`; the keys are {}", names(section)));
            }
            return false;
        };
        if node.key.is_some_and(|key| key.as_str().contains('<')) && node.pending {
            return false;
        }
        let name = written.as_str();
        let Some(key) = section.key(name) else {
            if let Some((code, message, hint)) = refused_key(name) {
                report.error(code, written.span(), message).hint(hint);
            } else {
                let meant = did_you_mean(name, section.keys.iter().map(|key| key.name));
                let hint = meant.unwrap_or_else(|| format!("the keys are {}", names(section)));
                report
                    .error("unknown-key", written.span(), format!("`{name}` is not a key of {}", section.one))
                    .hint(hint);
            }
            return false;
        };
        if let Some((_, first)) = self.entries.iter().find(|(k, _)| k.name == key.name) {
            report
                .error("duplicate-key", written.span(), format!("`{name}` is written twice"))
                .related(first.span(), "first written here");
            return true;
        }
        self.entries.push((key, node));
        true
    }

    pub(crate) fn owner(&self) -> Span {
        self.owner
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, _)| key.name == name)
    }

    /// Where a key is written.
    pub(crate) fn span(&self, name: &str) -> Option<Span> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node.span())
    }

    /// The node of a key; `None` when it is not written or still a placeholder.
    pub(crate) fn node(&self, name: &str) -> Option<&Node<'a>> {
        self.entries
            .iter()
            .find(|(key, _)| key.name == name)
            .map(|(_, node)| node)
            .filter(|node| !node.pending)
    }

    /// Every key that is left, in the order written.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'static Key, &Node<'a>)> {
        self.entries.iter().map(|(key, node)| (*key, node))
    }

    /// The value of a key with one value, checked against its kind.
    pub(crate) fn text(&self, name: &str, report: &mut Reporter) -> Option<Text<'a>> {
        let (key, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        scalar(key, node, report)
    }

    /// The same, without quotes.
    pub(crate) fn string(&self, name: &str, report: &mut Reporter) -> Option<Spanned<String>> {
        let text = self.text(name, report)?;
        Some(text.with(text.unquoted()))
    }

    /// The value as a type that checks itself.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(
        &self,
        name: &str,
        report: &mut Reporter,
    ) -> Option<Spanned<T>> {
        parse_name(self.text(name, report)?.bare(), report)
    }

    pub(crate) fn integer<N: TryFrom<u64>>(&self, name: &str, report: &mut Reporter) -> Option<Spanned<N>> {
        let text = self.text(name, report)?.bare();
        let number: u64 = text.as_str().parse().ok()?;
        N::try_from(number).ok().map(|number| text.with(number))
    }

    pub(crate) fn duration(&self, name: &str, report: &mut Reporter) -> Option<Spanned<Duration>> {
        let text = self.text(name, report)?.bare();
        values::parse_duration(text.as_str()).ok().map(|duration| text.with(duration))
    }

    /// A flag: `name`, `name=yes` or `name: yes`.
    pub(crate) fn flag(&self, name: &str, report: &mut Reporter) -> Option<Spanned<bool>> {
        let (key, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        if node.marker == Marker::Property && node.value.is_none() {
            return Some(node.text.with(true));
        }
        let text = scalar(key, node, report)?.bare();
        values::parse_flag(text.as_str()).ok().map(|flag| text.with(flag))
    }

    /// The words of a list: separated by commas, or one per `- ` item.
    pub(crate) fn list(&self, name: &str, report: &mut Reporter) -> Vec<Text<'a>> {
        let Some(node) = self.node(name) else { return Vec::new() };
        let mut words = node.value.map(Text::list).unwrap_or_default();
        words.extend(plain_items(node, report));
        if words.is_empty() && !node.any_pending() && !node.children.iter().any(|c| c.marker != Marker::Item)
        {
            report.error("missing-value", node.span(), format!("`{name}` is empty"));
        }
        words.into_iter().map(Text::bare).collect()
    }
}

/// A value that must be there and stand alone, checked against the key's kind.
pub(crate) fn scalar<'a>(key: &'static Key, node: &Node<'a>, report: &mut Reporter) -> Option<Text<'a>> {
    if node.pending {
        return None;
    }
    no_deeper_lines(node, report);
    if let Some(block) = &node.block {
        report
            .error("unexpected-lines", block.span, format!("`{}` takes one line, not a block", key.name))
            .hint("write the value behind the colon");
        return None;
    }
    let Some(value) = node.value.filter(|value| !value.is_empty()) else {
        if node.children.is_empty() {
            report
                .error("missing-value", node.span(), format!("`{}` has no value", key.name))
                .hint(format!("for example `{}`", key.example.lines().next().unwrap_or_default()));
        }
        return None;
    };
    match key.kind.check(&value.unquoted()) {
        Ok(()) => Some(value),
        Err(wrong) => {
            if key.name == "password_hash" {
                // The text is not repeated: it may be the password.
                report
                    .error(
                        "not-a-hash",
                        value.span(),
                        format!("this is not a password hash: {}", wrong.reason),
                    )
                    .maybe_hint(wrong.hint);
                return None;
            }
            let listed = node.marker == Marker::Property && value.as_str().ends_with(',');
            let wrong =
                if listed { wrong.hint("separate properties with spaces, not commas") } else { wrong };
            impossible(key.name, value, wrong, report);
            None
        }
    }
}

/// Reports a value that a key cannot have.
pub(crate) fn impossible(name: &str, value: Text<'_>, wrong: Wrong, report: &mut Reporter) {
    let message = format!("`{}` is not a possible `{name}`: {}", value.as_str(), wrong.reason);
    report.error("impossible-value", value.span(), message).maybe_hint(wrong.hint);
}

/// A word as a type that checks itself; its error says what the word is not.
pub(crate) fn parse_name<T: FromStr<Err: Display>>(
    text: Text<'_>,
    report: &mut Reporter,
) -> Option<Spanned<T>> {
    match text.as_str().parse() {
        Ok(value) => Some(text.with(value)),
        Err(error) => {
            let several = text.as_str().contains(char::is_whitespace);
            report
                .error("invalid-name", text.span(), error.to_string())
                .maybe_hint(several.then(|| "separate several with commas".to_owned()));
            None
        }
    }
}

/// Reports lines below a value that has none.
pub(crate) fn no_deeper_lines(node: &Node<'_>, report: &mut Reporter) {
    if let Some(child) = node.children.first() {
        let name = node.key.unwrap_or(node.text);
        report
            .error(
                "unexpected-lines",
                child.text.span(),
                format!("nothing may stand below `{}`", name.as_str()),
            )
            .hint("write the value on one line, behind the colon");
    }
}

/// The names of a map section with their nodes; names that are placeholders are left out.
pub(crate) fn map_entries<'n, 'a>(
    node: &'n Node<'a>,
    what: &str,
    report: &mut Reporter,
) -> Vec<(Text<'a>, &'n Node<'a>)> {
    no_value(node, report);
    let mut entries = Vec::new();
    for child in &node.children {
        match child.key.filter(|_| child.marker == Marker::Line) {
            Some(key) if child.pending && key.as_str().contains('<') => {}
            Some(key) => entries.push((key.bare(), child)),
            None if child.any_pending() => {}
            None => {
                report
                    .error("expected-key", child.text.span(), format!("one of the {what} is wanted here"))
                    .hint("write `name: value`, or `name:` with deeper lines below");
            }
        }
    }
    entries
}

/// The `- ` items below a node.
pub(crate) fn items<'n, 'a>(node: &'n Node<'a>, report: &mut Reporter) -> Vec<&'n Node<'a>> {
    let (mut items, mut told) = (Vec::new(), false);
    for child in &node.children {
        if child.marker == Marker::Item {
            if child.children.is_empty() {
                report.error("missing-value", child.text.span(), "this item is empty");
            } else {
                items.push(child);
            }
        } else if !child.any_pending() && !told {
            told = true;
            report
                .error("expected-item", child.text.span(), "an item is wanted here")
                .hint("begin it with `- `");
        }
    }
    items
}

/// The item's line when it is plain text and nothing stands below it.
pub(crate) fn plain_item<'a>(item: &Node<'a>, report: &mut Reporter) -> Option<Text<'a>> {
    let (line, more) = item.children.split_first()?;
    if let Some(extra) = more.first().or(line.children.first()) {
        report
            .error("unexpected-lines", extra.text.span(), "nothing may stand below this item")
            .hint("write each item on one line");
    }
    (!line.pending).then_some(line.text)
}

fn plain_items<'a>(node: &Node<'a>, report: &mut Reporter) -> Vec<Text<'a>> {
    items(node, report).into_iter().filter_map(|item| plain_item(item, report)).collect()
}

/// Reports a value behind a key that has only deeper lines.
pub(crate) fn no_value(node: &Node<'_>, report: &mut Reporter) {
    if let (Some(key), Some(value)) = (node.key, node.value.filter(|_| !node.pending)) {
        report
            .error(
                "unexpected-value",
                value.span(),
                format!("`{}` takes deeper lines, not a value", key.as_str()),
            )
            .hint("write the entries on lines of their own below it, indented");
    }
}

fn names(section: &Section) -> String {
    let names: Vec<String> = section.keys.iter().take(12).map(|key| format!("`{}`", key.name)).collect();
    let more = if section.keys.len() > names.len() { ", …" } else { "" };
    format!("{}{more}", names.join(", "))
}
