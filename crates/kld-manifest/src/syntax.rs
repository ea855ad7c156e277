//! Lines → a tree of [`Node`]s with the place of every part; nothing here knows what a key means.
//!
//! The notation is the appliance manifest of the kldload construction-kit masterclass: nesting by indentation with
//! spaces, `key: value`, `- ` items, numbered steps, `//` and `#` comments, and `key: |` with a deeper block of literal
//! text. It looks like YAML and is not: values are free text up to the end of the line, so `TCP 80,443 (HTTPS only)` or
//! `gitea down >1m: page immediately` need no quotes.
//!
//! Limits: 1 MiB of UTF-8 text, lines of 8 KiB outside literal text, 16 levels.

use crate::diagnostic::Reporter;
use crate::span::{Span, Spanned};
use crate::text::{Quotes, Text, saturated};

/// Longest manifest, bytes.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Longest line outside literal text, bytes.
const MAX_LINE: usize = 8 << 10;
/// Deepest nesting. The deepest structured form needs 5.
const MAX_DEPTH: usize = 16;

/// How a node's line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
    /// Plain.
    Line,
    /// `- `; its content is in the children.
    Item,
    /// `3. `
    Step(u32),
    /// A word of a property list: `recordsize=128k`, or `NoNewPrivileges`, which has no value.
    Property,
}

/// One line with the deeper lines below it.
#[derive(Debug, Clone)]
pub(crate) struct Node<'a> {
    pub(crate) marker: Marker,
    /// The line without indentation, marker and comment.
    pub(crate) text: Text<'a>,
    /// What stands before `:`.
    pub(crate) key: Option<Text<'a>>,
    /// What stands after it; `None` when nothing does.
    pub(crate) value: Option<Text<'a>>,
    /// Literal text below `key: |`.
    pub(crate) block: Option<Spanned<String>>,
    pub(crate) children: Vec<Node<'a>>,
    /// Key or value is a `<placeholder>`: nothing can be said about it yet.
    pub(crate) pending: bool,
}

impl<'a> Node<'a> {
    pub(crate) fn span(&self) -> Span {
        self.key.unwrap_or(self.text).span()
    }

    /// True when this node or any below it still holds a placeholder.
    pub(crate) fn any_pending(&self) -> bool {
        self.pending || self.children.iter().any(Self::any_pending)
    }

    /// The words of the value as nodes of their own: `a=1 b` is what `a: 1` and `b` on deeper lines would be. A line with
    /// a placeholder has none: its words cannot be told apart yet.
    pub(crate) fn properties(&self) -> Vec<Node<'a>> {
        let words = self.value.filter(|_| !self.pending).map(Text::words).unwrap_or_default();
        words.into_iter().map(property).collect()
    }
}

fn property(word: Text<'_>) -> Node<'_> {
    let (key, value) = match word.as_str().find('=') {
        Some(at) => (word.slice(0, at), Some(word.from(at + 1))),
        None => (word, None),
    };
    Node {
        marker: Marker::Property,
        text: word,
        key: Some(key),
        value,
        block: None,
        children: vec![],
        pending: false,
    }
}

/// A line that says something.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    /// Index into the raw lines.
    index: usize,
    /// Column of the first character, from 0.
    indent: usize,
    content: Text<'a>,
}

/// Parses `text`; whatever is wrong goes to `report`, and the rest is still parsed.
pub(crate) fn parse<'a>(text: &'a str, report: &mut Reporter) -> Vec<Node<'a>> {
    if text.len() > MAX_BYTES {
        report
            .error("too-long", Span { line: 1, column: 1, length: 1 }, "the manifest is longer than 1 MiB")
            .hint("keep large files beside the manifest and name them in `files:`");
        return Vec::new();
    }
    let raw: Vec<&str> = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    let mut parser = Parser { raw, next: 0, pending_line: None, report };
    let mut nodes = parser.block(None, 0);
    mark_placeholders(&mut nodes, parser.report);
    nodes
}

