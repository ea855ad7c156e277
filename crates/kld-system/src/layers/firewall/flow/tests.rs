//! Promises of the recipe, and rules that break them.

use super::*;
use crate::layers::firewall::rule::{Action, Match};
use crate::layers::firewall::verdict::{Ruleset, Way};
use crate::render;

/// The recipe, and something that goes out.
fn recipe() -> Ruleset {
    let text = include_str!("../../../../../../recipes/webapp/appliance.manifest");
    let more = "outbound:\n  - user: webapp\n    tcp: 443\n  - to: 198.51.100.25, 10.8.1.0/24\n    tcp: 25\n";
    let text = text.replace("\nwireguard:\n", &format!("\n{more}\nwireguard:\n"));
    let checked = kld_manifest::check(&text);
    let appliance = checked.appliance.unwrap_or_else(|| panic!("{:#?}", checked.diagnostics));
    render(&appliance).expect("it renders").firewall
}

fn accepted(rules: &Ruleset, is: impl Fn(&Way) -> bool) -> String {
    let flows = rules.flows().iter().filter(|flow| flow.wanted == Verdict::Accept && is(&flow.packet.way));
    let mut lines: Vec<String> = flows.map(|flow| flow.packet.to_string()).collect();
    lines.dedup();
    lines.join("\n")
}

