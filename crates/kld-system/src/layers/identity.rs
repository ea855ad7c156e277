//! The unit that gives a machine its identity, and the file it reads.
//!
//! An image has no identity. `kldload node init` runs at every start before anything that needs a key, and makes what is
//! missing; on a machine that has everything it changes nothing.

use kld_manifest::model::{Schedule, SecretSource, Service};

use crate::context::{Context, IDENTITY_UNIT, MESH_UNIT, protocol_name};
use crate::draft::Draft;
use crate::layers::boot::{ESP_LABEL, ESP_MOUNT};
use crate::layers::datasets::boot_dataset;
use crate::layers::{
    encryption, firewall, replication, secrets, services, snapshot_hooks, snapshots, wireguard,
};
use crate::node::{self, *};
use crate::system::{Because, Created, Enablement, Layer, SystemDataset, SystemFile};
use crate::unit_file::{Section, UnitFile};

/// The version of systemd that takes credentials by a pattern, systemd.exec(5).
const IMPORT_CREDENTIAL: u32 = 254;

/// Adds the unit. `before` names every unit that needs what it makes.
pub(crate) fn add(context: &Context<'_>, draft: &mut Draft) {
    let because = |reason: &str| Because::always(Layer::Boot, reason);
    let mut unit = UnitFile::default();
    let mut add =
        |section, name: &str, value: &str, reason: &str| unit.add(section, name, value, because(reason));
    use Section::{Install, Service, Unit};
    add(Unit, "Description", "Give this machine its identity", "what people read in the log");
    add(Unit, "Documentation", "https://github.com/kldload/kldload", "where to read on");
    add(Unit, "DefaultDependencies", "no", "it runs before the network and everything that listens");
    add(
        Unit,
        "RequiresMountsFor",
        "/var/lib/kldload /root",
        "it remembers there what it has done, and puts keys for root",
    );
    // Not `local-fs.target`: encrypted datasets are part of it, and this unit makes them.
    let after = "systemd-remount-fs.service zfs-import.target efi.automount";
    add(Unit, "After", after, "it writes to the root file system, the pool and the boot partition");
    add(Unit, "Wants", "efi.automount", "the boot loader's random seed lies on the boot partition");
    let mut before = vec![
        "sysinit.target".to_owned(),
        "network-pre.target".to_owned(),
        "systemd-networkd.service".to_owned(),
        MESH_UNIT.to_owned(),
        context.distro.units.ssh.clone(),
    ];
    before.extend(services::setup_units(context));
    add(Unit, "Before", &before.join(" "), "nothing that needs a key may start without it");
    add(Unit, "Wants", "network-pre.target", "so that the line above orders it before the network");
    add(Unit, "Before", "shutdown.target", "without default dependencies this must be said");
    add(Unit, "Conflicts", "shutdown.target", "without default dependencies this must be said");
    add(Service, "Type", "oneshot", "done when everything is there");
    add(Service, "RemainAfterExit", "yes", "once for each start");
    add(
        Service,
        "ExecStart",
        "/usr/bin/kldload node init",
        "makes what is missing, changes nothing that is there",
    );
    add(
        Service,
        "ExecStartPost",
        "-+/usr/bin/hostname --file /etc/hostname",
        "a name given at first boot counts at once; outside the sandbox, which has a name of its own",
    );
    let given = "a person can give keys, addresses and secrets at first boot";
    if context.distro.systemd_version >= IMPORT_CREDENTIAL {
        add(Service, "ImportCredential", "kldload.*", given);
    } else {
        // Each by its name; one that nobody has given is none.
        add(Service, "LoadCredential", "kldload.operator", given);
        for secret in node_secrets(context) {
            if let NodeSecretSource::Supplied { credential } = secret.source {
                add(Service, "LoadCredential", &credential, given);
            }
        }
    }
    add(Service, "TimeoutStartSec", "5min", "growing a pool on a slow disk takes a while");
    add(Service, "StandardOutput", "journal+console", "what happens at first boot is seen on the console");
    for (name, value, reason) in super::hardening::IDENTITY {
        add(Service, name, value, reason);
    }
    add(Install, "WantedBy", "sysinit.target", "part of every start");
    let file = unit.into_file(
        format!("/etc/systemd/system/{IDENTITY_UNIT}"),
        because("makes keys, names and numbers that two machines from one image must not share"),
    );
    draft.file(file);
    draft.unit(IDENTITY_UNIT, Enablement::Enabled, because("an image has no identity"));
}

/// The node file.
pub(crate) fn node_file(config: &NodeConfig) -> SystemFile {
    let because = Because::always(
        Layer::Boot,
        "what the machine must make at first boot, and what must hold ever after",
    );
    SystemFile::text(node::PATH, config.to_text(), because)
}

