//! What holds for every appliance.

mod appliances;

use std::collections::BTreeSet;

use appliances::*;
use kld_manifest::model::*;
use kld_system::{Content, Created, System, explain, render};
use proptest::prelude::*;

fn rendered(appliance: &Appliance) -> System {
    render(appliance).unwrap_or_else(|error| panic!("{error}"))
}

/// An appliance with services on random ports of two planes and of the public interface.
fn any_appliance() -> impl Strategy<Value = Appliance> {
    let services = proptest::collection::btree_map(1024u16..40000, 0usize..4, 0..6);
    let datasets = proptest::collection::btree_set("[a-z]{1,6}(/[a-z]{1,6}){0,2}", 0..5);
    (services, datasets, any::<bool>(), any::<bool>()).prop_map(|(services, datasets, ssh, unrestricted)| {
        let mut appliance = webapp();
        appliance.outbound.unrestricted = unrestricted;
        appliance.services.clear();
        appliance.datasets.clear();
        let mut open: [Vec<u16>; 3] = Default::default();
        for (port, place) in services {
            let mut wanted = service(100, &format!("app{port}.service"), Some("/usr/bin/true"));
            let on = match place {
                0 => ListenOn::Plane(n("wg0")),
                1 => ListenOn::Plane(n("wg1")),
                2 => ListenOn::Public(n("eth0")),
                _ => ListenOn::Loopback,
            };
            wanted.listens = vec![listen(101, on, port)];
            if let Some(zone) = open.get_mut(place) {
                zone.push(port);
            }
            appliance.services.push(wanted);
        }
        if ssh {
            open[0].push(22);
        }
        let zone_of = |name, kind, open: &[u16]| {
            zone(
                15,
                name,
                kind,
                open.iter().map(|port| allow(15, Protocol::Tcp, &[*port], "a service")).collect(),
            )
        };
        appliance.zones = vec![
            zone_of("wg0", ZoneKind::Plane, &open[0]),
            zone_of("wg1", ZoneKind::Plane, &open[1]),
            zone_of("eth0", ZoneKind::Public, &open[2]),
        ];
        let prefix = |name: &String| format!("rpool/data/{name}");
        appliance.datasets =
            datasets.iter().map(|d| dataset(10, &prefix(d), &format!("/data/{d}"), &[])).collect();
        appliance
    })
}

fn shuffled<T>(list: &mut [T], seed: usize) {
    if !list.is_empty() {
        let by = seed % list.len();
        list.rotate_left(by);
        if seed % 2 == 1 {
            list.reverse();
        }
    }
}

