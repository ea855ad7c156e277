//! What systemd says of unit files: what keeps a unit from running, and what is only advice.

/// What keeps units from running, of what `systemd-analyze verify` says.
///
/// It says all that it has to say of a file, `FILE:LINE: …`, and ends with an error for each of that; most is taste or age
/// (`Standard output type syslog is obsolete`). Only systemd's verdict on a unit counts, which has no place in a file, with the
/// line before it where that says why: reading ends at the first line that it cannot forgive. Lines move, so their numbers go.
pub(crate) fn refused_units(lines: &[String]) -> Vec<String> {
    let mut refused = Vec::new();
    let mut before = None;
    for line in lines {
        if let Some(placed) = in_a_file(line) {
            before = Some(placed);
            continue;
        }
        let reason = before.take().filter(|_| ENDS_READING.iter().any(|end| line.contains(end)));
        refused.extend(reason.map(|(file, what)| format!("{file}: {what}")));
        refused.extend(Some(line.clone()).filter(|line| !line.starts_with(ODD_NAME)));
    }
    refused
}

/// Verdicts of systemd on a unit whose file it did not read to its end.
const ENDS_READING: [&str; 2] = ["Unit configuration has fatal error", "failed to load properly"];
/// `Accepting user/group name '…', which does not match strict user/group name rules.`
const ODD_NAME: &str = "Accepting user/group name";

/// `/usr/lib/systemd/system/x.service:25: What is said` in its parts, without the number.
fn in_a_file(line: &str) -> Option<(&str, &str)> {
    let (place, what) = line.split_once(": ")?;
    let (file, number) = place.rsplit_once(':')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (file.starts_with('/') && is_number).then_some((file, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_keeps_a_unit_from_running_refuses_it() {
        // As systemd 252 says it.
        let syslog = "/lib/systemd/system/a.service:4: Standard output type syslog is obsolete, automatically updating to journal. \
                      Please update your unit file, and consider removing the setting altogether.";
        let said =
            |lines: &[&str]| refused_units(&lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>());
        let unknown = "/lib/systemd/system/a.service:7: Unknown key 'Bogus' in section [Service], ignoring.";
        let odd = "Accepting user/group name '!x', which does not match strict user/group name rules.";
        assert_eq!(said(&[syslog, unknown, odd]), [""; 0]);

        let fatal = "b.service: Unit configuration has fatal error, unit will not be started.";
        let bad = "Unit b.service has a bad unit file setting.";
        let at = |line: u32, what: &str| format!("/lib/systemd/system/b.service:{line}: {what}");
        // Fatal all the same.
        let quoting = "Unbalanced quoting, ignoring: \"/bin/sh -c \"x\"";
        let of_b = said(&[syslog, &at(5, quoting), fatal, bad]);
        assert_eq!(of_b, [&format!("/lib/systemd/system/b.service: {quoting}"), fatal, bad]);
        assert_eq!(of_b, said(&[&at(9, quoting), fatal, bad]), "lines move");
        let header = "Invalid section header '[Unit'";
        let load = "Unit b.service failed to load properly, please adjust/correct and reload service manager: Bad message";
        assert_eq!(
            said(&[&at(1, header), load]),
            [&format!("/lib/systemd/system/b.service: {header}"), load]
        );
        for refused in [
            "e.service: Service has no ExecStart=, ExecStop=, or SuccessAction=. Refusing.",
            "f.service: Command /no/such is not executable: No such file or directory",
        ] {
            assert_eq!(said(&[syslog, refused]), [refused]);
        }
    }
}
