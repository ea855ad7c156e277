//! SSH keys that were given at run time, for root.
//!
//! They are one marked block of `/root/.ssh/authorized_keys`; every other line of the file is a person's and stays.
//! None given means that the block stays as it is.

use super::{Changes, Node, StepResult, write_if_other};
use crate::machine::Access;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::path::Path;

const FOLDER: &str = "/root/.ssh";
const FILE: &str = "/root/.ssh/authorized_keys";
const BEGIN: &str = "# kldload: given at run time";
const END: &str = "# kldload: end";
/// Key types of OpenSSH 10 (`ssh -Q key`), without certificates and DSA.
const TYPES: [&str; 7] = [
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
];

pub(super) fn ensure(node: &Node<'_>, given: &[String]) -> StepResult {
    let mut changes = Changes::default();
    let mut keys = Vec::new();
    for text in given {
        match check(text) {
            Ok(key) => keys.push(key),
            Err(reason) => {
                changes.warnings.push(format!("SSH key `{:.40}`: {reason}", text.escape_debug().to_string()))
            }
        }
    }
    if keys.is_empty() {
        return Ok(changes);
    }
    let old = node.machine.read_text(FILE)?.unwrap_or_default();
    node.machine.make_folder(Path::new(FOLDER))?;
    if write_if_other(node.machine, FILE, replace_block(&old, &keys).as_bytes(), Access::SECRET)? {
        changes.made.push(format!("{} for root", keys.len()));
    }
    Ok(changes)
}

/// `type base64 [comment]`, and nothing in front of it: options could run commands.
fn check(text: &str) -> Result<String, &'static str> {
    let mut words = text.split_ascii_whitespace();
    let (kind, body) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !TYPES.contains(&kind) {
        return Err("it does not begin with a known key type");
    }
    let decoded = STANDARD.decode(body).map_err(|_| "it is not base64")?;
    // The body begins with its type's name and the name's length (RFC 4253, 6.6).
    if decoded.get(4..4 + kind.len()) != Some(kind.as_bytes()) {
        return Err("its content is of another type");
    }
    let comment: String = words
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .take(128)
        .collect();
    Ok(format!("{kind} {body} {comment}").trim_end().to_owned())
}

fn replace_block(old: &str, keys: &[String]) -> String {
    let mut inside = false;
    let mut lines: Vec<&str> = Vec::new();
    for line in old.lines() {
        match line {
            BEGIN => inside = true,
            END => inside = false,
            _ if inside => {}
            _ => lines.push(line),
        }
    }
    lines.push(BEGIN);
    lines.extend(keys.iter().map(String::as_str));
    lines.push(END);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJ";

    #[test]
    fn only_plain_keys_are_taken() {
        assert_eq!(
            check(&format!("  {KEY}   ops@example.com  laptop\n")).unwrap(),
            format!("{KEY} ops@example.com laptop")
        );
        assert_eq!(check(&format!("{KEY} a\u{7}b")).unwrap(), format!("{KEY} ab"));
        for bad in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            "ssh-ed25519 !!!!",
            "ssh-dss AAAAB3NzaC1kc3MAAAA=",
            &format!("command=\"sh\" {KEY}"),
            &KEY.replace("ssh-ed25519", "ssh-rsa"),
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_persons_lines_stay() {
        let first = replace_block("ssh-rsa mine\n", &["a".into(), "b".into()]);
        expect![[r#"
            ssh-rsa mine
            # kldload: given at run time
            a
            b
            # kldload: end
        "#]]
        .assert_eq(&first);
        assert_eq!(replace_block(&first, &["a".into(), "b".into()]), first);
        assert_eq!(replace_block(&first, &["c".into()]).lines().count(), 4);
    }
}
