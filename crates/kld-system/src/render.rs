//! Calls the layers in order and puts together what they asked for.

use kld_manifest::Span;
use kld_manifest::model::{Appliance, Profile};
use kld_manifest::names::{DatasetName, PoolName, UnitName};

use crate::context::Context;
use crate::distro::{DistroSpec, DpkgPaths, UnknownDistro, find_distro};
use crate::draft::Draft;
use crate::layers;
use crate::layers::firewall::flow::Broken;
use crate::layers::firewall::verdict::Ruleset;
use crate::release::{self, NotInRelease};
use crate::system::{Because, Created, System};

/// Why an appliance cannot become a system.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// No data for the distribution.
    #[error("cannot choose a distribution")]
    Distro {
        /// Which.
        #[source]
        source: UnknownDistro,
        /// Where it was written.
        span: Span,
    },
    /// The profile has no layers yet.
    #[error("cannot build the profile `{profile}`: kldload has no graphical session yet")]
    NoProfile {
        /// The profile.
        profile: &'static str,
        /// Where it was written.
        span: Span,
    },
    /// The profile core has nothing of kldload in it, but the manifest asks for it.
    #[error("cannot put {what} into the profile `core`: it holds nothing of kldload")]
    NotInCore {
        /// What was asked for.
        what: &'static str,
        /// Where it was written.
        span: Span,
    },
    /// The distribution's own tools cannot do it.
    #[error(transparent)]
    Release(#[from] NotInRelease),
    /// Two layers write one file.
    #[error("cannot write `{path}` twice: for {}, and for {}", .first.layer, .second.layer)]
    FileTwice {
        /// The file.
        path: String,
        /// Who came first.
        first: Box<Because>,
        /// Who came second.
        second: Box<Because>,
    },
    /// Two layers want different states of one unit.
    #[error("cannot both start and stop `{unit}`: {}, but {}", .first.reason, .second.reason)]
    UnitTwice {
        /// The unit.
        unit: UnitName,
        /// Who came first.
        first: Box<Because>,
        /// Who came second.
        second: Box<Because>,
    },
    /// Two datasets on one directory.
    #[error("cannot mount `{second}` on `{path}`: `{first}` is mounted there")]
    MountTwice {
        /// The directory.
        path: String,
        /// One dataset.
        first: DatasetName,
        /// The other.
        second: DatasetName,
        /// The one a person asked for.
        because: Box<Because>,
    },
    /// A file would have to be in the image in clear.
    #[error("cannot put `{path}` into the image: `{dataset}` is encrypted and made on the machine")]
    FileOnEncrypted {
        /// The file.
        path: String,
        /// The dataset it would be on.
        dataset: DatasetName,
        /// Where the file was written.
        span: Span,
    },
    /// The rules would not do what the manifest promises: a fault of kldload's.
    #[error("{0}")]
    Firewall(Box<Broken>),
}

impl RenderError {
    /// The place in the manifest.
    pub fn span(&self) -> Span {
        match self {
            Self::Distro { span, .. }
            | Self::NoProfile { span, .. }
            | Self::NotInCore { span, .. }
            | Self::FileOnEncrypted { span, .. } => *span,
            Self::Release(missing) => missing.span(),
            Self::FileTwice { first, second, .. } | Self::UnitTwice { first, second, .. } => {
                if second.span.is_written() { second.span } else { first.span }
            }
            Self::MountTwice { because, .. } => because.span,
            Self::Firewall(broken) => broken.flow.span,
        }
    }

    /// What can be done about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Distro { source, .. } => return source.hint(),
            Self::Release(missing) => missing.hint(),
            Self::NoProfile { .. } => "write `profile: server`".to_owned(),
            Self::NotInCore { .. } => "write `profile: server`, or take it out of the manifest".to_owned(),
            Self::FileTwice { .. } => {
                "remove one; to change what kldload writes, use the manifest's own field or a drop-in beside it".to_owned()
            }
            Self::UnitTwice { .. } => "remove one of the two".to_owned(),
            Self::MountTwice { .. } => "give one of them another `mountpoint=`".to_owned(),
            Self::Firewall(_) => {
                "nothing was loaded or written; this is a fault of kldload, please report it".to_owned()
            }
            Self::FileOnEncrypted { .. } => "let a `setup` command write it, or put it elsewhere".to_owned(),
        };
        Some(hint)
    }
}

/// Everything the machine must be.
///
/// Pure and deterministic; the order of datasets, zones, planes, users, files, services and secrets in the appliance does
/// not matter.
///
/// # Errors
/// When there is no data for the distribution or the profile, or when two parts of the manifest contradict each other
/// in a way that only shows once the system's own files and datasets are known.
pub fn render(appliance: &Appliance) -> Result<System, RenderError> {
    let distro = find_distro(&appliance.distro)
        .map_err(|source| RenderError::Distro { source, span: appliance.distro.span })?;
    release::check(appliance, &distro)?;
    match appliance.profile.value {
        Profile::Server => render_server(appliance, &distro),
        Profile::Core => render_core_appliance(appliance, &distro),
        Profile::Desktop => Err(RenderError::NoProfile { profile: "desktop", span: appliance.profile.span }),
    }
}

/// The stock distribution with ZFS as root and nothing of kldload in it.
pub fn render_core(distro: &DistroSpec, pool: &PoolName) -> System {
    let mut draft = Draft::default();
    layers::datasets::add_system_datasets(pool, distro, &mut draft);
    layers::boot::add(pool, distro, &[], &mut draft);
    layers::network::add_plain(distro, &mut draft);
    finish_core(draft, distro, pool).expect("no manifest takes part, and a test renders every distribution")
}

