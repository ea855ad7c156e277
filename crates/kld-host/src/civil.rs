//! Dates of the Gregorian calendar.

/// Days from 1 March of year 0 to 1 January 1970.
const TO_1970: u64 = 719_468;

/// Days since 1970, counting years from March so that the leap day is a year's last (Hinnant, *chrono-Compatible Low-Level Date
/// Algorithms*); `None` before. A month and a day count from 1; whether they are any is for whoever asks.
pub fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let (years, months) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = years * 365 + years / 4 - years / 100 + years / 400 + (months * 153 + 2) / 5 + day;
    // One for the day, which counts from 1.
    days.checked_sub(TO_1970 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_1970() {
        assert_eq!(days_from_civil(1970, 1, 1), Some(0));
        assert_eq!(days_from_civil(2000, 3, 1), Some(11_017));
        assert_eq!(days_from_civil(2000, 2, 29), Some(11_016));
        assert_eq!((days_from_civil(1969, 12, 31), days_from_civil(0, 1, 1)), (None, None));
    }
}
