//! The host name, when somebody gave one at run time; the image has the manifest's.
//!
//! The unit tells the kernel afterwards: its sandbox has a host name of its own.

use super::{Changes, Node, StepResult, write_if_other};
use crate::machine::Access;

const FILE: &str = "/etc/hostname";

pub(super) fn ensure(node: &Node<'_>, given: Option<&str>) -> StepResult {
    let Some(name) = given else { return Ok(Changes::default()) };
    if !is_host_name(name) {
        let warning =
            format!("host name `{name:.64}`: labels hold letters, digits and `-`, 64 characters in all");
        return Ok(Changes { made: Vec::new(), warnings: vec![warning] });
    }
    let mut changes = Changes::default();
    if write_if_other(node.machine, FILE, format!("{name}\n").as_bytes(), Access::PUBLIC)? {
        changes.made.push(format!("`{name}`"));
    }
    Ok(changes)
}

/// Linux takes 64 characters (HOST_NAME_MAX); labels as in RFC 1123.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.len() <= 64 && name.split('.').all(label)
}
