//! A piece of one line of the manifest that knows where it stands.
//!
//! Everything the parser looks at is a [`Text`]: cutting one into words, lists or a key and a value keeps the place
//! of every part, so that an error can point at the exact word. Columns count characters, not bytes.

use crate::span::{Span, Spanned};

/// A borrowed piece of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Text<'a> {
    text: &'a str,
    line: u32,
    column: u32,
}

impl<'a> Text<'a> {
    /// `text` begins at `column` (from 1) of `line` (from 1).
    pub(crate) fn new(text: &'a str, line: u32, column: u32) -> Self {
        Self { text, line, column }
    }

    pub(crate) fn as_str(self) -> &'a str {
        self.text
    }

    pub(crate) fn is_empty(self) -> bool {
        self.text.is_empty()
    }

    pub(crate) fn span(self) -> Span {
        Span { line: self.line, column: self.column, length: saturated(self.text.chars().count()).max(1) }
    }

    /// `value`, with the place of this text.
    pub(crate) fn with<T>(self, value: T) -> Spanned<T> {
        Spanned::new(value, self.span())
    }

    /// The bytes `start..end`; both must be character boundaries of this text.
    pub(crate) fn slice(self, start: usize, end: usize) -> Self {
        let column = self.column + saturated(self.text[..start].chars().count());
        Self { text: &self.text[start..end], line: self.line, column }
    }

    pub(crate) fn from(self, start: usize) -> Self {
        self.slice(start, self.text.len())
    }

    pub(crate) fn trim(self) -> Self {
        let start = self.text.len() - self.text.trim_start().len();
        let end = self.text.trim_end().len();
        if start >= end { self.slice(0, 0) } else { self.slice(start, end) }
    }

    /// The parts before and after the first `separator`, trimmed.
    pub(crate) fn split_once(self, separator: &str) -> Option<(Self, Self)> {
        let at = self.text.find(separator)?;
        Some((self.slice(0, at).trim(), self.from(at + separator.len()).trim()))
    }

    pub(crate) fn rsplit_once(self, separator: &str) -> Option<(Self, Self)> {
        let at = self.text.rfind(separator)?;
        Some((self.slice(0, at).trim(), self.from(at + separator.len()).trim()))
    }

    /// The rest after `prefix`, trimmed.
    pub(crate) fn strip_prefix(self, prefix: &str) -> Option<Self> {
        self.text.starts_with(prefix).then(|| self.from(prefix.len()).trim())
    }

    /// Words between white space; a quoted part keeps its spaces.
    pub(crate) fn words(self) -> Vec<Self> {
        self.cut(|c| c.is_whitespace())
    }

    /// Parts between commas, trimmed, empty ones left out; commas in quotes or parentheses do not count.
    pub(crate) fn list(self) -> Vec<Self> {
        let mut depth = 0_u32;
        self.cut(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ',' && depth == 0
        })
    }

    fn cut(self, mut separates: impl FnMut(char) -> bool) -> Vec<Self> {
        let mut parts = Vec::new();
        let mut start = 0;
        let mut quotes = Quotes::default();
        for (at, c) in self.text.char_indices() {
            if !quotes.inside(self.text, at, c) && separates(c) {
                parts.push(self.slice(start, at).trim());
                start = at + c.len_utf8();
            }
        }
        parts.push(self.from(start).trim());
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// Without the quotes around all of it, when nothing inside is escaped: what is looked at word by word.
    pub(crate) fn bare(self) -> Self {
        match self.text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
            Some(inner) if !inner.contains(['"', '\\']) => self.slice(1, 1 + inner.len()).trim(),
            _ => self,
        }
    }

    /// The value meant: without its quotes when all of it is one quoted string.
    pub(crate) fn unquoted(self) -> String {
        let Some(inner) = self.text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else {
            return self.text.to_owned();
        };
        let mut value = String::with_capacity(inner.len());
        let mut chars = inner.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => return self.text.to_owned(),
                '\\' => match chars.next() {
                    Some(escaped @ ('"' | '\\')) => value.push(escaped),
                    Some(other) => value.extend(['\\', other]),
                    None => return self.text.to_owned(),
                },
                _ => value.push(c),
            }
        }
        value
    }
}

/// Follows quotes along a line. `"` opens anywhere it is closed again; `'` only at the start of a word, so that an
/// apostrophe is an apostrophe.
#[derive(Debug, Default)]
pub(crate) struct Quotes {
    open: Option<char>,
    escaped: bool,
}

impl Quotes {
    /// Whether the character `c` at byte `at` of `text` is inside quotes (the quotes themselves are).
    /// To be called for every character in order.
    pub(crate) fn inside(&mut self, text: &str, at: usize, c: char) -> bool {
        if let Some(open) = self.open {
            if self.escaped {
                self.escaped = false;
            } else if c == '\\' && open == '"' {
                self.escaped = true;
            } else if c == open {
                self.open = None;
            }
            return true;
        }
        let starts_word =
            text[..at].chars().next_back().is_none_or(|b| b.is_whitespace() || "=:(,".contains(b));
        if (c == '"' || (c == '\'' && starts_word)) && text[at + 1..].contains(c) {
            self.open = Some(c);
            return true;
        }
        false
    }
}

/// Counts fit: a manifest has at most 1 MiB.
pub(crate) fn saturated(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Text<'_> {
        Text::new(text, 1, 1)
    }

    fn parts(parts: &[Text<'_>]) -> Vec<(String, u32)> {
        parts.iter().map(|p| (p.as_str().to_owned(), p.span().column)).collect()
    }

    #[test]
    fn words_and_lists_keep_their_places() {
        assert_eq!(parts(&text(" a  bé c").words()), [("a".into(), 2), ("bé".into(), 5), ("c".into(), 8)]);
        assert_eq!(
            parts(&text(r#"k="a b" it's x"#).words()),
            [(r#"k="a b""#.into(), 1), ("it's".into(), 9), ("x".into(), 14)]
        );
        assert_eq!(parts(&text("é, b (c, d),").list()), [("é".into(), 1), ("b (c, d)".into(), 4)]);
    }

    #[test]
    fn only_one_whole_quoted_string_loses_its_quotes() {
        for (written, meant) in [
            (r#""a b""#, "a b"),
            (r#""a \"b\" \\ \n""#, r#"a "b" \ \n"#),
            (r#""a" "b""#, r#""a" "b""#),
            (r#"""#, r#"""#),
            (r#""a\""#, r#""a\""#),
            ("plain", "plain"),
        ] {
            assert_eq!(text(written).unquoted(), meant, "{written}");
        }
    }
}
