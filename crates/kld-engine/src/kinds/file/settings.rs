//! Settings of the kernel, which a file of sysctl.d(5) gives it: without the file they stay until the machine restarts.

use std::collections::BTreeMap;

use kld_host::Cmd;

use crate::host::{Host, HostError};

/// What the kernel has been told, by path below `/proc/sys`.
pub(crate) type Settings = BTreeMap<String, String>;

const FILES: &str = "/etc/sysctl.d/";
const LIVE: &str = "/proc/sys/";

/// Whether the kernel is told what is in a file.
pub(super) fn is_file(path: &str) -> bool {
    path.starts_with(FILES)
}

/// What the kernel has been told of all that the file is about, as it is and as it will be.
pub(super) fn look(host: &dyn Host, path: &str, new: &str) -> Result<Settings, HostError> {
    let old = host.read(path)?.unwrap_or_default();
    let mut settings = Settings::new();
    for key in old.lines().chain(new.lines()).filter_map(key) {
        for key in matching(host, &key)? {
            settings.extend(live(host, &key).map(|value| (key, value)));
        }
    }
    Ok(settings)
}

/// Tells the kernel again what it had been told. Some doors can only be closed (`kernel.unprivileged_bpf_disabled`): what it does
/// not take back stays until the machine restarts, and is no reason to stop.
pub(crate) fn put_back(host: &dyn Host, settings: &Settings) -> Result<(), HostError> {
    let differ = settings.iter().filter(|(key, value)| live(host, key).as_ref() != Some(*value));
    let text: String = differ.map(|(key, value)| format!("-{key} = {value}\n")).collect();
    if text.is_empty() {
        return Ok(());
    }
    host.run(&Cmd::new("/usr/lib/systemd/systemd-sysctl").arg("/dev/stdin").stdin_bytes(text)).map(drop)
}

/// The settings that are not as they were, for people.
pub(crate) fn shown(host: &dyn Host, settings: &Settings) -> Vec<String> {
    let differ = settings.iter().filter_map(|(key, value)| {
        let now = live(host, key).filter(|now| now != value)?;
        Some(format!("{} {now} → {value}", key.replace('/', ".")))
    });
    differ.collect()
}

/// One that cannot be read has no value to go back to.
fn live(host: &dyn Host, key: &str) -> Option<String> {
    let text = host.read(&format!("{LIVE}{key}")).ok().flatten()?;
    let value = text.trim();
    (!value.is_empty() && !value.contains('\n')).then(|| value.to_owned())
}

/// The key of a line, with slashes. The first separator says which of the two it is: `net.ipv4.conf.eth0/1.rp_filter`.
fn key(line: &str) -> Option<String> {
    let line = line.trim();
    let (key, _) = line.split_once('=').filter(|_| !line.starts_with(['#', ';']))?;
    let key = key.trim().trim_start_matches('-').trim();
    let dots_separate = key.find(['.', '/']).is_some_and(|at| key[at..].starts_with('.'));
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let key: String = if dots_separate { key.chars().map(swap).collect() } else { key.to_owned() };
    let is_below = key.split('/').all(|part| !matches!(part, "" | "." | ".."));
    is_below.then_some(key)
}

/// The keys that one with `*` in it stands for.
fn matching(host: &dyn Host, key: &str) -> Result<Vec<String>, HostError> {
    let mut found = vec![String::new()];
    for part in key.split('/') {
        let mut next = Vec::new();
        for above in &found {
            let names =
                if part == "*" { host.list(&format!("{LIVE}{above}"))? } else { vec![part.to_owned()] };
            next.extend(names.iter().map(|name| match above.as_str() {
                "" => name.clone(),
                above => format!("{above}/{name}"),
            }));
        }
        found = next;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_keys_as_sysctl_d_reads_them() {
        for (line, want) in [
            ("vm.swappiness = 13", Some("vm/swappiness")),
            (" -net/ipv4/conf/eth0.1/rp_filter=2", Some("net/ipv4/conf/eth0.1/rp_filter")),
            ("net.ipv4.conf.eth0/1.rp_filter=2", Some("net/ipv4/conf/eth0.1/rp_filter")),
            ("# vm.swappiness = 13", None),
            ("; a = b", None),
            ("-net.ipv4.conf.all.rp_filter", None),
            ("../etc/passwd = x", None),
        ] {
            assert_eq!(key(line).as_deref(), want, "{line}");
        }
    }
}
