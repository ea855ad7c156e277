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

#[test]
fn advice_is_given_where_it_is_due_and_nowhere_else() {
    const QUIET: &str = "name: a\ndistro: Debian 13\nprofile: server\n";
    const LAYOUT: &str = "zfs_layout:\n  rpool/srv/a: recordsize=8k\n";
    const SNAPSHOTS: &str = "snapshot_policy: hourly=4\n";
    const VERIFY: &str = "verify:\n  - name: it works\n    command: \"true\"\n";
    let table: [(String, &[&str]); 11] = [
        (format!("{LAYOUT}{SNAPSHOTS}{VERIFY}"), &[]),
        (format!("{LAYOUT}{SNAPSHOTS}"), &["no-verify"]),
        (format!("{LAYOUT}{VERIFY}"), &["no-snapshots"]),
        (format!("{LAYOUT}{VERIFY}snapshot_policy: none\n"), &["no-snapshots"]),
        (format!("{LAYOUT}{VERIFY}snapshot_policy: hourly=0\n"), &["no-snapshots"]),
        (
            format!("{LAYOUT}{SNAPSHOTS}{VERIFY}network_topology:\n  eth0: TCP 443 web\n"),
            &["open-without-rate"],
        ),
        (format!("{LAYOUT}{SNAPSHOTS}{VERIFY}network_topology:\n  eth0: TCP 443 web rate 9/second\n"), &[]),
        (
            format!(
                "{SNAPSHOTS}{VERIFY}zfs_layout:\n  rpool/srv/a: encryption=on\ndr_procedure:\n  1. zpool import\n"
            ),
            &["key-not-kept"],
        ),
        (
            format!(
                "{SNAPSHOTS}{VERIFY}zfs_layout:\n  rpool/srv/a: encryption=on\ndr_procedure:\n  1. zfs load-key\n"
            ),
            &[],
        ),
        (
            format!(
                "{LAYOUT}{SNAPSHOTS}{VERIFY}network_topology:\n  wg2: syncoid\nreplication_policy:\n  target: b@10.8.2.9:t\n  schedule: hourly\n  encryption: at-rest via ZFS\n"
            ),
            &["not-encrypted-at-rest"],
        ),
        (
            format!(
                "{LAYOUT}{SNAPSHOTS}{VERIFY}services:\n  - unit: x.service\n    environment: API_TOKEN=abc  KEY_FILE=/x  DB_PASSWORD_FILE=/y\n"
            ),
            &["secret-in-environment"],
        ),
    ];
    for (rest, expected) in table {
        let text = format!("{QUIET}{rest}");
        let checked = check(&text);
        assert!(checked.appliance.is_some(), "{}", shown(&text));
        let codes: Vec<&str> = checked.diagnostics.iter().map(|d| d.code).collect();
        assert_eq!(codes, expected, "{text}");
    }
}

#[test]
fn planes_have_defaults_that_open_one_port() {
    let text = "name: a\ndistro: Debian 13\nprofile: server\nzfs_layout:\n  rpool/srv/a: recordsize=8k\n\
                network_topology:\n  wg0: TCP 22\n  wg2: syncoid\n\
                wireguard:\n  peers:\n    - name: p\n      plane: wg0\n      public_key: mDwZ9oVXXkSjlkPBBFnHDmoDjVl1LUNLgDVeYQWDfUA=\n      allowed_ips: 10.8.0.1/32\n\
                replication_policy:\n  target: b@10.8.2.1:tank\n  schedule: hourly\n";
    let appliance = check(text).appliance.unwrap_or_else(|| panic!("{}", shown(text)));
    let planes: Vec<String> = appliance
        .planes
        .iter()
        .map(|p| format!("{} {} {} {:?}", p.interface.value, p.address.value, p.port.value, p.carrier.value))
        .collect();
    expect![[r#"
        [
            "wg0 10.8.0.2/24 51820 Public",
            "wg2 10.8.2.2/24 51822 Plane(InterfaceName(\"wg0\"))",
        ]
    "#]]
    .assert_debug_eq(&planes);
    assert!(appliance.planes.iter().all(|plane| !plane.address.span.is_written()));
    assert!(appliance.plane(&appliance.planes[0].interface).is_some());
}

#[test]
fn distributions_are_named_as_people_name_them() {
    use kld_manifest::model::DistroFamily::*;
    let table = [
        ("Debian 13", Debian, Some("13")),
        ("debian trixie", Debian, Some("trixie")),
        ("Rocky Linux 9", Rocky, Some("9")),
        ("CentOS Stream 10", CentosStream, Some("10")),
        ("CentOS 9", CentosStream, Some("9")),
        ("Red Hat Enterprise Linux 9.4", Rhel, Some("9.4")),
        ("Ubuntu 24.04", Ubuntu, Some("24.04")),
        ("Arch Linux", Arch, None),
        ("Alpine 3.20", Alpine, Some("3.20")),
        ("Fedora", Fedora, None),
    ];
    for (written, family, release) in table {
        let text = format!("name: a\ndistro: {written}\nprofile: core\n");
        let appliance = check(&text).appliance.unwrap_or_else(|| panic!("{}", shown(&text)));
        assert_eq!(
            (appliance.distro.family, appliance.distro.release.as_deref()),
            (family, release),
            "{written}"
        );
    }
}
