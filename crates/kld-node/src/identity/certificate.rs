//! The self-signed certificate of Debian's `ssl-cert`, which packages take until they are given a better one.

use super::{Changes, Node, StepResult};
use kld_host::Cmd;
use std::time::Duration;

const TOOL: &str = "/usr/sbin/make-ssl-cert";
const KEY: &str = "/etc/ssl/private/ssl-cert-snakeoil.key";
const CERTIFICATE: &str = "/etc/ssl/certs/ssl-cert-snakeoil.pem";

pub(super) fn ensure(node: &Node<'_>) -> StepResult {
    // Without the package nobody asks for it.
    if !node.machine.has(TOOL) || (node.machine.has(KEY) && node.machine.has(CERTIFICATE)) {
        return Ok(Changes::default());
    }
    let make = Cmd::new(TOOL).args(["generate-default-snakeoil", "--force-overwrite"]);
    node.machine.run(make.timeout(Duration::from_secs(120)), &[])?;
    Ok(Changes::made(KEY))
}
