//! Whether the person comes over the network.

use std::fs;

/// What sshd(8) tells the programs of a session.
const VARIABLE: &[u8] = b"SSH_CONNECTION=";
/// Deeper than anybody nests shells; against a table that changes meanwhile.
const DEEPEST: usize = 64;

/// Whether this command was begun in a session of SSH. sudo takes that away from the environment, so those that began the
/// command are asked, too: the shell before sudo, or the one in which a terminal multiplexer was started.
pub(crate) fn is_over_ssh() -> bool {
    is_below_ssh(std::process::id(), &|process| {
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        Some((parent(&stat)?, environment))
    })
}

/// Asks a process and those above it; `look` says the parent and the environment of one.
fn is_below_ssh(process: u32, look: &dyn Fn(u32) -> Option<(u32, Vec<u8>)>) -> bool {
    let mut next = Some(process);
    for _ in 0..DEEPEST {
        let Some((parent, environment)) = next.filter(|process| *process > 1).and_then(look) else {
            return false;
        };
        if environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(VARIABLE)) {
            return true;
        }
        next = Some(parent);
    }
    false
}

/// The fourth field of proc_pid_stat(5); the second, a name, may hold anything.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_found_through_sudo() {
        let look = |process: u32| -> Option<(u32, Vec<u8>)> {
            let clean = b"PATH=/bin\0SUDO_USER=ada\0".to_vec();
            Some(match process {
                40 => (30, clean),
                30 => (20, clean),
                20 => (10, b"HOME=/home/ada\0SSH_CONNECTION=10.8.0.2 5 10.8.0.1 22\0".to_vec()),
                10 => (1, Vec::new()),
                // At the machine itself.
                41 => (21, clean),
                21 => (1, b"TERM=linux\0XSSH_CONNECTION=no\0".to_vec()),
                7 => (7, Vec::new()),
                _ => return None,
            })
        };
        assert!(is_below_ssh(40, &look) && is_below_ssh(20, &look));
        assert!(!is_below_ssh(41, &look) && !is_below_ssh(10, &look) && !is_below_ssh(7, &look));
    }

    #[test]
    fn a_name_with_anything_in_it_is_passed_over() {
        assert_eq!(parent("12 (a) b) c) S 7 12 12 0"), Some(7));
        assert_eq!(parent("12 nothing"), None);
    }
}
