//! What a manifest asks for and the tools of its distribution's release are too old for.

use kld_manifest::model::{Appliance, Directive};
use kld_manifest::{Span, systemd_since};

use crate::distro::DistroSpec;

/// Something that this release cannot do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotInRelease {
    /// systemd would warn in the journal, and start the service without it.
    #[error(
        "cannot write `{directive}` for {distro}: systemd {since} is the first that knows it, and this is {has}"
    )]
    Directive {
        /// `PrivatePIDs=yes`.
        directive: String,
        /// The first version that has it.
        since: u32,
        /// The version of the release.
        has: u32,
        /// The release, for people.
        distro: String,
        /// Where it was written.
        span: Span,
    },
    /// Its Podman makes no units of `.container` files.
    #[error(
        "cannot run containers on {distro}: its Podman is older than 4.4, the first that makes units of them"
    )]
    Containers {
        /// The release, for people.
        distro: String,
        /// Where the first one was written.
        span: Span,
    },
}

impl NotInRelease {
    pub(crate) fn span(&self) -> Span {
        match self {
            Self::Directive { span, .. } | Self::Containers { span, .. } => *span,
        }
    }

    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Directive { .. } => "take it out, or name a newer release in `distro:`".to_owned(),
            Self::Containers { .. } => {
                "name a newer release in `distro:`, or run the program as a service".to_owned()
            }
        }
    }
}

/// Whether the release can do what the manifest asks for.
pub(crate) fn check(appliance: &Appliance, distro: &DistroSpec) -> Result<(), NotInRelease> {
    if let Some(first) = appliance.containers.first().filter(|_| distro.packages.containers.is_empty()) {
        return Err(NotInRelease::Containers { distro: distro.name.clone(), span: first.name.span });
    }
    let has = distro.systemd_version;
    for Directive { name, value, span } in appliance.services.iter().flat_map(|service| &service.hardening) {
        if let Some(since) = systemd_since(name, value).filter(|since| *since > has) {
            let directive = format!("{name}={value}");
            return Err(NotInRelease::Directive {
                directive,
                since,
                has,
                distro: distro.name.clone(),
                span: *span,
            });
        }
    }
    Ok(())
}
