//! Containers as systemd units by podman's generator, podman-systemd.unit(5). Images are pulled on the machine.

use kld_manifest::model::{Container, ListenOn};

use crate::context::{Context, IDENTITY_UNIT, protocol_name, with_suffix, without_suffix};
use crate::draft::Draft;
use crate::layers::datasets::{add_parents, name, set};
use crate::layers::{secrets, wireguard};
use crate::system::{Because, Created, Layer, SystemDataset, SystemFile};
use crate::unit_file::{Section, UnitFile, quote};

/// Linux lets only root listen below it, ip(7).
pub(crate) const PRIVILEGED_PORTS: u16 = 1024;

/// Adds podman and a unit for each container.
pub(crate) fn add(context: &Context<'_>, draft: &mut Draft) {
    let mut containers: Vec<_> = context.appliance.containers.iter().collect();
    containers.sort_by_key(|c| &c.name.value);
    let Some(first) = containers.first() else { return };
    let because = |reason: &str| Because::new(Layer::Containers, first.name.span, reason);
    draft.role(&context.distro.packages.containers, &because("runs containers as units, without a daemon"));
    let storage = name(&format!("{}/var/lib/containers", context.appliance.pool));
    if !draft.datasets.contains_key(&storage) {
        add_parents(&storage, first.name.span, draft);
        let reason =
            "images and layers: outside the boot environment and without snapshots, which they would fill";
        let mut dataset = SystemDataset {
            name: storage.clone(),
            properties: Vec::new(),
            created: Created::InImage,
            owner: None,
            because: because(reason),
        };
        set(
            &mut dataset,
            "mountpoint",
            "/var/lib/containers",
            because("where podman keeps images and layers"),
        );
        set(&mut dataset, "canmount", "on", because("where podman keeps images and layers"));
        draft.datasets.insert(storage, dataset);
    }
    for container in containers {
        draft.file(quadlet(context, container));
    }
}

fn quadlet(context: &Context<'_>, container: &Container) -> SystemFile {
    let span = container.name.span;
    let short = without_suffix(&container.name.value);
    let mut unit = UnitFile::default();
    let mut add = |section, name: &str, value: &str, span, reason: &str| {
        unit.add(section, name, value, Because::new(Layer::Containers, span, reason));
    };
    use Section::{Container as C, Install, Service, Unit};
    add(
        Unit,
        "Description",
        &format!("{short} of {}", context.appliance.name.value),
        span,
        "what people read in the log",
    );
    add(Unit, "RequiresMountsFor", "/var/lib/containers", span, "images lie there");
    add(C, "Image", &container.image.value, container.image.span, "what it runs");
    add(C, "ContainerName", short, span, "one name everywhere");
    add(C, "NoNewPrivileges", "true", span, "no program in it gains rights");
    add(C, "DropCapability", "all", span, "no right of root");
    for capability in &container.capabilities {
        add(C, "AddCapability", capability.value.as_str(), capability.span, "asked for in the manifest");
    }
    if let Some(low) = container.publish.iter().find(|publish| publish.container_port < PRIVILEGED_PORTS) {
        let reason = "its own network needs no right of root for a low port";
        add(C, "Sysctl", "net.ipv4.ip_unprivileged_port_start=0", low.listen.span, reason);
    }
    for (dataset, path) in &container.mounts {
        let known = context.appliance.datasets.iter().find(|d| d.name.value == dataset.value);
        let Some(mount) = known.and_then(|d| d.mountpoint.as_ref()) else { continue };
        add(Unit, "RequiresMountsFor", &mount.value, dataset.span, "it does not start on an empty directory");
        add(
            C,
            "Volume",
            &format!("{}:{}", mount.value, path.value),
            dataset.span,
            "its data, on a dataset of its own",
        );
    }
    for publish in &container.publish {
        let port = format!(
            "{}:{}/{}",
            publish.listen.port,
            publish.container_port,
            protocol_name(publish.listen.protocol)
        );
        let address = context.address(&publish.listen).map(|a| match a {
            std::net::IpAddr::V4(four) => format!("{four}:"),
            std::net::IpAddr::V6(six) => format!("[{six}]:"),
        });
        let value = format!("{}{port}", address.unwrap_or_default());
        add(C, "PublishPort", &value, publish.listen.span, "where it answers");
    }
    for variable in &container.environment {
        let value = quote(&format!("{}={}", variable.name, variable.value));
        add(C, "Environment", &value, variable.span, "asked for in the manifest");
    }
    for secret in &container.secrets {
        add(Unit, "Requires", IDENTITY_UNIT, secret.span, "its secrets are made there");
        add(Unit, "After", IDENTITY_UNIT, secret.span, "its secrets are made there");
        let load = secrets::load_credential(&secret.value);
        add(Service, "LoadCredentialEncrypted", &load, secret.span, "readable by this service only");
        let volume = format!("%d/{0}:/run/secrets/{0}:ro", secret.value);
        add(C, "Volume", &volume, secret.span, "the container finds it in /run/secrets");
    }
    add(Service, "Restart", "on-failure", span, "a crash at 2 am heals itself");
    add(Service, "RestartSec", "10", span, "and does not press a registry that is down");
    add(Service, "TimeoutStartSec", "15min", span, "the first start pulls the image");
    add(Install, "WantedBy", "multi-user.target", span, "part of every start");
    if let Some(publish) = container.publish.iter().find(|p| matches!(p.listen.on, ListenOn::Plane(_))) {
        let reason = "the address it binds to exists once the mesh is up";
        wireguard::wait_for_mesh(&mut unit, &Because::new(Layer::WireGuard, publish.listen.span, reason));
    }
    let because = Because::new(
        Layer::Containers,
        span,
        format!("container {short} as {}", with_suffix(&container.name.value)),
    );
    unit.into_file(format!("/etc/containers/systemd/{short}.container"), because)
}
