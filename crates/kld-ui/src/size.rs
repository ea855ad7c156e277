//! Sizes in bytes, written and read as `zfs` does.
//!
//! The form is that of `zfs list`: powers of 1024 without the `i`, an exact multiple as a whole number (`128K`),
//! anything else with as many decimals, at most two, as fit in five characters (`1.50G`, `10.2M`, `723M`).

use std::fmt;
use std::str::FromStr;

const UNITS: [char; 7] = ['B', 'K', 'M', 'G', 'T', 'P', 'E'];

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A size that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a size")]
pub struct SizeError {
    text: String,
}

impl SizeError {
    /// How a size is written.
    pub fn hint(&self) -> Option<String> {
        Some("write a number and a unit of 1024: `512M`, `20G`, `1.5T`".to_owned())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = (self.0.max(1).ilog2() / 10) as usize;
        let unit = 1_u64 << (10 * index);
        let text = if self.0.is_multiple_of(unit) {
            format!("{}{}", self.0 / unit, UNITS[index])
        } else {
            let value = self.0 as f64 / unit as f64;
            let written = (0..=2).rev().map(|decimals| format!("{value:.decimals$}{}", UNITS[index]));
            // Zero decimals always fit but for 1023.6K and the like, which are then six characters.
            let mut last = String::new();
            for text in written {
                last = text;
                if last.len() <= 5 {
                    break;
                }
            }
            last
        };
        f.pad(&text)
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    /// Reads `20G`, `20GiB`, `1.5t`, `4096`, `4096B`; units are powers of 1024, in either case.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let error = || SizeError { text: text.to_owned() };
        let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let unit = unit.to_ascii_uppercase();
        let letter = match unit.strip_suffix("IB").or_else(|| unit.strip_suffix('B')).unwrap_or(&unit) {
            "" => 'B',
            one if one.len() == 1 => one.chars().next().ok_or_else(error)?,
            _ => return Err(error()),
        };
        let power = UNITS.iter().position(|&known| known == letter).ok_or_else(error)?;
        let unit = 1_u64 << (10 * power);

        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
            return Err(error());
        }
        let whole: u64 = whole.parse().map_err(|_| error())?;
        let scale = 10_u128.pow(fraction.len() as u32);
        let fraction: u128 = fraction.parse().map_err(|_| error())?;
        let below = u64::try_from(fraction * u128::from(unit) / scale).map_err(|_| error())?;
        whole.checked_mul(unit).and_then(|bytes| bytes.checked_add(below)).map(Self).ok_or_else(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn is_written_as_zfs_list_does() {
        let table = [
            (0, "0B"),
            (1, "1B"),
            (1023, "1023B"),
            (1024, "1K"),
            (1536, "1.50K"),
            (128 << 10, "128K"),
            (3 << 29, "1.50G"),
            ((1 << 20) * 10 + 200_000, "10.2M"),
            (723 * (1 << 20) + 5, "723M"),
            (1_048_064, "1024K"),
            (u64::MAX, "16.0E"),
        ];
        for (bytes, want) in table {
            assert_eq!(ByteSize(bytes).to_string(), want, "{bytes}");
        }
    }

    #[test]
    fn reads_what_people_write() {
        let table = [
            ("0", 0),
            ("512", 512),
            ("4096B", 4096),
            ("20G", 20 << 30),
            ("20gib", 20 << 30),
            ("1.5T", 3 << 39),
        ];
        for (text, want) in table {
            assert_eq!(text.parse(), Ok(ByteSize(want)), "{text}");
        }
        for text in ["", "G", "-1G", "1.G", ".5G", "1e3", "20GG", "20Q", "99999999E", "1 G", "2٣G"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whole_units_survive_a_round_trip(number in 0_u64..1024, power in 0_u32..6) {
            let size = ByteSize(number << (10 * power));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn is_at_most_six_characters(bytes: u64) {
            prop_assert!(ByteSize(bytes).to_string().len() <= 6);
        }
    }
}
