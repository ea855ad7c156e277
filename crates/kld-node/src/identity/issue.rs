//! What the console shows above the login: what a person needs to reach the machine. Never a secret.

use super::{Changes, Node, StepResult, wireguard, write_if_other};
use crate::machine::Access;
use std::fmt::Write as _;

const FILE: &str = "/etc/issue.d/kldload.issue";

pub(super) fn ensure(node: &Node<'_>) -> StepResult {
    // agetty takes `\n` for the host name, whatever it is by then.
    let mut text = String::from("\\n\n");
    for plane in &node.config.planes {
        let key = wireguard::read_public(node.machine, plane)?;
        let key = key.map_or_else(|| "no key yet".to_owned(), |key| key.to_string());
        let on = plane.carrier.as_ref().map_or_else(
            || format!("UDP {}", plane.port),
            |carrier| format!("UDP {} over {carrier}", plane.port),
        );
        let _ = writeln!(text, "  {:<6} {:<20} {on}  public key {key}", plane.interface, plane.address);
    }
    text.push_str("  Log in over the mesh. `kst` says whether all is well.\n\n");
    let written = write_if_other(node.machine, FILE, text.as_bytes(), Access::PUBLIC)?;
    Ok(if written { Changes::made(FILE) } else { Changes::default() })
}
