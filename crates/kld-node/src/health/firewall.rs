//! Whether the firewall is loaded and drops what nobody allowed.

use super::{Probe, Status, View};
use kld_host::nft;

pub(super) fn probe(view: &View) -> Vec<Probe> {
    let Some(config) = &view.config else {
        return vec![Probe::new("firewall", Status::Info, "kldload has set up none")];
    };
    let (family, table) = config.firewall_table.split_once(' ').unwrap_or(("inet", &config.firewall_table));
    let answer = view.machine.run_text(nft::list_cmd());
    let ruleset = match answer.and_then(|json| Ok(nft::parse_list(&json)?)) {
        Ok(ruleset) => ruleset,
        Err(error) => return vec![Probe::unanswered("firewall", &error)],
    };
    let chains: Vec<_> = ruleset
        .chains
        .iter()
        .filter(|((f, t, _), _)| f == family && t == table)
        .map(|(_, chain)| chain)
        .collect();
    let drops = |hook: &str| {
        chains
            .iter()
            .any(|chain| chain.hook.as_deref() == Some(hook) && chain.policy.as_deref() == Some("drop"))
    };
    let reload = "systemctl restart nftables.service";
    vec![if chains.is_empty() {
        Probe::new("firewall", Status::Fail, format!("table `{}` is not loaded", config.firewall_table))
            .with_command(reload)
    } else if let Some(hook) = ["input", "forward"].into_iter().find(|hook| !drops(hook)) {
        Probe::new("firewall", Status::Fail, format!("what nobody allowed is not dropped on {hook}"))
            .with_command(reload)
    } else {
        let rules: usize = chains.iter().map(|chain| chain.rules).sum();
        Probe::new("firewall", Status::Ok, format!("{rules} rules, everything else is dropped"))
            .with_command(format!("nft list table {}", config.firewall_table))
    }]
}
