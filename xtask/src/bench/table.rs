//! Tables as docs/benchmarks.md has them.

use std::fmt;

/// A table whose first column is text and whose others are numbers.
pub(super) struct Markdown {
    lines: Vec<String>,
}

impl Markdown {
    pub(super) fn new(header: &[&str]) -> Markdown {
        let rule = format!("|---|{}", "---:|".repeat(header.len() - 1));
        Markdown { lines: vec![format!("| {} |", header.join(" | ")), rule] }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.lines.push(format!("| {} |", cells.join(" | ")));
    }
}

impl fmt::Display for Markdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

pub(super) fn seconds(value: f64) -> String {
    format!("{value:.2}")
}

pub(super) fn ratio(value: f64) -> String {
    format!("{value:.2}")
}

pub(super) fn mib(bytes: u64) -> String {
    format!("{} MiB", (bytes + (1 << 19)) >> 20)
}

/// Bytes in a time, as GB/s.
pub(super) fn speed(bytes: u64, seconds: f64) -> String {
    format!("{:.2} GB/s", bytes as f64 / 1e9 / seconds)
}
