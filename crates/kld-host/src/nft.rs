//! `nft --json list ruleset`: which tables and chains the kernel really has, and what they do by default.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::{Cmd, ParseError};

const DEADLINE: Duration = Duration::from_secs(10);

/// The loaded rules, as far as a health probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    /// By family, table and name: `("inet", "kldload", "input")`.
    pub chains: BTreeMap<(String, String, String), Chain>,
}

/// One chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// `input`, `forward`, `output` …; `None` for a chain that others jump to.
    pub hook: Option<String>,
    /// `accept` or `drop`, of a chain with a hook.
    pub policy: Option<String>,
    /// How many rules it has.
    pub rules: usize,
}

/// The loaded rules as JSON.
pub fn list_cmd() -> Cmd {
    Cmd::new("nft").args(["--json", "list", "ruleset"]).timeout(DEADLINE)
}

/// Reads and applies a file of rules in one transaction.
pub fn load_cmd(file: &std::path::Path) -> Cmd {
    Cmd::new("nft").arg("--file").arg(file).timeout(DEADLINE)
}

#[derive(Deserialize)]
struct Document {
    nftables: Vec<Object>,
}

/// One object of the ruleset; `libnftables-json(5)`. Kinds that are not asked for are left unread.
#[derive(Deserialize)]
struct Object {
    chain: Option<ChainObject>,
    rule: Option<RuleObject>,
}

#[derive(Deserialize)]
struct ChainObject {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
}

#[derive(Deserialize)]
struct RuleObject {
    family: String,
    table: String,
    chain: String,
}

/// Reads the output of [`list_cmd`].
///
/// # Errors
/// When it is not that JSON.
pub fn parse_list(json: &str) -> Result<Ruleset, ParseError> {
    let document: Document = serde_json::from_str(json)
        .map_err(|source| ParseError { tool: "nft --json list ruleset", reason: source.to_string() })?;
    let mut ruleset = Ruleset::default();
    for object in document.nftables {
        if let Some(chain) = object.chain {
            let key = (chain.family, chain.table, chain.name);
            let found = ruleset.chains.entry(key).or_default();
            (found.hook, found.policy) = (chain.hook, chain.policy);
        }
        if let Some(rule) = object.rule {
            ruleset.chains.entry((rule.family, rule.table, rule.chain)).or_default().rules += 1;
        }
    }
    Ok(ruleset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_chains_policies_and_counts() {
        let json = r#"{"nftables": [
          {"metainfo": {"version": "1.1.3", "release_name": "Commodore Bullmoose #4", "json_schema_version": 1}},
          {"table": {"family": "inet", "name": "kldload", "handle": 1}},
          {"chain": {"family": "inet", "table": "kldload", "name": "input", "handle": 1, "type": "filter",
                     "hook": "input", "prio": 0, "policy": "drop"}},
          {"chain": {"family": "inet", "table": "kldload", "name": "mesh", "handle": 2}},
          {"rule": {"family": "inet", "table": "kldload", "chain": "input", "handle": 3, "expr": [{"accept": null}]}},
          {"rule": {"family": "inet", "table": "kldload", "chain": "input", "handle": 4, "expr": [{"drop": null}]}}
        ]}"#;
        let ruleset = parse_list(json).expect("is what nft writes");
        let key = |name: &str| ("inet".to_owned(), "kldload".to_owned(), name.to_owned());
        let input = Chain { hook: Some("input".to_owned()), policy: Some("drop".to_owned()), rules: 2 };
        assert_eq!(ruleset.chains[&key("input")], input);
        assert_eq!(ruleset.chains[&key("mesh")], Chain::default());
        assert_eq!(parse_list(r#"{"nftables": []}"#), Ok(Ruleset::default()));
        assert!(parse_list("table inet x {}").is_err());
    }
}