/// What the machine must know about itself.
pub(crate) fn node_config(context: &Context<'_>, draft: &Draft) -> NodeConfig {
    let appliance = context.appliance;
    NodeConfig {
        version: VERSION,
        host_name: appliance.name.to_string(),
        pool: appliance.pool.to_string(),
        boot_dataset: boot_dataset(&appliance.pool, context.distro).to_string(),
        esp: NodeEsp { mount: ESP_MOUNT.to_owned(), partition_label: ESP_LABEL.to_owned() },
        firewall_table: format!("inet {}", firewall::TABLE),
        planes: context.planes.iter().map(|plane| wireguard::node_plane(plane)).collect(),
        services: node_services(context),
        open_ports: firewall::open_ports(context),
        mounts: draft
            .datasets
            .values()
            .filter_map(|d| Some(NodeMount { dataset: d.name.to_string(), path: d.mounted_at()?.to_owned() }))
            .collect(),
        encrypted: draft.datasets.values().filter_map(|d| node_encrypted(d, context)).collect(),
        secrets: node_secrets(context),
        setup: services::node_setup(context),
        snapshots: appliance.snapshots.as_ref().map(|policy| snapshots::node_snapshots(context, policy)),
        snapshot_hooks: snapshot_hooks::node_hooks(context),
        replication: appliance
            .replication
            .as_ref()
            .map(|wanted| replication::node_replication(context, wanted)),
        verify: appliance
            .verify
            .iter()
            .map(|v| NodeVerify {
                name: v.name.value.clone(),
                command: v.command.value.clone(),
                expect: v.expect.as_ref().map(|e| e.value.clone()),
                timeout_seconds: v.timeout.as_secs(),
            })
            .collect(),
    }
}

fn node_services(context: &Context<'_>) -> Vec<NodeService> {
    let listens = |listens: &[kld_manifest::model::Listen]| {
        let mut out: Vec<_> = listens
            .iter()
            .map(|listen| NodeListen {
                protocol: protocol_name(listen.protocol).to_owned(),
                interface: match &listen.on {
                    kld_manifest::model::ListenOn::Loopback => "lo".to_owned(),
                    kld_manifest::model::ListenOn::Plane(i) | kld_manifest::model::ListenOn::Public(i) => {
                        i.to_string()
                    }
                },
                address: context.address(listen),
                port: listen.port,
            })
            .collect();
        out.sort_by(|a, b| (&a.interface, a.port, &a.protocol).cmp(&(&b.interface, b.port, &b.protocol)));
        out
    };
    let own = |service: &&Service| NodeService {
        unit: context.running_unit(service).0.to_string(),
        listens: listens(&service.listens),
        max_exposure_tenths: service.max_exposure_tenths.as_ref().map(|limit| limit.value),
    };
    let mut all: Vec<_> = context.services.iter().map(own).collect();
    all.extend(context.appliance.containers.iter().map(|container| NodeService {
        unit: crate::context::with_suffix(&container.name.value).to_string(),
        listens: container.publish.iter().flat_map(|p| listens(std::slice::from_ref(&p.listen))).collect(),
        max_exposure_tenths: None,
    }));
    let built_in = |unit: &str, plane: &kld_manifest::model::Plane, port| NodeService {
        unit: unit.to_owned(),
        listens: vec![NodeListen {
            protocol: "tcp".to_owned(),
            interface: plane.interface.to_string(),
            address: Some(plane.address.addr()),
            port,
        }],
        max_exposure_tenths: None,
    };
    if let Some((plane, _)) = super::ssh::listens_on(context) {
        all.push(built_in(&context.distro.units.ssh, plane, crate::context::SSH_PORT));
    }
    if let Some((plane, _)) = super::monitoring::listens_on(context) {
        all.push(built_in(&context.distro.units.node_exporter, plane, crate::context::NODE_EXPORTER_PORT));
    }
    all.sort_by(|a, b| a.unit.cmp(&b.unit));
    all
}

fn node_encrypted(dataset: &SystemDataset, context: &Context<'_>) -> Option<NodeEncrypted> {
    let Created::OnNode(algorithm) = dataset.created else { return None };
    let has_key =
        context.appliance.datasets.iter().any(|d| d.name.value == dataset.name && d.encryption.is_some());
    let not_encryption = |name: &str| !["encryption", "keyformat", "keylocation"].contains(&name);
    Some(NodeEncrypted {
        dataset: dataset.name.to_string(),
        key: has_key.then(|| encryption::key_of(dataset.name.path_in_pool(), algorithm)),
        properties: dataset
            .properties
            .iter()
            .map(|p| p.value.clone())
            .filter(|(name, _)| not_encryption(name))
            .collect(),
        owner: dataset.owner.as_ref().map(|o| (format!("{}:{}", o.user, o.group), format!("{:04o}", o.mode))),
    })
}

fn node_secrets(context: &Context<'_>) -> Vec<NodeSecret> {
    let mut all: Vec<_> = context
        .appliance
        .secrets
        .iter()
        .map(|secret| NodeSecret {
            name: secret.name.to_string(),
            source: match secret.source.value {
                SecretSource::Generate { bytes } => NodeSecretSource::Generate { bytes },
                SecretSource::Supplied => {
                    NodeSecretSource::Supplied { credential: format!("kldload.secret.{}", secret.name.value) }
                }
            },
            credential_file: secrets::secret_file(&secret.name.value),
            used_by: secrets::used_by(context, &secret.name.value),
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Minutes between two runs of a schedule.
pub(crate) fn interval_minutes(schedule: &Schedule) -> u32 {
    match schedule {
        Schedule::EveryMinutes(minutes) => *minutes,
        Schedule::Hourly { .. } => 60,
        Schedule::Daily { .. } => 24 * 60,
        Schedule::Weekly { .. } => 7 * 24 * 60,
    }
}
