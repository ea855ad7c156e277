//! What is wrong with a manifest, where, and what to do about it; and how that is shown.

use crate::span::Span;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// No machine can be made from this.
    Error,
    /// A `<placeholder>` that nobody has filled in yet; no machine can be made either.
    Placeholder,
    /// A machine can be made, but somebody should look.
    Warning,
}

/// One thing to say about a manifest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Stable name of the kind of problem (`unknown-key`), for programs.
    pub code: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    /// Where. Line 0 when it is about the manifest as a whole.
    pub span: Span,
    /// What the user can do about it.
    pub hint: Option<String>,
    /// Other places that matter, each with why (`first used here`).
    pub related: Vec<(Span, String)>,
}

impl Diagnostic {
    /// Adds what the user can do.
    pub(crate) fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a hint when there is one.
    pub(crate) fn maybe_hint(&mut self, hint: Option<String>) -> &mut Self {
        self.hint = hint.or(self.hint.take());
        self
    }

    /// Adds another place, unless it is a default that stands nowhere.
    pub(crate) fn related(&mut self, span: Span, why: impl Into<String>) -> &mut Self {
        if span.is_written() {
            self.related.push((span, why.into()));
        }
        self
    }
}

/// Collects diagnostics.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    found: Vec<Diagnostic>,
}

impl Reporter {
    pub(crate) fn error(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.add(Severity::Error, code, span, message.into())
    }

    pub(crate) fn warning(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.add(Severity::Warning, code, span, message.into())
    }

    pub(crate) fn placeholder(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Severity::Placeholder, "placeholder", span, message.into())
    }

    fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        span: Span,
        message: String,
    ) -> &mut Diagnostic {
        let at = self.found.len();
        self.found.push(Diagnostic { severity, code, message, span, hint: None, related: Vec::new() });
        &mut self.found[at]
    }

    /// True when no machine can be made.
    pub(crate) fn refuses(&self) -> bool {
        self.found.iter().any(|d| d.severity != Severity::Warning)
    }

    /// Everything found, by line and column, each thing once.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by(|a, b| (a.span, a.severity, a.code).cmp(&(b.span, b.severity, b.code)));
        self.found.dedup_by(|a, b| a.span == b.span && a.code == b.code && a.message == b.message);
        self.found
    }
}

/// One diagnostic as plain text, with the line it is about and a caret under the words:
///
/// ```text
/// error: `3k` is not a record size: it must be a power of two from 512 to 16M
///   --> appliance.manifest:7:33
///    |
///  7 |   rpool/srv/webapp:  recordsize=3k
///    |                                 ^^
///    = hint: try `recordsize=4k`
/// ```
///
/// `file` is the name to show; `text` is the manifest that was checked. Ends with a newline.
pub fn render(file: &str, text: &str, diagnostic: &Diagnostic) -> String {
    let title = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Placeholder => "to fill in",
    };
    let related = &diagnostic.related;
    let last = related.iter().map(|(span, _)| span.line).chain([diagnostic.span.line]).max().unwrap_or(0);
    let gutter = last.to_string().len().max(2);
    let pad = " ".repeat(gutter);
    let mut out = format!("{title}: {}\n", printable(&diagnostic.message));
    if diagnostic.span.is_written() {
        out.push_str(&format!("{pad}--> {file}:{}\n", diagnostic.span));
        let (hidden_from, span) = hidden(diagnostic);
        out.push_str(&snippet(text, span, hidden_from, gutter, '^', ""));
    } else {
        out.push_str(&format!("{pad}--> {file}\n"));
    }
    for (span, why) in related {
        out.push_str(&format!("{pad}::: {file}:{span}\n"));
        out.push_str(&snippet(text, *span, u32::MAX, gutter, '-', &printable(why)));
    }
    if let Some(hint) = &diagnostic.hint {
        out.push_str(&format!("{pad} = hint: {}\n", printable(hint)));
    }
    out
}

/// The column from which a line is not shown, and what is marked then. A line that may hold a secret ends before it: what
/// is printed is copied into tickets and build logs.
fn hidden(diagnostic: &Diagnostic) -> (u32, Span) {
    let span = diagnostic.span;
    match diagnostic.code {
        "private-key" | "password-in-clear" => (span.column.saturating_add(span.length), span),
        "secret-in-clear" | "not-a-hash" | "not-a-public-key" => (span.column, Span { length: 1, ..span }),
        _ => (u32::MAX, span),
    }
}

/// The line of `span` up to `hidden_from`, and marks under its characters.
fn snippet(text: &str, span: Span, hidden_from: u32, gutter: usize, mark: char, label: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let line = text.split('\n').nth(span.line as usize - 1).unwrap_or_default();
    let line = line.strip_suffix('\r').unwrap_or(line);
    let (mut shown, mut before, mut marked) = (String::new(), 0, 0);
    for (at, c) in (1..).zip(line.chars()) {
        let (glyph, width) = if at == hidden_from { ('…', 1) } else { cell(c) };
        if at > hidden_from {
            break;
        }
        if at < span.column {
            before += width;
        } else if at < span.column + span.length {
            marked += width;
        }
        shown.push_str(glyph.encode_utf8(&mut [0; 4]).repeat(if c == '\t' { width } else { 1 }).as_str());
    }
    let pad = " ".repeat(gutter);
    let marks = mark.to_string().repeat(marked.max(1));
    let under = format!("{}{marks} {label}", " ".repeat(before));
    format!("{pad} |\n{:>gutter$} | {}\n{pad} | {}\n", span.line, shown.trim_end(), under.trim_end())
}

/// What is shown for a character, and how many columns a terminal gives it. Tabs become spaces; control characters,
/// which could write anything on the reader's terminal, become a mark.
fn cell(c: char) -> (char, usize) {
    match c {
        '\t' => (' ', 4),
        _ => {
            let c = if is_hostile(c) { '\u{fffd}' } else { c };
            (c, unicode_width::UnicodeWidthChar::width(c).unwrap_or(1))
        }
    }
}

/// Control characters, and those that change the direction of what follows.
fn is_hostile(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if is_hostile(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(line: u32, column: u32, length: u32) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            code: "x",
            message: "m".into(),
            span: Span { line, column, length },
            hint: Some("h".into()),
            related: vec![(Span { line: 1, column: 1, length: 1 }, "first".into())],
        }
    }

    #[test]
    fn carets_stay_under_wide_characters_and_tabs() {
        let text = "a\r\n\t日本 = x\u{1b}[31m\r\n";
        expect_test::expect![[r#"
            error: m
              --> f:2:7
               |
             2 |     日本 = x�[31m
               |            ^
              ::: f:1:1
               |
             1 | a
               | - first
               = hint: h
        "#]]
        .assert_eq(&render("f", text, &diagnostic(2, 7, 1)));
        expect_test::expect![[r#"
            error: m
              --> f:2:2
               |
             2 |     日本 = x�[31m
               |     ^^^^
              ::: f:1:1
               |
             1 | a
               | - first
               = hint: h
        "#]]
        .assert_eq(&render("f", text, &diagnostic(2, 2, 2)));
    }
}
