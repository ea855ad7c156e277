//! Times as people read them.

use std::fmt;
use std::time::Duration;

/// A span of time: `0.3s`, `4.2s`, `42s`, `1m 23s`, `2h 05m`.
///
/// Tenths are shown only below ten seconds, where they can be seen. Values are cut, never rounded up, so a clock
/// that shows `59s` next shows `1m 00s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Elapsed(pub Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let text = match seconds {
            0..10 => format!("{seconds}.{}s", self.0.subsec_millis() / 100),
            10..60 => format!("{seconds}s"),
            60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
            _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_short_and_never_rounds_up() {
        let table = [
            (0, "0.0s"),
            (349, "0.3s"),
            (4_290, "4.2s"),
            (9_999, "9.9s"),
            (10_000, "10s"),
            (59_999, "59s"),
            (60_000, "1m 00s"),
            (83_000, "1m 23s"),
            (3_599_999, "59m 59s"),
            (7_500_000, "2h 05m"),
        ];
        for (millis, want) in table {
            assert_eq!(Elapsed(Duration::from_millis(millis)).to_string(), want, "{millis} ms");
        }
    }
}
