//! The manifest's own proofs: a command, run as nobody, and what its output must hold.

use super::{Probe, Status, View};
use crate::machine::plane_addresses;
use kld_host::{Cmd, ExecError};
use kld_system::node::NodeVerify;
use std::time::Duration;

pub(super) fn probe(view: &View, wanted: &NodeVerify) -> Probe {
    let name = format!("verify: {}", wanted.name);
    // A person wrote it as a line for a shell. Root's rights would prove nothing about the service. The number is
    // nobody's on every distribution; the group's name differs.
    let mut command = Cmd::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--"])
        .args(["/bin/sh", "-c", &wanted.command])
        .timeout(Duration::from_secs(wanted.timeout_seconds.max(1)));
    // As a person can repeat it.
    let mut shown = wanted.command.clone();
    for (key, value) in plane_addresses(&*view.machine) {
        shown = shown.replace(&format!("${{{key}}}"), &value);
        command = command.env(key, value);
    }
    match view.machine.run_text(command) {
        Err(error) => {
            // The command of ours around the manifest's is of no interest.
            let probe = match error.exec() {
                Some(ExecError::TimedOut { .. }) => {
                    let summary = format!("no answer within {} s", wanted.timeout_seconds);
                    Probe::new(name, Status::Timeout, summary)
                }
                Some(ExecError::Failed { status, stderr, .. }) if stderr.trim().is_empty() => {
                    Probe::new(name, Status::Fail, format!("failed with {status}"))
                }
                _ => Probe::unanswered(&name, &error),
            };
            probe.with_command(shown)
        }
        Ok(output) => match &wanted.expect {
            Some(expected) if !output.contains(expected.as_str()) => {
                let line: String = output.lines().next().unwrap_or_default().chars().take(60).collect();
                Probe::new(name, Status::Fail, format!("`{expected}` expected, not `{line}`"))
                    .with_command(shown)
            }
            _ => Probe::new(name, Status::Ok, "as expected"),
        },
    }
}
