//! Services: a unit for each one the manifest describes, a drop-in for each one a package brings, and their first steps.
//!
//! Order of precedence: what the manifest writes under `hardening`, then what follows from its other fields, then the
//! set of the preset. Follows systemd.service(5).

use std::collections::BTreeSet;

use ipnet::IpNet;
use kld_manifest::Span;
use kld_manifest::model::{Listen, ListenOn, Preset, Service};
use kld_manifest::names::UserName;

use crate::context::{Context, IDENTITY_UNIT, on_a_plane, protocol_name, with_suffix, without_suffix};
use crate::distro::PackagedService;
use crate::draft::Draft;
use crate::layers::presets::{self, Start};
use crate::layers::{containers, secrets, wireguard};
use crate::node::NodeSetup;
use crate::system::{Because, Enablement, Layer, SystemFile};
use crate::unit_file::{Section, UnitFile, quote};

/// Where it is remembered that first steps were done, in a folder for each service. Outside the boot environment, like the data
/// they made.
pub const DONE: &str = "/var/lib/kldload/setup";

/// Adds every service of the manifest.
pub(crate) fn add(context: &Context<'_>, draft: &mut Draft) {
    for service in &context.services {
        let because = Because::new(Layer::Services, service.unit.span, "a service of the manifest");
        let (running, packaged) = context.running_unit(service);
        if let Some(packaged) = packaged {
            draft.package(crate::distro::package(&packaged.package), because.clone());
        }
        draft.file(service_file(context, service, packaged));
        draft.unit(running.as_str(), Enablement::Enabled, because);
        if !service.setup.is_empty() {
            draft.file(setup_file(context, service));
            let because = Because::new(
                Layer::Services,
                service.unit.span,
                "remembers that its first steps were done, as long as the service is there",
            );
            draft.file(SystemFile::directory(done_dir(service), 0o755, because));
        }
    }
}

/// The units of first steps.
pub(crate) fn setup_units(context: &Context<'_>) -> Vec<String> {
    context.services.iter().filter(|s| !s.setup.is_empty()).map(|s| setup_unit(s)).collect()
}

fn setup_unit(service: &Service) -> String {
    format!("kldload-setup-{}.service", without_suffix(&service.unit.value))
}

fn done_dir(service: &Service) -> String {
    format!("{DONE}/{}", without_suffix(&service.unit.value))
}

fn done_file(service: &Service) -> String {
    format!("{}/done", done_dir(service))
}

/// What the machine must know of first steps.
pub(crate) fn node_setup(context: &Context<'_>) -> Vec<NodeSetup> {
    context
        .services
        .iter()
        .filter(|s| !s.setup.is_empty())
        .map(|service| NodeSetup {
            unit: setup_unit(service),
            for_unit: context.running_unit(service).0.to_string(),
            done_file: done_file(service),
        })
        .collect()
}

fn service_file(context: &Context<'_>, service: &Service, packaged: Option<&PackagedService>) -> SystemFile {
    let span = service.unit.span;
    let (running, _) = context.running_unit(service);
    let mut unit = UnitFile::default();
    add_order(context, service, &mut unit);
    if let Some(command) = &service.command {
        let mut add = |section, name: &str, value: &str, span, reason: &str| {
            unit.add(section, name, value, Because::new(Layer::Services, span, reason));
        };
        use Section::{Install, Service, Unit};
        let description =
            format!("{} of {}", without_suffix(&service.unit.value), context.appliance.name.value);
        add(Unit, "Description", &description, span, "what people read in the log");
        add(Service, "Type", "exec", span, "started when the program is found and running");
        add(Service, "ExecStart", &command.value, command.span, "what it runs");
        add(Service, "Restart", "on-failure", span, "a crash at 2 am heals itself");
        add(Service, "RestartSec", "2", span, "and does not become a loop");
        add(Install, "WantedBy", "multi-user.target", span, "part of every start");
    }
    add_account(service, &mut unit);
    add_environment(context, service, &mut unit);
    add_preset(service, &mut unit);
    add_reach(context, service, packaged, &mut unit);
    override_by_manifest(service, &mut unit);

    let reason = format!("{}: sandboxed, only its own data writable", without_suffix(&service.unit.value));
    let because = Because::new(Layer::Services, span, reason);
    match service.command {
        Some(_) => unit.into_file(format!("/etc/systemd/system/{running}"), because),
        None => unit.into_file(format!("/etc/systemd/system/{running}.d/50-kldload.conf"), because),
    }
}

