//! When something runs: `hourly`, `nightly at 02:00`, `every 15 minutes`, `weekly on Sunday at 03:30`.

use crate::model::Schedule;
use crate::values::{Wrong, parse_integer};

const FORMS: &str =
    "write `every 15 minutes`, `hourly`, `daily at 04:00`, `nightly at 02:00` or `weekly on Sunday at 03:30`";

/// Reads the one-line form.
pub(super) fn parse_schedule(text: &str) -> Result<Schedule, Wrong> {
    let wrong = || Wrong::because("it is not a time that comes again").hint(FORMS);
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    match words.as_slice() {
        ["hourly"] => Ok(Schedule::Hourly { minute: 0 }),
        ["hourly", "at", minute] => {
            let digits = minute.strip_prefix(':').filter(|digits| digits.len() == 2).ok_or_else(wrong)?;
            Ok(Schedule::Hourly { minute: small(digits, 59).ok_or_else(wrong)? })
        }
        ["every", "minute"] => Ok(Schedule::EveryMinutes(1)),
        ["every", number, "minutes"] => match parse_integer(number, 1, 59) {
            Ok(number) => Ok(Schedule::EveryMinutes(u32::try_from(number).map_err(|_| wrong())?)),
            Err(_) => Err(Wrong::because("the minutes must be 1 to 59").hint(FORMS)),
        },
        ["daily" | "nightly", "at", time] => {
            let (hour, minute) = parse_clock(time)?;
            Ok(Schedule::Daily { hour, minute })
        }
        ["daily" | "nightly" | "weekly"] => Err(Wrong::because("it does not say at what time").hint(FORMS)),
        ["weekly", "on", day, "at", time] => parse_weekly(&format!("{day} {time}")),
        _ => Err(wrong()),
    }
}

/// `Sunday 03:30`.
pub(super) fn parse_weekly(text: &str) -> Result<Schedule, Wrong> {
    const DAYS: [(&str, &str); 7] = [
        ("monday", "Mon"),
        ("tuesday", "Tue"),
        ("wednesday", "Wed"),
        ("thursday", "Thu"),
        ("friday", "Fri"),
        ("saturday", "Sat"),
        ("sunday", "Sun"),
    ];
    let wrong = || Wrong::because("it is not a day and a time").hint("for example `Sunday 03:30`");
    let (day, time) = text.split_once(' ').ok_or_else(wrong)?;
    let day = day.to_lowercase();
    let known = DAYS.iter().find(|(long, short)| *long == day || short.to_lowercase() == day);
    let (_, day) = known.ok_or_else(|| {
        let wrong = Wrong::because(format!("`{day}` is not a day of the week"));
        match crate::nearest::did_you_mean(&day, DAYS.iter().map(|(long, _)| *long)) {
            Some(hint) => wrong.hint(hint),
            None => wrong.hint("for example `Sunday 03:30`"),
        }
    })?;
    let (hour, minute) = parse_clock(time.trim())?;
    Ok(Schedule::Weekly { day, hour, minute })
}

/// `02:00` → (2, 0).
pub(crate) fn parse_clock(text: &str) -> Result<(u8, u8), Wrong> {
    let wrong = || {
        Wrong::because("a time of day is hours and minutes from 00:00 to 23:59").hint("for example `02:00`")
    };
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    if !(1..=2).contains(&hour.len()) || minute.len() != 2 {
        return Err(wrong());
    }
    Ok((small(hour, 23).ok_or_else(wrong)?, small(minute, 59).ok_or_else(wrong)?))
}

fn small(text: &str, max: u64) -> Option<u8> {
    parse_integer(text, 0, max).ok().and_then(|number| u8::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        let table = [
            ("hourly", Some(Schedule::Hourly { minute: 0 })),
            ("hourly at :15", Some(Schedule::Hourly { minute: 15 })),
            ("nightly at 02:00", Some(Schedule::Daily { hour: 2, minute: 0 })),
            ("Daily at 4:05", Some(Schedule::Daily { hour: 4, minute: 5 })),
            ("every 15 minutes", Some(Schedule::EveryMinutes(15))),
            ("weekly on Sunday at 03:30", Some(Schedule::Weekly { day: "Sun", hour: 3, minute: 30 })),
            ("every 60 minutes", None),
            ("every 0 minutes", None),
            ("nightly", None),
            ("nightly at 24:00", None),
            ("nightly at 2", None),
            ("weekly on Someday at 03:30", None),
            ("now and then", None),
            ("hourly at :60", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_schedule(text).ok(), expected, "{text}");
        }
    }
}
