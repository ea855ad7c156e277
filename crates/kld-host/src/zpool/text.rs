//! `zpool status` as people read it: OpenZFS before 2.3 writes no JSON.
//!
//! The form is that of `zpool_main.c` from 0.8 to 2.2: `key: value` lines, a table of devices between `config:` and
//! `errors:`, times as `ctime(3)` writes them.

use super::{DEADLINE, PoolStatus, Role, Scan, Unusable};
use crate::civil::days_from_civil;
use crate::{Cmd, ParseError};

/// `zpool status` of one pool, with whole numbers and whole paths, and times in UTC.
pub fn status_text_cmd(pool: &str) -> Cmd {
    Cmd::new("zpool").args(["status", "-p", "-P", pool]).env("TZ", "UTC").timeout(DEADLINE)
}

/// Reads the output of [`status_text_cmd`]. It names no device's GUID, so [`PoolStatus::devices`] is empty.
///
/// # Errors
/// When it does not say how that pool is.
pub fn parse_status_text(pool: &str, text: &str) -> Result<PoolStatus, ParseError> {
    let error = |reason: String| ParseError { tool: "zpool status", reason };
    if value(text, "pool").as_deref() != Some(pool) {
        return Err(error(format!("no pool `{pool}` in it")));
    }
    let state = value(text, "state").ok_or_else(|| error("no line `state:`".to_owned()))?;
    let errors = value(text, "errors").ok_or_else(|| error("no line `errors:`".to_owned()))?;
    let rows = rows(text);
    Ok(PoolStatus {
        state,
        problem: value(text, "status"),
        // `No known data errors`, `2 data errors, use '-v' for a list`. What cannot be listed is to be looked at.
        errors: match errors.split(' ').next().unwrap_or_default() {
            "No" => 0,
            count => count.parse().unwrap_or(1),
        },
        device_errors: device_errors(&rows),
        scan: value(text, "scan").and_then(|text| scan(&text)),
        devices: Vec::new(),
        unusable: unusable(&rows),
    })
}

/// What stands behind a key, with the lines that continue it.
fn value(text: &str, key: &str) -> Option<String> {
    let mut lines = text.lines();
    let first = lines.find_map(|line| line.trim_start_matches(' ').strip_prefix(key)?.strip_prefix(':'))?;
    let more = lines.take_while(|line| line.starts_with('\t'));
    let words: Vec<&str> = std::iter::once(first).chain(more).flat_map(str::split_whitespace).collect();
    Some(words.join(" "))
}

/// A row of the table of devices.
struct Row<'a> {
    depth: usize,
    name: &'a str,
    /// Its state, then its errors; of a row that heads a class, nothing.
    columns: Vec<&'a str>,
}

fn rows(text: &str) -> Vec<Row<'_>> {
    let table = text.lines().skip_while(|line| *line != "config:").skip(1);
    let mut lines =
        table.take_while(|line| !line.starts_with("errors:")).filter_map(|line| line.strip_prefix('\t'));
    // Names may hold spaces: the columns stand below their heads.
    let Some(width) = lines.next().and_then(|head| head.find("STATE")) else { return Vec::new() };
    lines
        .map(|line| {
            let (name, columns) = line.split_at_checked(width).unwrap_or((line, ""));
            Row {
                depth: line.len() - line.trim_start_matches(' ').len(),
                name: name.trim(),
                columns: columns.split_whitespace().collect(),
            }
        })
        .collect()
}

