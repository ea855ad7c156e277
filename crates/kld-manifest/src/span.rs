//! Where a value stands in a manifest.

use std::fmt;

/// A place in the manifest text: one line, a range of characters in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
pub struct Span {
    /// Line, counted from 1. 0 means "not written in the manifest" (a default).
    pub line: u32,
    /// First character, counted from 1.
    pub column: u32,
    /// Length in characters, at least 1 for a written value.
    pub length: u32,
}

impl Span {
    /// The span of a value that the manifest does not write down: a default.
    pub const DEFAULT: Self = Self { line: 0, column: 0, length: 0 };

    /// True when the value was written by a person, false for a default.
    pub fn is_written(self) -> bool {
        self.line > 0
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_written() { write!(f, "{}:{}", self.line, self.column) } else { f.write_str("default") }
    }
}

/// A value with the place it was written at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// A value and its place.
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }

    /// A value that no line of the manifest states.
    pub fn default_value(value: T) -> Self {
        Self { value, span: Span::DEFAULT }
    }
}

impl<T> std::ops::Deref for Spanned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}
