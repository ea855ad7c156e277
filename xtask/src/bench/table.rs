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

/// The one in the middle of what several runs gave; of an even number the larger. There is at least one.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
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