struct Parser<'a, 'r> {
    raw: Vec<&'a str>,
    next: usize,
    /// The content of a `- ` item, looked at as a line of its own.
    pending_line: Option<Line<'a>>,
    report: &'r mut Reporter,
}

impl<'a> Parser<'a, '_> {
    /// The next line that is not blank, without consuming it.
    fn peek(&mut self) -> Option<Line<'a>> {
        if let Some(line) = self.pending_line {
            return Some(line);
        }
        while let Some(&raw) = self.raw.get(self.next) {
            let number = saturated(self.next + 1);
            let body = raw.trim_start_matches([' ', '\t']);
            let lead = &raw[..raw.len() - body.len()];
            let content = Text::new(raw, number, 1).from(lead.len());
            if body.len() > MAX_LINE {
                self.report
                    .error(
                        "too-long",
                        Span { line: number, column: 1, length: 1 },
                        "this line is longer than 8 KiB",
                    )
                    .hint("put long text in a file beside the manifest");
                self.next += 1;
                continue;
            }
            let content = strip_comment(content);
            if !content.is_empty() {
                if let Some(at) = lead.find('\t') {
                    let tabs = Text::new(raw, number, 1).slice(at, at + 1);
                    self.report
                        .error("tab-indentation", tabs.span(), "a tab in the indentation")
                        .hint("indent with spaces: how wide a tab is depends on who looks");
                }
                return Some(Line { index: self.next, indent: lead.len(), content });
            }
            self.next += 1;
        }
        None
    }

    fn consume(&mut self, line: &Line<'a>) {
        self.pending_line = None;
        self.next = line.index + 1;
    }

    /// The lines deeper than `parent`, as siblings with their own deeper lines.
    fn block(&mut self, parent: Option<usize>, depth: usize) -> Vec<Node<'a>> {
        let mut nodes: Vec<Node<'a>> = Vec::new();
        let mut indent = None;
        while let Some(line) = self.peek() {
            if parent.is_some_and(|parent| line.indent <= parent) {
                break;
            }
            let expected = *indent.get_or_insert(line.indent);
            if line.indent != expected {
                self.report
                    .error(
                        "indentation",
                        line.content.span(),
                        "this line stands at no level of what is around it",
                    )
                    .hint(format!("its neighbours begin in column {}", expected + 1));
            }
            if depth >= MAX_DEPTH {
                self.report.error(
                    "too-deep",
                    line.content.span(),
                    "lines are nested more than 16 levels deep",
                );
                self.consume(&line);
                self.skip_below(line.indent);
                continue;
            }
            let node = self.node(line, depth);
            nodes.push(node);
        }
        nodes
    }

    fn skip_below(&mut self, indent: usize) {
        while let Some(line) = self.peek().filter(|line| line.indent > indent) {
            self.consume(&line);
        }
    }

    fn node(&mut self, line: Line<'a>, depth: usize) -> Node<'a> {
        self.consume(&line);
        let text = line.content;
        if let Some(inner) = strip_dash(text) {
            if !inner.is_empty() {
                let column = (inner.span().column - text.span().column) as usize;
                self.pending_line = Some(Line { indent: line.indent + column, content: inner, ..line });
            }
            let children = self.block(Some(line.indent), depth + 1);
            let shown = if inner.is_empty() { text } else { inner };
            return Node {
                marker: Marker::Item,
                text: shown,
                key: None,
                value: None,
                block: None,
                children,
                pending: false,
            };
        }
        if let Some((number, inner)) = strip_number(text) {
            let children = self.block(Some(line.indent), depth + 1);
            let marker = Marker::Step(number);
            return Node {
                marker,
                text: inner,
                key: None,
                value: None,
                block: None,
                children,
                pending: false,
            };
        }
        let (key, value) = split_key(text);
        if key.is_some() && value.is_some_and(|v| v.as_str() == "|") {
            let block = Some(self.literal(line));
            return Node {
                marker: Marker::Line,
                text,
                key,
                value: None,
                block,
                children: Vec::new(),
                pending: false,
            };
        }
        let children = self.block(Some(line.indent), depth + 1);
        Node { marker: Marker::Line, text, key, value, block: None, children, pending: false }
    }

    /// The raw lines deeper than `line`, less their common indentation; blank lines at the end are dropped.
    fn literal(&mut self, line: Line<'a>) -> Spanned<String> {
        let first = self.next;
        let width = |raw: &str| raw.len() - raw.trim_start_matches([' ', '\t']).len();
        let mut end = first;
        while let Some(raw) = self.raw.get(self.next) {
            if !raw.trim().is_empty() {
                if width(raw) <= line.indent {
                    break;
                }
                end = self.next + 1;
            }
            self.next += 1;
        }
        let lines = &self.raw[first..end];
        let common = lines.iter().filter(|l| !l.trim().is_empty()).map(|l| width(l)).min().unwrap_or(0);
        let mut content = String::new();
        for raw in lines {
            content.push_str(raw.get(common..).unwrap_or_default());
            content.push('\n');
        }
        let span = match lines.iter().position(|l| !l.trim().is_empty()) {
            Some(at) => Text::new(lines[at], saturated(first + at + 1), 1).trim().span(),
            None => line.content.span(),
        };
        Spanned::new(content, span)
    }
}