/// Read, write and checksum errors of all devices. Those of a mirror's sides are counted in the mirror again, so only rows
/// count below which there is nothing.
fn device_errors(rows: &[Row<'_>]) -> u64 {
    let below = rows.iter().skip(1).map(|row| row.depth).chain([0]);
    let leaves = rows.iter().zip(below).filter(|(row, below)| *below <= row.depth).map(|(row, _)| row);
    let errors = leaves.flat_map(|row| row.columns.iter().skip(1).take(3));
    errors.map(|errors| errors.parse().unwrap_or(0)).fold(0, u64::saturating_add)
}

/// Caches and spares that cannot be used.
fn unusable(rows: &[Row<'_>]) -> Vec<Unusable> {
    let mut role = None;
    let mut found = Vec::new();
    for row in rows {
        match (role, &row.columns[..]) {
            (_, []) => {
                role = match row.name {
                    "cache" => Some(Role::Cache),
                    "spares" => Some(Role::Spare),
                    _ => None,
                }
            }
            (Some(role), [state, ..]) => found.extend(Unusable::new(role, row.name, state)),
            (None, _) => {}
        }
    }
    found.sort();
    found
}

/// `scrub repaired 0B in 00:00:01 with 0 errors on Sun Nov  8 00:24:02 2026`, `resilver in progress since …`,
/// `scrub canceled on …`, `none requested`.
fn scan(text: &str) -> Option<Scan> {
    let function = ["scrub", "resilver"].into_iter().find(|function| text.starts_with(function))?;
    let done = text.split_once(" with ").and_then(|(_, rest)| rest.split_once(" errors on "));
    let (state, errors, ended) = match (done, text.split_once(" canceled on ")) {
        (Some((errors, time)), _) => ("FINISHED", errors.parse().unwrap_or(1), Some(time)),
        (None, Some((_, time))) => ("CANCELED", 0, Some(time)),
        (None, None) => ("SCANNING", 0, None),
    };
    let ended = ended.and_then(seconds).map(|seconds| seconds.to_string());
    Some(Scan { function: function.to_uppercase(), state: state.to_owned(), errors, ended })
}

/// Seconds since 1970 of `Sun Nov 8 00:24:02 2026`.
fn seconds(time: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = time.split_whitespace().take(5).collect();
    let [_, month, day, clock, year] = words[..] else { return None };
    let month = 1 + MONTHS.iter().position(|name| *name == month)? as u64;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let clock: Vec<u64> = clock.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let ([hour, minute, second], 1970..=9999, 1..=31) = (&clock[..], year, day) else { return None };
    let days = days_from_civil(year, month, day)?;
    days.checked_mul(86_400)?
        .checked_add(hour.checked_mul(3600)?.checked_add(minute.checked_mul(60)?)?)?
        .checked_add(*second)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OpenZFS 2.1.
    const DEGRADED: &str = "  pool: tank
 state: DEGRADED
status: One or more devices could not be used because the label is missing or
\tinvalid.  Sufficient replicas exist for the pool to continue
\tfunctioning in a degraded state.
action: Replace the device using 'zpool replace'.
   see: https://openzfs.github.io/openzfs-docs/msg/ZFS-8000-4J
  scan: scrub repaired 0B in 1 days 02:03:04 with 2 errors on Sun Nov  8 00:24:02 2026
config:

\tNAME                      STATE     READ WRITE CKSUM
\ttank                      DEGRADED     0     0     0
\t  mirror-0                DEGRADED     9     9     9
\t    /dev/disk/by-id/a 1   ONLINE       0     1     3
\t    12345678901234567890  UNAVAIL      0     0     0  was /dev/sdb1
\tlogs
\t  /dev/sdc                ONLINE       7     0     0
\tspares
\t  /dev/sdd                AVAIL
\t  /dev/sd e               FAULTED   corrupted data
\tcache
\t  /dev/sdf                UNAVAIL      0     0     0  cannot open

errors: 12 data errors, use '-v' for a list
";

    #[test]
    fn reads_a_degraded_mirror() {
        let status = parse_status_text("tank", DEGRADED).expect("it is one");
        let problem = status.problem.as_deref().expect("there is one");
        assert!(problem.ends_with("missing or invalid. Sufficient replicas exist for the pool to continue functioning in a degraded state."));
        assert_eq!((status.state.as_str(), status.errors, status.device_errors), ("DEGRADED", 12, 11));
        let said: Vec<String> = status.unusable.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["cache /dev/sdf UNAVAIL", "spare /dev/sd e FAULTED"]);
        let scan = status.scan.expect("there was one");
        assert_eq!((scan.function.as_str(), scan.state.as_str(), scan.errors), ("SCRUB", "FINISHED", 2));
        // `date -u -d 'Sun Nov  8 00:24:02 2026' +%s`
        assert_eq!(scan.ended.as_deref(), Some("1794097442"));
    }

    #[test]
    fn reads_one_that_is_well_and_one_that_is_not_there() {
        let text = "  pool: a b\n state: ONLINE\nconfig:\n\n\tNAME  STATE  READ WRITE CKSUM\n\ta b   ONLINE    0     0     0\n\nerrors: No known data errors\n";
        let well = PoolStatus { state: "ONLINE".to_owned(), ..PoolStatus::default() };
        assert_eq!(parse_status_text("a b", text), Ok(well));
        assert!(
            parse_status_text("a", text).is_err() && parse_status_text("a", "no pools available\n").is_err()
        );
        let hidden = text
            .replace("No known data errors", "List of errors unavailable: pool I/O is currently suspended");
        assert_eq!(parse_status_text("a b", &hidden).map(|status| status.errors), Ok(1));
    }

    #[test]
    fn scans_are_done_given_up_or_going_on() {
        let said = |text: &str| {
            scan(text).map(|scan| (scan.function, scan.state, scan.errors, scan.ended.unwrap_or_default()))
        };
        let own = |function: &str, state: &str, ended: &str| {
            Some((function.to_owned(), state.to_owned(), 0, ended.to_owned()))
        };
        assert_eq!(said("none requested"), None);
        assert_eq!(
            said("resilvered 1.5M in 00:00:01 with 0 errors on Thu Feb 29 23:59:59 2024"),
            own("RESILVER", "FINISHED", "1709251199")
        );
        assert_eq!(said("scrub canceled on Thu Jan  1 00:00:00 1970"), own("SCRUB", "CANCELED", "0"));
        assert_eq!(
            said("scrub in progress since Sun Nov  8 00:24:02 2026 1.2G scanned"),
            own("SCRUB", "SCANNING", "")
        );
        assert_eq!(said("scrub canceled on Foo 99 x 1"), own("SCRUB", "CANCELED", ""));
    }
}