/// The accepting rules of input for a port: chain and text.
fn opening_rules(system: &System, protocol: &str, port: u16) -> Vec<(String, String)> {
    let firewall =
        system.files.iter().find(|f| f.path == "/etc/nftables.conf").expect("a server has a firewall");
    firewall
        .parts
        .iter()
        .filter_map(|part| part.value.split_once(": "))
        .filter(|(chain, _)| *chain == "public" || chain.starts_with("plane_"))
        .filter(|(_, rule)| *rule == format!("{protocol} dport {port} accept"))
        .map(|(chain, rule)| (chain.to_owned(), rule.to_owned()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_the_manifest_does_not_matter(appliance in any_appliance(), seed in 0usize..100) {
        let first = rendered(&appliance);
        let mut other = appliance;
        shuffled(&mut other.datasets, seed);
        shuffled(&mut other.zones, seed / 2);
        shuffled(&mut other.planes, seed / 3);
        shuffled(&mut other.services, seed / 5);
        shuffled(&mut other.users, seed);
        shuffled(&mut other.packages, seed);
        shuffled(&mut other.files, seed);
        for zone in &mut other.zones {
            shuffled(&mut zone.allow, seed);
        }
        prop_assert_eq!(first, rendered(&other));
    }

    #[test]
    fn every_listening_service_has_one_opening_rule_in_its_zone(appliance in any_appliance()) {
        let system = rendered(&appliance);
        for service in &appliance.services {
            let listen = &service.listens[0];
            let rules = opening_rules(&system, "tcp", listen.port);
            let chains: Vec<_> = rules.iter().map(|(chain, _)| chain.as_str()).collect();
            match &listen.on {
                ListenOn::Plane(plane) => prop_assert_eq!(chains, vec![format!("plane_{plane}")]),
                ListenOn::Public(_) => prop_assert_eq!(chains, vec!["public"]),
                ListenOn::Loopback => prop_assert!(chains.is_empty()),
            }
        }
    }

    #[test]
    fn no_rule_opens_a_port_that_nobody_asked_for(appliance in any_appliance()) {
        let system = rendered(&appliance);
        let asked: BTreeSet<(String, u16)> = appliance
            .zones
            .iter()
            .flat_map(|z| z.allow.iter().flat_map(|a| a.ports.iter().map(|p| (format!("tcp {}", z.interface.value), p.first))))
            .chain([("udp eth0".to_owned(), 51820), ("udp wg0".to_owned(), 51821)])
            .map(|(place, port)| (place.replace("eth0", "*"), port))
            .collect();
        let node = system.node.expect("a server knows itself");
        let open: BTreeSet<(String, u16)> =
            node.open_ports.iter().map(|p| (format!("{} {}", p.protocol, p.interface), p.first)).collect();
        prop_assert_eq!(asked, open);
    }

    #[test]
    fn everything_has_a_reason_and_parents_come_first(appliance in any_appliance()) {
        let system = rendered(&appliance);
        for row in explain(&system) {
            prop_assert!(!row.reason.is_empty() && !row.reason.ends_with('.'), "{:?}", row);
        }
        let mut seen = BTreeSet::new();
        for dataset in &system.datasets {
            prop_assert!(dataset.name.parent().is_none_or(|p| seen.contains(&p)), "{}", dataset.name);
            prop_assert!(dataset.property("mountpoint").is_some() && dataset.property("canmount").is_some());
            seen.insert(dataset.name.clone());
        }
        prop_assert!(seen.contains(&system.boot_dataset));
    }

    #[test]
    fn the_node_file_reads_back(appliance in any_appliance()) {
        let node = rendered(&appliance).node.expect("a server knows itself");
        let read = kld_system::NodeConfig::parse(&node.to_text()).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(node, read);
    }
}

#[test]
fn every_unit_that_binds_to_a_plane_waits_for_the_mesh() {
    for appliance in [webapp(), gitea()] {
        let system = rendered(&appliance);
        let text =
            |path: &str| match &system.files.iter().find(|f| f.path.contains(path)).expect(path).content {
                Content::Text(text) => text.clone(),
                other => panic!("{path}: {other:?}"),
            };
        let waiting = [
            "ssh.service.d/",
            "prometheus-node-exporter.service.d/",
            if appliance.replication.is_some() {
                "kldload-replicate.service"
            } else {
                "system/webapp.service"
            },
        ];
        for unit in waiting {
            let text = text(unit);
            assert!(text.contains("After=kldload-mesh.service\n"), "{unit}: {text}");
            assert!(text.contains("Requires=kldload-mesh.service\n"), "{unit}: {text}");
        }
        let identity = text("system/kldload-identity.service");
        assert!(
            identity.contains("kldload-mesh.service") && identity.contains("systemd-networkd.service"),
            "{identity}"
        );
    }
}

#[test]
fn no_secret_is_in_what_is_rendered() {
    for appliance in [webapp(), gitea()] {
        let system = rendered(&appliance);
        for file in &system.files {
            let Content::Text(text) = &file.content else { continue };
            for word in ["PRIVATE KEY", "PrivateKey=", "PresharedKey="] {
                assert!(!text.contains(word), "{}: {text}", file.path);
            }
        }
    }
}

#[test]
fn what_is_inside_an_encrypted_dataset_is_made_on_the_machine_too() {
    let mut appliance = gitea();
    appliance.datasets.push(dataset(99, "rpool/srv/gitea-lfs/objects", "/srv/gitea-lfs/objects", &[]));
    let system = rendered(&appliance);
    let created = |name: &str| system.datasets.iter().find(|d| d.name.as_str() == name).map(|d| d.created);
    assert_eq!(created("rpool/srv/gitea-lfs/objects"), Some(Created::OnNode("aes-256-gcm")));
    assert_eq!(created("rpool/srv/gitea"), Some(Created::InImage));
    let node = system.node.expect("a server knows itself");
    let keys: Vec<_> = node.encrypted.iter().map(|e| (e.dataset.as_str(), e.key.is_some())).collect();
    assert_eq!(keys, [("rpool/srv/gitea-lfs", true), ("rpool/srv/gitea-lfs/objects", false)]);
}

#[test]
fn contradictions_are_errors_that_name_both_sides() {
    type Change = fn(&mut Appliance);
    let table: [(Change, &str, u32); 10] = [
        (
            |a| a.distro.value = Distro { family: DistroFamily::Rocky, release: Some("9".to_owned()) },
            "cannot choose a distribution",
            2,
        ),
        (
            |a| a.profile.value = Profile::Desktop,
            "cannot build the profile `desktop`: kldload has no graphical session yet",
            3,
        ),
        (
            |a| a.profile.value = Profile::Core,
            "cannot put a WireGuard plane into the profile `core`: it holds nothing of kldload",
            20,
        ),
        (
            |a| a.files[1].path = at(56, "/etc/nftables.conf".to_owned()),
            "cannot write `/etc/nftables.conf` twice: for firewall, and for files",
            56,
        ),
        (
            |a| a.datasets.push(dataset(12, "rpool/mine", "/home", &[])),
            "cannot mount `rpool/mine` on `/home`: `rpool/home` is mounted there",
            12,
        ),
        (
            |a| {
                a.datasets[0].encryption = Some(at(10, Encryption::Aes256Gcm));
                a.files[0].path = at(55, "/srv/webapp/app".to_owned());
            },
            "cannot put `/srv/webapp/app` into the image: `rpool/srv/webapp` is encrypted and made on the machine",
            55,
        ),
        (
            |a| a.services.push(service(44, "apt-daily.timer", None)),
            "cannot both start and stop `apt-daily.timer`: packages change in a new boot environment, never behind the operator's back, but a service of the manifest",
            44,
        ),
        (
            |a| {
                a.services[0].hardening.push(Directive {
                    name: "ProtectHostname".into(),
                    value: "private".into(),
                    span: span(45),
                })
            },
            "cannot write `ProtectHostname=private` for Debian GNU/Linux 13 (trixie): systemd 258 is the first that knows it, and this is 257",
            45,
        ),
        (
            |a| {
                a.distro.value.release = Some("12".to_owned());
                a.services[0].hardening.push(Directive {
                    name: "PrivatePIDs".into(),
                    value: "yes".into(),
                    span: span(45),
                });
            },
            "cannot write `PrivatePIDs=yes` for Debian GNU/Linux 12 (bookworm): systemd 257 is the first that knows it, and this is 252",
            45,
        ),
        (
            |a| {
                a.distro.value.release = Some("12".to_owned());
                a.containers = gitea().containers;
            },
            "cannot run containers on Debian GNU/Linux 12 (bookworm): its Podman is older than 4.4, the first that makes units of them",
            54,
        ),
    ];
    for (change, message, line) in table {
        let mut appliance = webapp();
        change(&mut appliance);
        let error = render(&appliance).expect_err(message);
        assert_eq!(error.to_string(), message);
        assert_eq!(error.span().line, line, "{message}");
        assert!(error.hint().is_some_and(|hint| !hint.is_empty()));
    }
}

/// What it does not have is not in its way.
#[test]
fn a_manifest_of_the_profile_core_needs_no_more_than_its_head() {
    let text = "name: plain\npurpose: p\nowner: o  o@example.com\ndistro: Debian 12\nprofile: core\n";
    let system = rendered(&kld_manifest::check(text).appliance.expect("it is good"));
    assert_eq!(system.host_name.map(|name| name.to_string()).as_deref(), Some("plain"));
    assert!(system.files.iter().all(|file| !file.path.contains("kldload")));
}

/// systemd takes credentials by a pattern since 254.
#[test]
fn what_a_person_gives_reaches_every_release() {
    let given = |release: &str| {
        let mut appliance = webapp();
        appliance
            .secrets
            .push(Secret { name: at(38, n("api-token")), source: at(38, SecretSource::Supplied) });
        appliance.distro.value.release = Some(release.to_owned());
        let system = rendered(&appliance);
        let unit = system.files.iter().find(|f| f.path.ends_with("/kldload-identity.service"));
        let Content::Text(text) = &unit.expect("it is there").content else { panic!("a text") };
        let lines = text.lines().filter(|line| line.contains("Credential="));
        lines.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(given("13"), "ImportCredential=kldload.*");
    assert_eq!(given("12"), "LoadCredential=kldload.operator LoadCredential=kldload.secret.api-token");
}

#[test]
fn the_recipe_becomes_a_machine() {
    let appliance = recipe();
    let system = rendered(&appliance);
    let node = system.node.as_ref().expect("a server knows itself");
    assert_eq!(node.verify.len(), appliance.verify.len());
    for wanted in &appliance.datasets {
        let made =
            system.datasets.iter().find(|d| d.name == wanted.name.value).expect("every dataset is made");
        for property in &wanted.properties {
            assert_eq!(made.property(&property.name), Some(property.value.as_str()), "{}", wanted.name.value);
        }
        assert_eq!(made.mounted_at(), wanted.mountpoint.as_ref().map(|m| m.value.as_str()));
    }
    for service in &appliance.services {
        let unit =
            format!("/etc/systemd/system/{}", service.unit.value.as_str().trim_end_matches(".service"));
        assert!(system.files.iter().any(|f| f.path.starts_with(&unit)), "{unit}");
    }
}
