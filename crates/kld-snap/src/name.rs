//! Short names, and the time that is put behind them.

use std::fmt;
use std::str::FromStr;

use kld_disk::esp::civil_from_days;
use kld_host::civil::days_from_civil;

/// ZFS takes no longer name, the dataset included.
const LONGEST: usize = 255;
/// `-YYYYmmdd-HHMMSS`.
const STAMP: usize = 16;

/// What a person calls a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShortName(String);

/// A name that ZFS does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or a character that names cannot have.
    #[error("`{}` cannot be the name of a snapshot: {reason}", name.escape_debug())]
    Letters {
        /// The name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Too long with its dataset and its time.
    #[error("`{dataset}@{name}` is too long: with its time it has {length} bytes")]
    Long {
        /// The dataset.
        dataset: String,
        /// The name.
        name: String,
        /// How many bytes.
        length: usize,
    },
}

impl NameError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Letters { .. } => {
                "letters of ASCII, digits, `-`, `_`, `.`, `:` and spaces are possible".to_owned()
            }
            Self::Long { length, .. } => {
                format!("ZFS takes {LONGEST}: leave out {} of the name", length - LONGEST)
            }
        })
    }
}

impl ShortName {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The full name of a snapshot that is made now; `stamp` is [`stamp`]'s.
    ///
    /// # Errors
    /// When it is longer than ZFS takes.
    pub fn of(&self, dataset: &str, stamp: &str) -> Result<String, NameError> {
        let full = format!("{dataset}@{self}-{stamp}");
        if full.len() > LONGEST {
            let (dataset, name, length) = (dataset.to_owned(), self.0.clone(), full.len());
            return Err(NameError::Long { dataset, name, length });
        }
        Ok(full)
    }
}

impl fmt::Display for ShortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ShortName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let error = |reason: String| NameError::Letters { name: name.to_owned(), reason };
        if name.trim().is_empty() {
            return Err(error("it is empty".to_owned()));
        }
        match name.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.: ".contains(*c))) {
            Some(c) => Err(error(format!("`{}` is not possible in it", c.escape_debug()))),
            None => Ok(Self(name.to_owned())),
        }
    }
}

/// `20261127-041300`: seconds since 1970, in UTC, so that names sort as time does.
pub fn stamp(seconds: u64) -> String {
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

/// The short name of a snapshot that was called so by us.
pub fn short_of(snapshot: &str) -> Option<&str> {
    Some(apart(snapshot)?.0)
}

/// Seconds since 1970 of the time in the name of a snapshot that was called so by us.
pub(crate) fn stamped(snapshot: &str) -> Option<u64> {
    let digits = |from: usize, to: usize| apart(snapshot)?.1.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (digits(1, 5)?, digits(5, 7)?, digits(7, 9)?);
    let (hour, minute, second) = (digits(10, 12)?, digits(12, 14)?, digits(14, 16)?);
    let days = days_from_civil(year, month, day)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

fn apart(snapshot: &str) -> Option<(&str, &str)> {
    let at = snapshot.len().checked_sub(STAMP)?;
    let (name, stamp) = (snapshot.get(..at)?, snapshot.get(at..)?);
    let fits = stamp.bytes().enumerate().all(|(at, byte)| match at {
        0 | 9 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    (fits && !name.is_empty()).then_some((name, stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_zfs_takes() {
        for good in ["a", "pre-upgrade", "before 2.1: tests", "-x", "A_b"] {
            assert_eq!(good.parse::<ShortName>().map(|name| name.0), Ok(good.to_owned()));
        }
        for bad in ["", " ", "a@b", "a/b", "größe", "a%b", "a\nb", "a#b", "a,b"] {
            let error = bad.parse::<ShortName>().expect_err(bad);
            assert!(error.hint().is_some() && !error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_full_name_fits_into_255_bytes() {
        let name: ShortName = "x".repeat(100).parse().expect("good");
        let full = name.of(&"d".repeat(255 - 100 - 17), "20261127-041300").expect("it just fits");
        assert_eq!(full.len(), 255);
        let error = name.of(&"d".repeat(255 - 100 - 16), "20261127-041300").expect_err("one too many");
        assert_eq!(error.hint().as_deref(), Some("ZFS takes 255: leave out 1 of the name"));
    }

    #[test]
    fn our_snapshots_are_known_by_their_time() {
        assert_eq!(stamp(1_795_752_780), "20261127-041300");
        assert_eq!(short_of("pre-20261127-041300"), Some("pre"));
        assert_eq!(short_of("a-20260101-000000-20261127-041300"), Some("a-20260101-000000"));
        for other in
            ["pre", "-20261127-041300", "pre-20261127-04130", "pre_20261127-041300", "größe", "autosnap_2026"]
        {
            assert_eq!((short_of(other), stamped(other)), (None, None), "{other}");
        }
    }

    #[test]
    fn the_time_in_a_name_is_the_time_that_was_put_there() {
        for seconds in (0..200).map(|n| n * 31_415_927).chain([951_782_400, 1_795_752_780, 4_107_542_399]) {
            assert_eq!(stamped(&format!("x-{}", stamp(seconds))), Some(seconds));
        }
        // Nobody makes such names, and they are no reason to end.
        for odd in ["x-00000000-000000", "x-19691231-235959", "x-20261399-999999", "x-99999999-999999"] {
            let _ = stamped(odd);
        }
    }
}
