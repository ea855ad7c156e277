//! Lengths of time on the command line.

/// Seconds: `90`, `60s`, `2min`, `1h`, as systemd.time(7) writes them; at least one.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = match &text[digits..] {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        _ => return Err("a number of seconds is wanted, or `60s`, `2min`, `1h`".to_owned()),
    };
    let number: u64 = text[..digits].parse().map_err(|_| "it begins with no number".to_owned())?;
    let seconds = number.checked_mul(unit).filter(|seconds| *seconds <= DAY);
    seconds.filter(|seconds| *seconds > 0).ok_or_else(|| "it must be a second to a day".to_owned())
}

/// Nobody waits for longer.
const DAY: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, want) in [("90", 90), ("60s", 60), ("2m", 120), ("2min", 120), ("1h", 3600), ("24h", DAY)]
        {
            assert_eq!(seconds(text), Ok(want), "{text}");
        }
        for text in ["", "s", "0", "0s", "-1", "1.5s", "60 s", "25h", "1d", "99999999999999999999"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    use super::DAY;
}