fn add_preset(service: &Service, unit: &mut UnitFile) {
    let (preset, start) = (presets::of(service), Start::of(service));
    let chosen = service.preset.as_ref().map_or(service.unit.span, |preset| preset.span);
    for (name, value, reason) in presets::directives(preset, start) {
        unit.add(Section::Service, name, value, Because::new(Layer::Hardening, chosen, reason));
    }
    let low = |listen: &&Listen| listen.port < containers::PRIVILEGED_PORTS;
    if let Some(listen) = service.listens.iter().find(low).filter(|_| preset == Preset::Web) {
        for (name, value, reason) in presets::low_port(start) {
            unit.add(Section::Service, name, value, Because::new(Layer::Hardening, listen.span, reason));
        }
    }
}

fn add_order(context: &Context<'_>, service: &Service, unit: &mut UnitFile) {
    let mut add = |name: &str, value: String, span: Span, reason: &str| {
        unit.add(Section::Unit, name, value, Because::new(Layer::Services, span, reason));
    };
    for after in &service.after {
        let wanted = context
            .services
            .iter()
            .find(|s| s.unit.value == after.value || with_suffix(&s.unit.value) == with_suffix(&after.value));
        let after_unit = wanted.map_or_else(|| with_suffix(&after.value), |s| context.running_unit(s).0);
        add("Wants", after_unit.to_string(), after.span, "it works with this one");
        add("After", after_unit.to_string(), after.span, "it starts once this one runs");
    }
    if !service.secrets.is_empty() {
        add("Requires", IDENTITY_UNIT.to_owned(), service.unit.span, "its secrets are made there");
        add("After", IDENTITY_UNIT.to_owned(), service.unit.span, "its secrets are made there");
    }
    if !service.setup.is_empty() {
        let span = service.setup[0].span;
        add("Requires", setup_unit(service), span, "its first steps must have worked");
        add("After", setup_unit(service), span, "its first steps must have worked");
    }
    for path in mount_points(context, service) {
        add("RequiresMountsFor", path.0, path.1, "it does not start on an empty directory");
    }
    if on_a_plane(&service.listens) {
        let span = service.listens[0].span;
        let because =
            Because::new(Layer::WireGuard, span, "the address it binds to exists once the mesh is up");
        wireguard::wait_for_mesh(unit, &because);
    }
}

/// Where the service's datasets are mounted.
pub(crate) fn mount_points(context: &Context<'_>, service: &Service) -> Vec<(String, Span)> {
    let path = |name: &kld_manifest::Spanned<kld_manifest::names::DatasetName>| {
        let dataset = context.appliance.datasets.iter().find(|d| d.name.value == name.value)?;
        Some((dataset.mountpoint.as_ref()?.value.clone(), name.span))
    };
    let mut paths: Vec<_> = service.datasets.iter().filter_map(path).collect();
    paths.sort();
    paths.dedup_by(|a, b| a.0 == b.0);
    paths
}

/// The account a service runs as: its own field, else a `User=` among the directives a person wrote.
pub(crate) fn account(service: &Service) -> Option<(UserName, Span)> {
    let field = service.user.as_ref().map(|user| (user.value.clone(), user.span));
    field.or_else(|| {
        let directive = service.hardening.iter().find(|d| d.name == "User")?;
        Some((directive.value.parse().ok()?, directive.span))
    })
}

fn add_account(service: &Service, unit: &mut UnitFile) {
    // A packaged unit changes accounts itself; `User=` would keep it from starting.
    if service.command.is_none() {
        return;
    }
    let mut add = |name: &str, value: &str, span: Span, layer: Layer, reason: &str| {
        unit.add(Section::Service, name, value, Because::new(layer, span, reason));
    };
    if let Some((user, span)) = account(service) {
        add("User", user.as_str(), span, Layer::Services, "it does not run as root");
        add("Group", user.as_str(), span, Layer::Services, "it does not run as root");
    } else if service.datasets.is_empty()
        && service.writes.is_empty()
        && presets::of(service) != Preset::ContainerHost
    {
        let reason = "no account is given: one that exists while it runs";
        add("DynamicUser", "yes", service.unit.span, Layer::Hardening, reason);
    }
    // Else it runs as root, without any of root's rights: an account that comes and goes cannot own files.
}