fn finish_core(mut draft: Draft, distro: &DistroSpec, pool: &PoolName) -> Result<System, RenderError> {
    draft.file(layers::datasets::mount_cache(pool, distro, &draft.datasets));
    let checked = draft.check()?;
    // Stock means whole: documentation stays, and only what is installed is prepared.
    let mut distro = distro.clone();
    distro.dpkg = DpkgPaths { exclude: Vec::new(), include: Vec::new() };
    distro.prepared.retain(|file| checked.packages.iter().any(|p| file.is_read_by(p.value.as_str())));
    Ok(System {
        host_name: None,
        profile: Profile::Core,
        pool: pool.clone(),
        boot_dataset: layers::datasets::boot_dataset(pool, &distro),
        distro,
        datasets: checked.datasets,
        packages: checked.packages,
        users: checked.users,
        files: checked.files,
        units: checked.units,
        kernel_args: checked.kernel_args,
        firewall: Ruleset::default(),
        node: None,
    })
}

fn render_core_appliance(appliance: &Appliance, distro: &DistroSpec) -> Result<System, RenderError> {
    if let Some((what, span)) = wants_kldload(appliance) {
        return Err(RenderError::NotInCore { what, span });
    }
    let context = Context::new(appliance, distro);
    let mut draft = Draft::default();
    layers::datasets::add_system_datasets(&appliance.pool, distro, &mut draft);
    layers::datasets::add_manifest_datasets(&context, &mut draft);
    layers::boot::add(&appliance.pool, distro, &[], &mut draft);
    layers::network::add_plain(distro, &mut draft);
    layers::network::add_host_name(&context, &mut draft);
    layers::users::add(&context, &mut draft);
    layers::files::add(&context, &mut draft);
    let system = finish_core(draft, distro, &appliance.pool)?;
    Ok(System { host_name: Some(appliance.name.value.clone()), ..system })
}

/// The first thing in a manifest that needs kldload on the machine.
fn wants_kldload(appliance: &Appliance) -> Option<(&'static str, Span)> {
    let encrypted = appliance.datasets.iter().find_map(|d| d.encryption.as_ref());
    None.or_else(|| appliance.planes.first().map(|p| ("a WireGuard plane", p.interface.span)))
        .or_else(|| appliance.services.first().map(|s| ("a service", s.unit.span)))
        .or_else(|| appliance.containers.first().map(|c| ("a container", c.name.span)))
        .or_else(|| appliance.secrets.first().map(|s| ("a secret", s.name.span)))
        .or_else(|| encrypted.map(|e| ("an encrypted dataset", e.span)))
        .or_else(|| appliance.snapshots.as_ref().map(|s| ("a snapshot policy", s.span)))
        .or_else(|| appliance.replication.as_ref().map(|r| ("a replication", r.span)))
        .or_else(|| appliance.monitoring.alerts.first().map(|a| ("an alert", a.span)))
}

fn render_server(appliance: &Appliance, distro: &DistroSpec) -> Result<System, RenderError> {
    let context = Context::new(appliance, distro);
    let mut draft = Draft::default();
    layers::datasets::add_system_datasets(&appliance.pool, distro, &mut draft);
    layers::datasets::add_memory(&appliance.pool, &mut draft);
    layers::datasets::add_manifest_datasets(&context, &mut draft);
    layers::encryption::add(&context, &mut draft);
    layers::boot::add(&appliance.pool, distro, &context.zones, &mut draft);
    layers::identity::add(&context, &mut draft);
    layers::program::add(&mut draft);
    layers::recovery::add(&context, &mut draft);
    layers::network::add(&context, &mut draft);
    layers::wireguard::add(&context, &mut draft);
    layers::firewall::add(&context, &mut draft);
    layers::hardening::add(&mut draft);
    layers::users::add(&context, &mut draft);
    layers::files::add(&context, &mut draft);
    layers::secrets::add(&context, &mut draft);
    layers::ssh::add(&context, &mut draft);
    layers::services::add(&context, &mut draft);
    layers::containers::add(&context, &mut draft);
    layers::snapshot_hooks::add(&context, &mut draft);
    layers::snapshots::add(&context, &mut draft);
    layers::replication::add(&context, &mut draft);
    layers::monitoring::add(&context, &mut draft);
    layers::files::check_not_on_encrypted(&context, &draft.datasets)?;

    draft.file(layers::datasets::mount_cache(&appliance.pool, distro, &draft.datasets));
    let node = layers::node_config(&context, &draft);
    draft.file(layers::node_file(&node));
    let checked = draft.check()?;
    // Nobody loads rules that were not asked what they do.
    let firewall = layers::firewall::ruleset(&context);
    if let Some(broken) = firewall.broken() {
        return Err(RenderError::Firewall(Box::new(broken)));
    }
    Ok(System {
        host_name: Some(appliance.name.value.clone()),
        distro: distro.clone(),
        profile: appliance.profile.value,
        pool: appliance.pool.clone(),
        boot_dataset: layers::datasets::boot_dataset(&appliance.pool, distro),
        datasets: checked.datasets,
        packages: checked.packages,
        users: checked.users,
        files: checked.files,
        units: checked.units,
        kernel_args: checked.kernel_args,
        firewall,
        node: Some(node),
    })
}

/// True when the dataset, or one it is inside of, is encrypted.
pub(crate) fn is_on_node(created: Created) -> bool {
    matches!(created, Created::OnNode(_))
}
