//! Whether the kernel has the rules of the manifest: somebody may have flushed them, or added some.

use std::collections::BTreeMap;

use kld_host::ExecError;
use kld_host::nft::{self, Chain};
use kld_system::Ruleset;

use crate::host::{Host, HostError};
use crate::wanted::Wanted;

/// The file that they are loaded from.
pub(crate) const RULES: &str = "/etc/nftables.conf";
/// The unit that loads them.
pub(crate) const UNIT: &str = "nftables.service";

/// Compares the table of the manifest, chain by chain: where the kernel calls it, what it does with the rest, and how many
/// rules it has. Tables of others are theirs. Where `nft` is not there yet, its package will come, and load them.
pub(crate) fn is_loaded(host: &dyn Host, wanted: &Wanted) -> Result<bool, HostError> {
    if !wanted.files.contains_key(RULES) {
        return Ok(true);
    }
    let text = match host.text(&nft::list_cmd()) {
        Err(HostError::Exec(ExecError::Missing { .. })) => return Ok(true),
        answer => answer?,
    };
    let (family, table) = Ruleset::TABLE;
    let found = nft::parse_list(&text)?.chains.into_iter();
    let found = found.filter(|((of, name, _), _)| of == family && name == table);
    let found: BTreeMap<String, Chain> = found.map(|((_, _, name), chain)| (name, chain)).collect();
    let wanted = wanted.system.firewall.outlines().map(|outline| {
        let chain = Chain {
            hook: outline.hook.map(str::to_owned),
            policy: outline.policy.map(str::to_owned),
            rules: outline.rules,
        };
        (outline.name.to_owned(), chain)
    });
    Ok(found == wanted.collect())
}
