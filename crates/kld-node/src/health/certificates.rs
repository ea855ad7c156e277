//! Whether certificates of this machine are about to expire.

use super::{DEADLINE, Probe, Status, View};
use crate::machine::{Machine, MachineError};
use kld_host::Cmd;
use std::path::{Path, PathBuf};

/// Where certbot and dehydrated keep one folder for each name.
const LIVE: [&str; 2] = ["/etc/letsencrypt/live", "/var/lib/dehydrated/certs"];
/// Where Debian's ssl-cert has people put their own.
const LOCAL: &str = "/etc/ssl/localcerts";
pub(super) const SHOW: &str = "ls -lR /etc/letsencrypt/live /var/lib/dehydrated/certs /etc/ssl/localcerts";
/// They are renewed a month before; two weeks later somebody must look.
const SOON: &str = "1209600";

pub(super) fn probe(view: &View) -> Vec<Probe> {
    vec![look(&*view.machine).unwrap_or_else(|error| Probe::unanswered("certificates", &error))]
}

fn look(machine: &dyn Machine) -> Result<Probe, MachineError> {
    let all = certificates(machine)?;
    let mut wrong: Vec<(Status, String, String)> = Vec::new();
    for path in &all {
        let (good, until) = ends_after(machine, path, SOON)?;
        if good {
            continue;
        }
        let (good, _) = ends_after(machine, path, "0")?;
        let (status, word) = if good { (Status::Warn, "expires") } else { (Status::Fail, "has expired") };
        let path = path.display().to_string();
        let words = format!("{path} {word} on {until}");
        wrong.push((status, path, words));
    }
    let status = wrong.iter().map(|(status, ..)| *status).max();
    let said: Vec<&str> = wrong.iter().map(|(.., words)| words.as_str()).collect();
    Ok(match (status, all.len()) {
        (Some(status), _) => Probe::new("certificates", status, said.join(", "))
            .with_command("renew it (`certbot renew`), and have its services read it again")
            .with_subjects(wrong.into_iter().filter(|(of, ..)| *of == status).map(|(_, path, _)| path)),
        (None, 0) => Probe::new("certificates", Status::Info, "none that people have put here"),
        (None, all) => Probe::new("certificates", Status::Ok, format!("{all} valid for two weeks and more")),
    })
}

fn certificates(machine: &dyn Machine) -> Result<Vec<PathBuf>, MachineError> {
    let mut found = Vec::new();
    for folder in LIVE.map(Path::new) {
        for name in machine.list(folder)? {
            found.push(folder.join(name).join("cert.pem"));
        }
    }
    let is_certificate = |name: &String| [".pem", ".crt"].iter().any(|end| name.ends_with(end));
    let local = machine.list(Path::new(LOCAL))?;
    found.extend(local.into_iter().filter(is_certificate).map(|name| Path::new(LOCAL).join(name)));
    // Beside them lie keys.
    let is_one = |path: &PathBuf| {
        let text = machine.read_text(path).ok().flatten();
        text.is_some_and(|text| text.contains("-----BEGIN CERTIFICATE-----"))
    };
    found.retain(is_one);
    Ok(found)
}

/// Whether it is valid for longer than these seconds, and the end in openssl's words.
fn ends_after(machine: &dyn Machine, path: &Path, seconds: &str) -> Result<(bool, String), MachineError> {
    let ask = Cmd::new("openssl").args(["x509", "-noout", "-enddate", "-checkend", seconds, "-in"]).arg(path);
    let said = machine.run_text(ask.accept(1).timeout(DEADLINE))?;
    let until = said.lines().find_map(|line| line.strip_prefix("notAfter=")).unwrap_or("an unknown day");
    Ok((said.ends_with("Certificate will not expire"), until.to_owned()))
}
