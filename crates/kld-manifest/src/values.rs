//! Values that are more than a word: sizes, durations, ports, networks. All pure, text in, value out.

use std::time::Duration;

use crate::model::PortRange;

/// Why a value is not possible: the rest of the sentence after "`x` is not …:", and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Wrong {
    pub(crate) reason: String,
    pub(crate) hint: Option<String>,
}

impl Wrong {
    pub(crate) fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A size as ZFS takes it: digits and one of `K M G T P` (any case, powers of 1024).
pub(crate) fn parse_size(text: &str) -> Result<u64, Wrong> {
    let wrong =
        || Wrong::because("a size is a number with K, M, G, T or P behind it").hint("for example `10G`");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(wrong()),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(|| Wrong::because("it does not fit in 64 bits"))
}

/// A length of time: `10s`, `1m`, `8 minutes`, `24 hours`, `2d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = || {
        Wrong::because("a length of time is a number with seconds, minutes, hours or days behind it")
            .hint("for example `10s`, `90 minutes` or `24h`")
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = match text[digits..].trim() {
        "s" | "sec" | "second" | "seconds" => 1,
        "m" | "min" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 86_400,
        _ => return Err(wrong()),
    };
    // Ten years: longer is a typing error, and everything after may multiply without care.
    match number.checked_mul(unit) {
        Some(seconds) if seconds <= 315_360_000 => Ok(Duration::from_secs(seconds)),
        _ => Err(Wrong::because("it is longer than ten years")),
    }
}

/// A whole number from `min` to `max`.
pub(crate) fn parse_integer(text: &str, min: u64, max: u64) -> Result<u64, Wrong> {
    let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    match number {
        Some(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(Wrong::because(format!("it must be a whole number from {min} to {max}"))),
    }
}

/// `yes` or `no`.
pub(crate) fn parse_flag(text: &str) -> Result<bool, Wrong> {
    match text {
        "yes" | "true" | "on" => Ok(true),
        "no" | "false" | "off" => Ok(false),
        _ => Err(Wrong::because("it must be `yes` or `no`")),
    }
}

/// One TCP or UDP port.
pub(crate) fn parse_port(text: &str) -> Result<u16, Wrong> {
    let port = parse_integer(text, 1, 65_535).ok().and_then(|port| u16::try_from(port).ok());
    port.ok_or_else(|| Wrong::because("a port is a number from 1 to 65535"))
}

/// A port or `first-last`.
pub(crate) fn parse_port_range(text: &str) -> Result<PortRange, Wrong> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (parse_port(first.trim())?, parse_port(last.trim())?),
        None => {
            let port = parse_port(text)?;
            (port, port)
        }
    };
    if first > last {
        return Err(
            Wrong::because("the first port is above the last").hint(format!("write `{last}-{first}`"))
        );
    }
    Ok(PortRange { first, last })
}

/// The bytes of canonical base64 (RFC 4648 §4, with padding).
pub(crate) fn parse_base64(text: &str) -> Option<Vec<u8>> {
    let symbols = text.trim_end_matches('=');
    let padding = text.len() - symbols.len();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0_u32);
    for symbol in symbols.bytes() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = (held << 6) | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((held >> bits) & 0xff).expect("masked to eight bits"));
        }
        held &= 0xff;
    }
    let left_over = held & ((1 << bits) - 1);
    (left_over == 0 && bits as usize == padding * 2).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn base64_is_canonical() {
        assert_eq!(parse_base64("AAECAw=="), Some(vec![0, 1, 2, 3]));
        assert_eq!(parse_base64("/+8="), Some(vec![0xff, 0xef]));
        assert_eq!(parse_base64(""), Some(vec![]));
        for wrong in ["AAECAw", "AAECAx==", "A===", "AA=A", "AA A", "====", "A"] {
            assert_eq!(parse_base64(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("8 minutes").unwrap().as_secs(), 480);
        assert_eq!(parse_duration("1d").unwrap().as_secs(), 86_400);
        for wrong in ["", "m", "8", "8 parsecs", "-1s", "1.5h", "99999999999999999999s", "4000d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_size_reads_back(number in 0_u64..8192, suffix in "[kKmMgGtTpP]?") {
            let shift = "kmgtp".find(&suffix.to_lowercase()).filter(|_| !suffix.is_empty()).map_or(0, |at| (at + 1) * 10);
            prop_assert_eq!(parse_size(&format!("{number}{suffix}")).unwrap(), number << shift);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,12}") {
            let _ = (parse_size(&text), parse_duration(&text), parse_port_range(&text), parse_base64(&text));
        }
    }
}