/// The content without a trailing comment: `//` or `#` at the start or after white space, outside quotes.
fn strip_comment(content: Text<'_>) -> Text<'_> {
    let text = content.as_str();
    let mut quotes = Quotes::default();
    let mut after_space = true;
    for (at, c) in text.char_indices() {
        let quoted = quotes.inside(text, at, c);
        if !quoted && after_space && (c == '#' || text[at..].starts_with("//")) {
            return content.slice(0, at).trim();
        }
        after_space = c.is_whitespace();
    }
    content.trim()
}

fn strip_dash(text: Text<'_>) -> Option<Text<'_>> {
    if text.as_str() == "-" { Some(text.from(1)) } else { text.strip_prefix("- ") }
}

fn strip_number(text: Text<'_>) -> Option<(u32, Text<'_>)> {
    let (number, rest) = text.as_str().split_once('.')?;
    let value = number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok())??;
    (rest.is_empty() || rest.starts_with(' ')).then(|| (value, text.from(number.len() + 1).trim()))
}

/// A key ends at the first `:` outside quotes that white space or the end of the line follows.
fn split_key(text: Text<'_>) -> (Option<Text<'_>>, Option<Text<'_>>) {
    let line = text.as_str();
    let mut quotes = Quotes::default();
    for (at, c) in line.char_indices() {
        let rest = &line[at + c.len_utf8()..];
        if !quotes.inside(line, at, c)
            && c == ':'
            && at > 0
            && (rest.is_empty() || rest.starts_with([' ', '\t']))
        {
            let value = text.from(at + 1).trim();
            return (Some(text.slice(0, at).trim()), (!value.is_empty()).then_some(value));
        }
    }
    (None, None)
}

/// Each `<like this>` outside quotes: no white space just inside the brackets, so that shell redirections pass.
fn placeholders(text: Text<'_>) -> Vec<Text<'_>> {
    let line = text.as_str();
    let mut found = Vec::new();
    let mut quotes = Quotes::default();
    let mut open = None;
    for (at, c) in line.char_indices() {
        if quotes.inside(line, at, c) {
            continue;
        }
        match (c, open) {
            ('<', _) => {
                let next = line[at + 1..].chars().next();
                open = next.filter(|n| !n.is_whitespace() && !"<=>(&".contains(*n)).map(|_| at);
            }
            ('>', Some(start)) => {
                if !line[..at].ends_with(char::is_whitespace) {
                    found.push(text.slice(start, at + 1));
                }
                open = None;
            }
            _ => {}
        }
    }
    found
}

fn mark_placeholders(nodes: &mut [Node<'_>], report: &mut Reporter) {
    for node in nodes {
        // An item's own text is its first child.
        if node.marker != Marker::Item {
            for place in placeholders(node.text) {
                node.pending = true;
                report.placeholder(place.span(), format!("`{}` is still to be filled in", place.as_str()));
            }
        }
        mark_placeholders(&mut node.children, report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(text: &str) -> String {
        fn write(nodes: &[Node<'_>], depth: usize, out: &mut String) {
            for node in nodes {
                let mark = match node.marker {
                    Marker::Item => "- ".to_owned(),
                    Marker::Step(n) => format!("{n}. "),
                    Marker::Line | Marker::Property => String::new(),
                };
                let body = match (node.marker, node.key, node.value, &node.block) {
                    (Marker::Item, ..) => String::new(),
                    (_, Some(k), _, Some(b)) => format!("[{}] | {:?}", k.as_str(), b.value),
                    (_, Some(k), Some(v), None) => format!("[{}] {}", k.as_str(), v.as_str()),
                    (_, Some(k), None, None) => format!("[{}]", k.as_str()),
                    _ => node.text.as_str().to_owned(),
                };
                out.push_str(&format!("{}{mark}{body} @{}\n", "  ".repeat(depth), node.span()));
                write(&node.children, depth + 1, out);
            }
        }
        let mut report = Reporter::default();
        let nodes = parse(text, &mut report);
        let mut out = String::new();
        write(&nodes, 0, &mut out);
        for d in report.finish() {
            out.push_str(&format!("{}: {}\n", d.span, d.message));
        }
        out
    }

    #[test]
    fn a_tree_of_every_form() {
        let text = "// c\na: 1  # c\nb:\n  - k: v // c\n    l:  http://x/ y\n  - p q: r\n  -\n    z: 1\nc: |\n    x: 1\n\n      # y\nd:\n  1. do: it\n  2. http://x\n";
        expect_test::expect![[r#"
            [a] 1 @2:1
            [b] @3:1
              -  @4:5
                [k] v @4:5
                [l] http://x/ y @5:5
              -  @6:5
                [p q] r @6:5
              -  @7:3
                [z] 1 @8:5
            [c] | "x: 1\n\n  # y\n" @9:1
            [d] @13:1
              1. do: it @14:6
              2. http://x @15:6
        "#]]
        .assert_eq(&outline(text));
    }

    #[test]
    fn wrong_indentation_is_reported_and_the_rest_is_read() {
        expect_test::expect![[r#"
            [a] @1:1
              [b] 1 @2:5
              [c] 2 @3:3
              [d] 3 @4:2
            [e] 4 @5:1
            3:3: this line stands at no level of what is around it
            4:1: a tab in the indentation
            4:2: this line stands at no level of what is around it
        "#]]
        .assert_eq(&outline("a:\n    b: 1\n  c: 2\n\td: 3\ne: 4"));
    }

    #[test]
    fn nesting_and_length_have_limits() {
        let deep: String = (0..40).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        assert!(outline(&deep).contains("nested more than 16 levels"));
        let dashes = "- ".repeat(3000);
        assert!(outline(&dashes).contains("nested more than 16 levels"));
        assert!(outline(&"a".repeat(MAX_BYTES + 1)).contains("longer than 1 MiB"));
        assert!(outline(&"a".repeat(MAX_LINE + 1)).contains("longer than 8 KiB"));
    }

    #[test]
    fn redirections_are_not_placeholders() {
        let text = "a: cat <in >out 2>&1 <<EOF\nb: <x y> and <z>\nc: \"<q>\" a <b\n";
        let mut report = Reporter::default();
        parse(text, &mut report);
        let places: Vec<String> = report.finish().iter().map(|d| d.span.to_string()).collect();
        assert_eq!(places, ["2:4", "2:14"]);
    }
}
