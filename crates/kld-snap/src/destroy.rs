//! What removes snapshots: many at a time, of whatever datasets of a pool, or those of one dataset.

use std::collections::BTreeMap;

use kld_host::{Cmd, ParseError};
use serde::Deserialize;

use crate::snapshot::{DEADLINE, Snapshot};

/// Lua for zfs-program(8), whose words are full names. It gives back what came free, by dataset, and the names of those that stay
/// with the reason, as errno(3).
const PROGRAM: &str = r#"
local refused, freed, dataset, before = {}, {}, nil, nil
local function settle()
    if before then
        local after = zfs.get_prop(dataset, "usedbysnapshots")
        freed[dataset] = (freed[dataset] or 0) + before - after
    end
end
for _, name in ipairs((...)["argv"]) do
    local of = string.match(name, "[^@]*")
    if of ~= dataset then
        settle()
        -- Asking for properties of what somebody has destroyed meanwhile would end the program.
        dataset, before = of, zfs.exists(of) and zfs.get_prop(of, "usedbysnapshots")
    end
    if before then
        local why = zfs.sync.destroy(name)
        if why ~= 0 then refused[name] = why end
    end
end
settle()
return { refused = refused, freed = freed }
"#;

/// What [`destroy_together_cmd`] has done.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Destroyed {
    /// Bytes that came free, by dataset.
    pub freed: BTreeMap<String, u64>,
    /// Full names of the snapshots that stay, and why: errno(3).
    pub refused: BTreeMap<String, i64>,
}

/// Removes these snapshots of one pool in one transaction group; [`crate::Pace`] says how many that should be. One that cannot go
/// keeps no other: one that is held, cloned, sent, or mounted below `.zfs`, which [`destroy_cmd`] unmounts; one that is gone already is
/// none. For root alone. Its output is read with [`parse_destroyed`].
pub fn destroy_together_cmd(pool: &str, snapshots: &[Snapshot]) -> Cmd {
    Cmd::new("zfs")
        .args(["program", "-j", pool, "-"])
        .args(snapshots.iter().map(Snapshot::full))
        .stdin_bytes(PROGRAM.as_bytes())
        .timeout(DEADLINE)
}

/// Reads the output of [`destroy_together_cmd`].
///
/// # Errors
/// When it is not what `zfs program -j` prints.
pub fn parse_destroyed(text: &str) -> Result<Destroyed, ParseError> {
    #[derive(Deserialize)]
    struct Said {
        r#return: Destroyed,
    }
    let error = |error: serde_json::Error| ParseError { tool: "zfs program", reason: error.to_string() };
    serde_json::from_str(text).map(|said: Said| said.r#return).map_err(error)
}

/// Removes these snapshots of one dataset in one transaction group, all of them or none. What it frees is read with
/// [`crate::parse_reclaim`].
pub fn destroy_cmd(dataset: &str, names: &[String]) -> Cmd {
    let list = format!("{dataset}@{}", names.join(","));
    Cmd::new("zfs").args(["destroy", "-vp"]).arg(list).timeout(DEADLINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_and_what_stays_is_read() {
        let text =
            r#"{"return":{"freed":{"t/a b":4096},"refused":{"t/a b@x-20261127-041300":16,"t@\u00fc":17}}}"#;
        let said = parse_destroyed(text).expect("good");
        assert_eq!(said.refused.into_keys().collect::<Vec<_>>(), ["t/a b@x-20261127-041300", "t@ü"]);
        assert_eq!(said.freed["t/a b"], 4096);
        let nothing = Destroyed { freed: BTreeMap::new(), refused: BTreeMap::new() };
        assert_eq!(parse_destroyed("{\"return\":{\"freed\":{},\"refused\":{}}}\n"), Ok(nothing));
        assert!(parse_destroyed("").is_err() && parse_destroyed("{\"return\":{}}").is_err());
    }
}