#[test]
fn the_recipe_keeps_its_promises() {
    let rules = recipe();
    assert_eq!(rules.broken(), None);
    expect_test::expect![[r#"
        udp 192.0.2.99:40000 to 192.0.2.1:51820 through eth0
        udp [2001:db8::99]:40000 to [2001:db8::1]:51820 through eth0
        udp 10.8.0.2:40000 to 10.8.0.1:51821 through wg0
        udp 10.8.0.2:40000 to 10.8.0.1:51822 through wg0
        tcp 10.8.0.2:40000 to 10.8.0.1:22 through wg0
        tcp 10.8.0.2:40000 to 10.8.0.1:8000 through wg0
        tcp 10.8.1.2:40000 to 10.8.1.1:9100 through wg1
        tcp 127.0.0.1:40000 to 127.0.0.1:5432 through lo
        udp [fe80::1]:547 to [2001:db8::1]:546 through eth0"#]]
    .assert_eq(&accepted(&rules, |way| matches!(way, Way::In { .. })));
    let out = |way: &Way| matches!(way, Way::Out { interface, .. } if interface == "eth0");
    expect_test::expect![[r#"
        udp 192.0.2.1:40000 to 192.0.2.99:53 out through eth0 by systemd-resolve
        tcp 192.0.2.1:40000 to 192.0.2.99:53 out through eth0 by systemd-resolve
        udp 192.0.2.1:40000 to 192.0.2.99:123 out through eth0 by systemd-timesync
        tcp 192.0.2.1:40000 to 192.0.2.99:443 out through eth0 by webapp
        udp 192.0.2.1:68 to 192.0.2.99:67 out through eth0 by the kernel
        udp 192.0.2.1:546 to 192.0.2.99:547 out through eth0 by the kernel
        udp 192.0.2.1:51820 to 192.0.2.99:40001 out through eth0 by the kernel
        tcp 192.0.2.1:40000 to 198.51.100.25:25 out through eth0 by nobody
        tcp 192.0.2.1:40000 to 198.51.100.25:25 out through eth0 by root
        udp 192.0.2.1:40000 to 198.51.100.25:53 out through eth0 by systemd-resolve
        tcp 192.0.2.1:40000 to 198.51.100.25:25 out through eth0 by systemd-resolve
        tcp 192.0.2.1:40000 to 198.51.100.25:53 out through eth0 by systemd-resolve
        udp 192.0.2.1:40000 to 198.51.100.25:123 out through eth0 by systemd-timesync
        tcp 192.0.2.1:40000 to 198.51.100.25:25 out through eth0 by systemd-timesync
        tcp 192.0.2.1:40000 to 198.51.100.25:25 out through eth0 by webapp
        tcp 192.0.2.1:40000 to 198.51.100.25:443 out through eth0 by webapp
        udp 192.0.2.1:68 to 198.51.100.25:67 out through eth0 by the kernel
        udp 192.0.2.1:546 to 198.51.100.25:547 out through eth0 by the kernel
        udp 192.0.2.1:51820 to 198.51.100.25:40001 out through eth0 by the kernel
        udp [2001:db8::1]:40000 to [2001:db8::99]:53 out through eth0 by systemd-resolve
        tcp [2001:db8::1]:40000 to [2001:db8::99]:53 out through eth0 by systemd-resolve
        udp [2001:db8::1]:40000 to [2001:db8::99]:123 out through eth0 by systemd-timesync
        tcp [2001:db8::1]:40000 to [2001:db8::99]:443 out through eth0 by webapp
        udp [2001:db8::1]:68 to [2001:db8::99]:67 out through eth0 by the kernel
        udp [2001:db8::1]:546 to [2001:db8::99]:547 out through eth0 by the kernel
        udp [2001:db8::1]:51820 to [2001:db8::99]:40001 out through eth0 by the kernel"#]]
    .assert_eq(&accepted(&rules, out));
    assert_eq!(accepted(&rules, |way| matches!(way, Way::Through { .. })), "", "this is no router");
    let forbidden = rules.flows().iter().filter(|flow| flow.wanted == Verdict::Drop);
    let ways = forbidden.map(|flow| std::mem::discriminant(&flow.packet.way));
    assert_eq!(ways.collect::<std::collections::HashSet<_>>().len(), 3, "something is forbidden in each way");
}

#[test]
fn a_wrong_rule_is_named_with_the_flow_and_the_line() {
    let broken = |spoil: &dyn Fn(&mut Ruleset)| {
        let mut rules = recipe();
        spoil(&mut rules);
        rules.broken().expect("it is seen").to_string()
    };
    let decides = |rules: &mut Ruleset, chain: &str, text: &str, action: Action| {
        let rule = rules.rules_of(chain).iter_mut().find(|rule| rule.value.to_string().contains(text));
        rule.expect("there is such a rule").value.action = action;
    };
    // An open door, and a closed one.
    expect_test::expect!["the rules would accept `udp 192.0.2.99:40000 to 192.0.2.1:22 through eth0` by `public: accept`, and must drop it (nothing opens udp 22 on eth0 to 192.0.2.99)"].assert_eq(&broken(&|rules| {
        rules.rules_of("public")[0].value.matches.clear();
        rules.rules_of("public")[0].value.action = Action::Accept;
    }));
    expect_test::expect!["the rules would drop `udp 10.8.0.2:40000 to 10.8.0.1:51821 through wg0` by `input: counter drop`, and must accept it (line 31: WireGuard of wg1: silent to whoever has no key)"].assert_eq(&broken(&|rules| rules.rules_of("plane_wg0").clear()));
    // The same for what goes out: a line is lost, an account is, everybody may, and in clear.
    expect_test::expect!["the rules would drop `tcp 10.8.1.1:40000 to 10.8.1.2:25 out through wg1 by nobody` by `output: ip daddr 10.8.1.0/24 tcp dport 25 counter drop`, and must accept it (line 26: asked for in the manifest)"]
        .assert_eq(&broken(&|rules| decides(rules, "output", "dport 25 ", Action::Drop)));
    expect_test::expect![[r#"the rules would accept `tcp 192.0.2.1:40000 to 192.0.2.99:443 out through eth0 by nobody` by `output: oifname != { "lo", "wg0", "wg1", "wg2" } tcp dport 443 accept`, and must drop it (line 23: nothing lets tcp 443 out through eth0)"#]].assert_eq(&broken(&|rules| {
        for rule in rules.rules_of("output") {
            rule.value.matches.retain(|of| !matches!(of, Match::User(user) if user == "800"));
        }
    }));
    expect_test::expect![[r#"the rules would accept `udp 192.0.2.1:40000 to 10.8.0.2:52 out through eth0 by nobody` by `output: oifname != "wg0" ip daddr 10.8.0.0/24 accept`, and must drop it (line 30: what is meant for peers of wg0 never leaves in clear)"#]]
        .assert_eq(&broken(&|rules| decides(rules, "output", "counter drop", Action::Accept)));
    expect_test::expect![[r#"the rules would accept `udp 192.0.2.1:40000 to 10.8.0.2:53 out through eth0 by systemd-resolve` by `output: meta skuid "systemd-resolve" udp dport 53 accept`, and must drop it (line 30: what is meant for peers of wg0 never leaves in clear)"#]].assert_eq(&broken(&|rules| drop(rules.rules_of("output").remove(1))));
    // And for what passes.
    expect_test::expect!["the rules would accept `udp 192.0.2.99:40000 to 10.8.0.2:443 passing from eth0 to wg0` by `forward: accept`, and must drop it (nothing lets udp 443 pass from eth0 to wg0)"]
        .assert_eq(&broken(&|rules| decides(rules, "forward", "drop", Action::Accept)));
}