pub(crate) fn add_environment(context: &Context<'_>, service: &Service, unit: &mut UnitFile) {
    let mut add = |name: &str, value: &str, span: Span, layer: Layer, reason: &str| {
        unit.add(Section::Service, name, value, Because::new(layer, span, reason));
    };
    if service.command.is_some() && !context.planes.is_empty() {
        let reason = "commands can name the addresses of planes";
        add("EnvironmentFile", wireguard::PLANES_ENV, service.unit.span, Layer::Services, reason);
    }
    for variable in &service.environment {
        let value = quote(&format!("{}={}", variable.name, variable.value));
        add("Environment", &value, variable.span, Layer::Services, "asked for in the manifest");
    }
    for secret in &service.secrets {
        let value = secrets::load_credential(&secret.value);
        add(
            "LoadCredentialEncrypted",
            &value,
            secret.span,
            Layer::Secrets,
            "readable by this service only, from a RAM disk",
        );
    }
}

/// What the service may write to and talk to.
fn add_reach(
    context: &Context<'_>,
    service: &Service,
    packaged: Option<&PackagedService>,
    unit: &mut UnitFile,
) {
    let span = service.unit.span;
    let preset = presets::of(service);
    let (name, families, reason) = presets::families(preset);
    if presets::sees_all_files(preset) {
        // Its containers bind ports and talk to networks of their own: podman and the firewall decide on those.
        return unit.add(Section::Service, name, families, Because::new(Layer::Hardening, span, reason));
    }
    for (path, span) in mount_points(context, service) {
        let because = Because::new(Layer::Hardening, span, "its own data");
        unit.add(Section::Service, "ReadWritePaths", path, because);
    }
    for path in &service.writes {
        let because = Because::new(Layer::Hardening, path.span, "asked for in the manifest");
        unit.add(Section::Service, "ReadWritePaths", format!("-{}", path.value), because);
    }
    let mounts = mount_points(context, service);
    let mounted = |path: &str| mounts.iter().any(|(mount, _)| mount == path.trim_start_matches('-'));
    for path in packaged.into_iter().flat_map(|p| &p.writes).filter(|path| !mounted(path)) {
        let because = Because::new(Layer::Hardening, span, "the package's own directories");
        unit.add(Section::Service, "ReadWritePaths", path, because);
    }
    let mut add = |name: &str, value: &str, span: Span, reason: &str| {
        unit.add(Section::Service, name, value, Because::new(Layer::Hardening, span, reason));
    };
    add(name, families, span, reason);
    if service.command.is_some() {
        add("SocketBindDeny", "any", span, "it opens the ports the manifest names, no others");
        for listen in &service.listens {
            let value = format!("{}:{}", protocol_name(listen.protocol), listen.port);
            add("SocketBindAllow", &value, listen.span, "where it listens");
        }
    }
    if let Some(networks) = reachable(context, service, packaged) {
        add("IPAddressDeny", "any", span, "it talks to the networks it serves, to no others");
        add("IPAddressAllow", "localhost", span, "other services on this machine");
        for network in networks {
            add("IPAddressAllow", &network.to_string(), span, "a network it serves or may connect to");
        }
    }
}

/// The networks a service exchanges packets with besides loopback; `None` when that is anybody.
fn reachable(
    context: &Context<'_>,
    service: &Service,
    packaged: Option<&PackagedService>,
) -> Option<BTreeSet<IpNet>> {
    if context.appliance.outbound.unrestricted {
        return None;
    }
    let mut networks = BTreeSet::new();
    for listen in &service.listens {
        match &listen.on {
            ListenOn::Loopback => {}
            ListenOn::Public(_) => return None,
            ListenOn::Plane(interface) => {
                networks.extend(context.plane(interface).map(|p| p.address.trunc()))
            }
        }
    }
    let own = account(service).map(|(user, _)| user);
    let account = own.as_ref().map(|u| u.as_str()).or(packaged.map(|p| p.user.as_str()));
    for rule in &context.appliance.outbound.allow {
        // Whether an account-less rule is meant for this service is not known, so it is let through to the firewall.
        if rule.user.as_ref().is_some_and(|user| Some(user.as_str()) != account) {
            continue;
        }
        if rule.to.is_empty() {
            return None;
        }
        networks.extend(rule.to.iter().map(IpNet::trunc));
    }
    Some(networks)
}

