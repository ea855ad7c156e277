//! Manifests that are accepted: the two of the masterclass as they stand there, and a complete web application.

use expect_test::{expect, expect_file};
use kld_manifest::{Severity, check, render};

const GITEA: &str = include_str!("seed/gitea.manifest");
const TEMPLATE: &str = include_str!("seed/template.manifest");
const WEBAPP: &str = include_str!("accepted/webapp.manifest");

fn shown(text: &str) -> String {
    check(text).diagnostics.iter().map(|d| render("f", text, d)).collect()
}

#[test]
fn the_git_server_is_accepted_as_written() {
    let checked = check(GITEA);
    expect![[r#"
        warning: nothing proves that the machine does its job: there is no `verify` section
          --> f
           = hint: add `verify:` with a `- name:` and a `command:` that fails when the service does not answer
        warning: anybody may open connections on `eth0` at any rate
          --> f:15:11
           |
        15 |   eth0:   TCP 80,443 (HTTPS only — Nginx reverse proxy)
           |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
           = hint: add `rate 20/second`, or `from NETWORK`; the default rate limit is used otherwise
    "#]]
    .assert_eq(&shown(GITEA));
    let appliance = checked.appliance.expect("only warnings");
    expect_file!["accepted/gitea.model"].assert_eq(&format!("{appliance:#?}\n"));
}

#[test]
fn the_template_lists_what_is_to_be_filled_in_and_nothing_else() {
    let checked = check(TEMPLATE);
    assert!(checked.appliance.is_none());
    assert!(checked.diagnostics.iter().all(|d| d.severity == Severity::Placeholder), "{}", shown(TEMPLATE));
    let list: String = checked.diagnostics.iter().map(|d| format!("{}: {}\n", d.span, d.message)).collect();
    expect![[r#"
        3:14: `<appliance name>` is still to be filled in
        4:14: `<one sentence>` is still to be filled in
        5:14: `<name, contact>` is still to be filled in
        6:14: `<CentOS / Debian / Rocky / Ubuntu / Fedora / Arch>` is still to be filled in
        7:14: `<desktop / server / core>` is still to be filled in
        10:13: `<name>` is still to be filled in
        11:13: `<name>` is still to be filled in
        12:13: `<name>` is still to be filled in
        15:11: `<public interface — what ports are exposed and to whom>` is still to be filled in
        16:11: `<management backplane — who has peers, what services listen here>` is still to be filled in
        17:11: `<monitoring backplane — Prometheus scrape target, node_exporter>` is still to be filled in
        18:11: `<replication backplane — syncoid source/target, direction>` is still to be filled in
        21:15: `<systemd unit name>` is still to be filled in
        22:15: `<interface:port>` is still to be filled in
        23:15: `<rpool/srv/...>` is still to be filled in
        34:19: `<user@host:pool/dataset>` is still to be filled in
        50:12: `<dataset>` is still to be filled in
        53:42: `<date>` is still to be filled in
        56:35: `<pool>` is still to be filled in
        57:38: `<units>` is still to be filled in
        60:18: `<X minutes>` is still to be filled in
        60:43: `<Y minutes>` is still to be filled in
    "#]]
    .assert_eq(&list);
    let first = &checked.diagnostics[0];
    expect![[r#"
        to fill in: `<appliance name>` is still to be filled in
          --> appliance.manifest:3:14
           |
         3 | name:        <appliance name>
           |              ^^^^^^^^^^^^^^^^
    "#]]
    .assert_eq(&render("appliance.manifest", TEMPLATE, first));
}

#[test]
fn the_web_application_is_accepted() {
    expect![[""]].assert_eq(&shown(WEBAPP));
    let appliance = check(WEBAPP).appliance.expect("no errors");
    expect_file!["accepted/webapp.model"].assert_eq(&format!("{appliance:#?}\n"));
}
