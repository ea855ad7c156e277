//! The serial console as progress: which step of its boot a guest has reached.

/// The step that a console line tells of: what systemd starts, has reached or failed, and the first line of the
/// loader and of the kernel. `None` for everything else.
pub fn parse_boot_line(line: &str) -> Option<String> {
    let line = strip_escapes(line);
    let line = line.trim();
    if let Some(rest) = line.strip_prefix("[  OK  ]").or_else(|| line.strip_prefix("[FAILED]")) {
        return Some(describe(rest));
    }
    if line.starts_with("Starting ") && line.ends_with("...") {
        return Some(describe(line.trim_end_matches("...")));
    }
    if line.contains("] Linux version ") {
        return Some("kernel started".to_owned());
    }
    if line.starts_with("BdsDxe: starting ") {
        return Some("firmware started the boot loader".to_owned());
    }
    None
}

/// `Started nginx.service - A web server.` → `Started A web server`.
fn describe(step: &str) -> String {
    let step = step.trim().trim_end_matches('.');
    let Some((before, description)) = step.split_once(" - ") else {
        return step.to_owned();
    };
    let verb = before.rsplit_once(' ').map_or("", |(verb, _unit)| verb);
    format!("{verb} {description}").trim_start().to_owned()
}

/// Without terminal escape sequences (`ESC [ … letter`) and control characters.
pub(crate) fn strip_escapes(line: &str) -> String {
    let mut text = String::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\x1b' {
            text.extend((!c.is_control() || c == '\t').then_some(c));
        } else if chars.next_if_eq(&'[').is_some() {
            while chars.next().is_some_and(|c| !c.is_ascii_alphabetic()) {}
        } else {
            chars.next();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_steps() {
        let table = [
            (
                "[\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mbasic.target\x1b[0m - Basic System.",
                Some("Reached target Basic System"),
            ),
            (
                "[\x1b[0;1;31mFAILED\x1b[0m] Failed to start \x1b[0;1;39mwg.service\x1b[0m - WireGuard: wg0.",
                Some("Failed to start WireGuard: wg0"),
            ),
            (
                "         Starting \x1b[0;1;39msystemd-udevd.service\x1b[0m - Rule Manager...\r",
                Some("Starting Rule Manager"),
            ),
            (
                "[  OK  ] Started something without a description.",
                Some("Started something without a description"),
            ),
            (
                "[    0.000000] Linux version 6.12.107+deb13-amd64 (debian-kernel@lists.debian.org)",
                Some("kernel started"),
            ),
            (
                "BdsDxe: starting Boot0001 \"UEFI Misc Device\" from PciRoot(0x0)",
                Some("firmware started the boot loader"),
            ),
            ("[    1.234567] virtio_blk virtio1: [vda] 3072000 512-byte logical blocks", None),
            ("", None),
            ("\x1b", None),
            ("\x1b[", None),
        ];
        for (line, want) in table {
            assert_eq!(parse_boot_line(line).as_deref(), want, "{line:?}");
        }
    }
}