/// What a person wrote wins. Every name is taken from the set first, so that lists do not add up.
fn override_by_manifest(service: &Service, unit: &mut UnitFile) {
    let mut replaced = BTreeSet::new();
    for directive in &service.hardening {
        let because = Because::new(
            Layer::Hardening,
            directive.span,
            "written in the manifest, instead of kldload's own",
        );
        if replaced.insert(directive.name.as_str()) {
            unit.replace(Section::Service, &directive.name, &directive.value, because);
        } else {
            unit.add(Section::Service, &directive.name, &directive.value, because);
        }
    }
}

fn setup_file(context: &Context<'_>, service: &Service) -> SystemFile {
    let span = service.setup[0].span;
    let (running, packaged) = context.running_unit(service);
    let mut unit = UnitFile::default();
    let (dir, done) = (done_dir(service), done_file(service));
    let because = |reason: &str| Because::new(Layer::Services, span, reason);
    let mut add =
        |section, name: &str, value: &str, reason: &str| unit.add(section, name, value, because(reason));
    use Section::{Service, Unit};
    let description = format!("First steps of {}", without_suffix(&service.unit.value));
    add(Unit, "Description", &description, "what people read in the log");
    add(Unit, "ConditionPathExists", &format!("!{done}"), "they run once");
    add(Unit, "RequiresMountsFor", &dir, "it is remembered there that they ran");
    add(Unit, "Requires", IDENTITY_UNIT, "keys and secrets are made there");
    add(Unit, "After", IDENTITY_UNIT, "keys and secrets are made there");
    add(Unit, "Before", running.as_str(), "the service finds them done");
    add(Service, "Type", "oneshot", "done when the last step is");
    add(Service, "RemainAfterExit", "yes", "the service requires it");
    for command in &service.setup {
        add(Service, "ExecStart", &command.value, "a first step of the manifest");
    }
    add(Service, "ExecStart", &format!("+/usr/bin/touch {done}"), "remembers that all of them worked");
    add(Service, "TimeoutStartSec", "10min", "making a database takes a while on a slow machine");
    for after in &service.after {
        let wanted =
            context.services.iter().find(|s| with_suffix(&s.unit.value) == with_suffix(&after.value));
        let after_unit = wanted.map_or_else(|| with_suffix(&after.value), |s| context.running_unit(s).0);
        add(Unit, "Wants", after_unit.as_str(), "the steps may need it");
        add(Unit, "After", after_unit.as_str(), "the steps may need it");
    }
    for (path, _) in mount_points(context, service) {
        add(Unit, "RequiresMountsFor", &path, "the steps write there");
    }
    add_environment(context, service, &mut unit);
    // They run as root, so that they can act as any account (`runuser -u postgres -- createdb app`).
    for (name, value, reason) in presets::PACKAGED {
        unit.add(Section::Service, name, *value, Because::new(Layer::Hardening, span, *reason));
    }
    unit.add(Section::Service, "ReadWritePaths", &dir, because("it is remembered there that they ran"));
    add_command_reach(context, service, packaged.map_or(&[], |p| &*p.setup_writes), &mut unit);
    unit.into_file(
        format!("/etc/systemd/system/{}", setup_unit(service)),
        because(&format!(
            "first steps of {}, once in the machine's life",
            without_suffix(&service.unit.value)
        )),
    )
}

/// What a command that works for a service may write to: what the service may, and `more`.
pub(crate) fn add_command_reach(
    context: &Context<'_>,
    service: &Service,
    more: &[String],
    unit: &mut UnitFile,
) {
    let (_, packaged) = context.running_unit(service);
    let mut add = |value: &str, span, reason: &str| {
        unit.add(Section::Service, "ReadWritePaths", value, Because::new(Layer::Hardening, span, reason));
    };
    for (path, span) in mount_points(context, service) {
        add(&path, span, "the service's own data");
    }
    for path in &service.writes {
        add(&format!("-{}", path.value), path.span, "asked for in the manifest");
    }
    for path in packaged.into_iter().flat_map(|p| &p.writes).chain(more) {
        add(path, service.unit.span, "the package's own directories");
    }
}
