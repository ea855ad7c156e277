//! The difference between what is wanted and what is, as immutable data.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use kld_host::systemd::shown_exposure;
use kld_system::{NODE_CONFIG_PATH, NodeConfig, known_distros};

use crate::exposure::{self, Exposure};
use crate::history::MEMORY;
use crate::host::{Host, HostError};
use crate::interruption::Interruption;
use crate::kinds::{self, Refusal};
use crate::locked::OffLock;
use crate::looking::Looking;
use crate::reboot::{self, AtStart};
use crate::release::Release;
use crate::secrets::{self, Secrets};
use crate::services;
use crate::wanted::Wanted;

/// Why something is wanted: the layer, the manifest's line and the reason in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Because {
    /// Which layer asked for it.
    pub layer: String,
    /// The line of the manifest; `None` when every machine has it.
    pub line: Option<u32>,
    /// The reason.
    pub reason: String,
}

impl From<&kld_system::Because> for Because {
    fn from(because: &kld_system::Because) -> Self {
        Self {
            layer: because.layer.to_string(),
            line: because.span.is_written().then_some(because.span.line),
            reason: because.reason.clone(),
        }
    }
}

/// What a step does with a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It comes into being.
    Add,
    /// It changes.
    Change,
    /// It goes away.
    Remove,
}

/// Where a difference comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The manifest says something new.
    Wish,
    /// The manifest says what it said when it was last applied; the machine was changed since.
    Drift,
}

/// One change of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The type of the thing: `dataset`, `package`, `account`, `file`, `image`, `unit`, `service`.
    pub kind: String,
    /// The thing: `rpool/srv/webapp`, `/etc/nftables.conf`, `webapp.service`.
    pub name: String,
    /// What happens to it.
    pub action: Action,
    /// Where the difference comes from.
    pub cause: Cause,
    /// The change in words: `recordsize 128K → 1M`.
    pub summary: String,
    /// What it interrupts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupts: Option<Interruption>,
    /// What a person must know besides: what it does not do, what is interrupted.
    pub notes: Vec<String>,
    /// Why the thing is wanted.
    pub because: Because,
    /// The change as data; its shape is the kind's own.
    pub change: Value,
}

/// Something on the machine that the manifest no longer mentions, and that is never removed by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Left {
    /// The type of the thing.
    pub kind: String,
    /// The thing.
    pub name: String,
    /// The command that removes it, and what that frees.
    pub remove_with: String,
}

/// What is to be done, in order. Equal machines and equal manifests give equal plans.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The machine's name in the manifest.
    pub machine: String,
    /// SHA-256 of the manifest's text.
    pub manifest: String,
    /// SHA-256 of what the manifest says; empty in plans of old, which knew the text alone.
    #[serde(default)]
    pub meaning: String,
    /// The applies that it takes back, the newest first; none when it brings a machine to its manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undoes: Vec<u32>,
    /// The dataset that remembers and what lies above it, on a machine that has none yet: made before everything else,
    /// because the journal lies on it, and it stays.
    #[serde(default)]
    pub memory: Vec<Step>,
    /// The changes, in the order in which they are made.
    pub steps: Vec<Step>,
    /// Units that are started again, rules that are loaded, once the changes are made; in order.
    pub restarts: Vec<Step>,
    /// What the manifest no longer mentions and what stays.
    pub left: Vec<Left>,
    /// What the manifest wants and only a start of the machine brings: not done by an apply.
    #[serde(default)]
    pub at_start: Vec<AtStart>,
    /// How exposed the services are whose unit files change.
    #[serde(default)]
    pub exposures: Vec<Exposure>,
    /// What is installed in another version than the lock file's, and stays as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub off_lock: Vec<OffLock>,
    /// Bytes on disk that new packages and files take, about.
    #[serde(default)]
    pub takes: u64,
    /// Digest of each wanted thing by `kind name`: what is remembered once the plan is carried out.
    pub items: BTreeMap<String, String>,
    /// What steps need and nobody may read: only in the process that has read the manifest.
    #[serde(skip)]
    pub(crate) secrets: Secrets,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.steps.is_empty() && self.restarts.is_empty()
    }

    /// Whether something of it is in use only after a start of the machine.
    pub fn needs_reboot(&self) -> bool {
        self.all().any(|step| step.interrupts == Some(Interruption::Reboot))
    }

    /// Whether two plans are for manifests that say the same.
    pub(crate) fn is_of_the_same_manifest(&self, other: &Self) -> bool {
        let known = !self.meaning.is_empty() && !other.meaning.is_empty();
        if known { self.meaning == other.meaning } else { self.manifest == other.manifest }
    }

    /// All steps in the order in which they are carried out, and go back.
    pub fn all(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().chain(&self.restarts)
    }
}

/// Why there is no plan. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The machine could not be looked at.
    #[error("cannot look at {what}")]
    Look {
        /// What was looked at.
        what: &'static str,
        /// Why not.
        #[source]
        source: HostError,
    },
    /// The manifest asks for what cannot be done here.
    #[error("cannot plan `{name}`: {reason}")]
    Refused {
        /// The thing.
        name: String,
        /// Why not.
        reason: String,
        /// What the person can do.
        hint: String,
    },
    /// The manifest belongs to another machine.
    #[error("this machine is `{here}`, and the manifest describes `{wanted}`")]
    OtherMachine {
        /// This machine.
        here: String,
        /// The manifest's.
        wanted: String,
    },
    /// The manifest is for another distribution, or another release of it.
    #[error(
        "this machine runs {}, and the manifest is for {wanted}",
        here.as_ref().map_or_else(|| "something that has no os-release".to_owned(), ToString::to_string)
    )]
    OtherRelease {
        /// This machine's; `None`: it does not say.
        here: Option<Release>,
        /// The manifest's: `debian 13`.
        wanted: String,
    },
    /// Nobody has given the machine a secret that its services need.
    #[error("the secret `{name}` is not on this machine, and only a person can give it")]
    NoSecret {
        /// Its name.
        name: String,
    },
    /// A service would be more exposed than the manifest accepts.
    #[error(
        "`{}` would be exposed by {}, and the manifest accepts {}",
        _0.unit, shown_exposure(_0.then.unwrap_or_default()), shown_exposure(_0.limit.unwrap_or_default())
    )]
    Exposed(Exposure),
    /// The pool of the manifest is not here.
    #[error("there is no pool `{pool}` on this machine")]
    NoPool {
        /// The pool.
        pool: String,
        /// What `zpool` said.
        #[source]
        source: HostError,
    },
}

impl PlanError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Look { source, .. } => source.hint(),
            Self::Refused { hint, .. } => Some(hint.clone()),
            Self::OtherMachine { wanted, .. } => Some(format!(
                "give the manifest of this machine, or rename it first: `hostnamectl hostname {wanted}`"
            )),
            Self::OtherRelease { wanted, here } => {
                let is_known = |here: &&Release| known_distros().iter().any(|distro| here.is(distro));
                let write = here.as_ref().filter(is_known);
                let write = write
                    .map_or_else(String::new, |here| format!("write `distro: {here}` and its names, or "));
                Some(format!(
                    "names of packages, units and files are those of {wanted}: {write}upgrade the machine to it first, or build a new one with `kldload build`"
                ))
            }
            Self::NoSecret { name } => {
                Some(format!("`kldload secret set {name} FILE`, as root on this machine"))
            }
            Self::Exposed(exposure) => Some(format!(
                "tighten its `hardening:`, or accept more with `max_exposure:`; `systemd-analyze security {}` says what counts",
                exposure.unit
            )),
            Self::NoPool { pool, .. } => Some(format!(
                "`zpool import` lists pools that could be imported; datasets of the manifest begin with `{pool}/`"
            )),
        }
    }
}

/// Looks at the machine and says what is to be done. `before` is [`Plan::items`] of the last plan that was carried out.
///
/// # Errors
/// When the machine cannot be looked at, or the manifest asks for what cannot be done here.
pub fn plan(host: &dyn Host, wanted: &Wanted, before: &BTreeMap<String, String>) -> Result<Plan, PlanError> {
    let (machine, host) = (host, &Looking::new(host));
    let (mut wanted, here) = (Cow::Borrowed(wanted), name_here(host)?);
    if let (Some(name), Some(here)) = (wanted.system.host_name.as_ref(), here) {
        if here.made_from != name.as_str() {
            return Err(PlanError::OtherMachine { here: here.made_from, wanted: name.to_string() });
        }
        if here.called != here.made_from {
            // A clone that was given a name of its own keeps it.
            wanted.to_mut().files.remove("/etc/hostname");
        }
    }
    let wanted = &*wanted;
    let here = Release::of(host).map_err(|source| PlanError::Look { what: "/etc/os-release", source })?;
    let distro = &wanted.system.distro;
    if !here.as_ref().is_some_and(|here| here.is(distro)) {
        return Err(PlanError::OtherRelease { here, wanted: format!("{} {}", distro.id, distro.release) });
    }
    if let Some(name) =
        secrets::missing(host, wanted).map_err(|source| PlanError::Look { what: "the secrets", source })?
    {
        return Err(PlanError::NoSecret { name });
    }
    let mut plan = Plan {
        machine: wanted.system.host_name.as_ref().map(ToString::to_string).unwrap_or_default(),
        manifest: wanted.digests.text.clone(),
        meaning: wanted.digests.meaning.clone(),
        ..Plan::default()
    };
    let refused = |refusal| match refusal {
        Refusal::Look(what, source) => PlanError::Look { what, source },
        Refusal::NoPool(pool, source) => PlanError::NoPool { pool, source },
        Refusal::Refused { name, reason, hint } => PlanError::Refused { name, reason, hint },
    };
    let mut locked = Vec::new();
    for kind in kinds::ALL {
        let mut found = kind.compare(host, wanted, before, &plan.steps).map_err(refused)?;
        for step in &mut found.steps {
            let is_known = |item: &String| {
                let known = before.get(&key(kind.name(), item));
                known.is_some() && known == found.items.get(item)
            };
            let items =
                kind.items_of(step).map_err(|source| PlanError::Look { what: kind.name(), source })?;
            step.cause = if items.iter().all(is_known) { Cause::Drift } else { Cause::Wish };
        }
        locked.append(&mut found.locked);
        plan.steps.append(&mut found.steps);
        plan.left.append(&mut found.left);
        plan.at_start.extend(found.at_start);
        plan.off_lock.append(&mut found.off_lock);
        plan.takes += found.takes;
        plan.secrets.extend(found.secrets);
        plan.items.extend(found.items.into_iter().map(|(name, digest)| (key(kind.name(), &name), digest)));
    }
    // What undoes an interrupted apply at the next start is there before anything that it would undo; of an undo it goes last.
    // The rest keeps its order.
    plan.steps.sort_by_key(|step| (!kinds::recovers(step), !kinds::leaves(step)));
    plan.at_start.extend(
        reboot::rest(host, wanted)
            .map_err(|source| PlanError::Look { what: "what waits for a reboot", source })?,
    );
    if let Some(memory) = plan.steps.iter().find(|step| kinds::makes_a_dataset_at(step, MEMORY)) {
        let name = format!("{}/", memory.name);
        let leads_to_it =
            |step: &Step| step.kind == memory.kind && name.starts_with(&format!("{}/", step.name));
        (plan.memory, plan.steps) = plan.steps.iter().cloned().partition(leads_to_it);
    }
    plan.exposures = exposure::rate(machine, wanted, &plan.steps)
        .map_err(|source| PlanError::Look { what: "how exposed services are", source })?;
    if let Some(exposed) = plan.exposures.iter().find(|exposure| exposure.is_too_high()) {
        return Err(PlanError::Exposed(exposed.clone()));
    }
    plan.restarts = services::restarts(host, wanted, before, &plan.steps)
        .map_err(|source| PlanError::Look { what: "the services", source })?;
    kinds::check_locked(&locked, wanted, plan.all()).map_err(refused)?;
    Ok(plan)
}

/// What a machine is called.
struct Name {
    /// In the manifest that it was made from.
    made_from: String,
    /// By itself; given at first boot, or the same.
    called: String,
}

/// `None`: nobody has named it yet.
fn name_here(host: &dyn Host) -> Result<Option<Name>, PlanError> {
    let read = |path: &'static str| host.read(path).map_err(|source| PlanError::Look { what: path, source });
    let called = read("/etc/hostname")?.unwrap_or_default().trim().to_owned();
    if called.is_empty() || called == "localhost" {
        return Ok(None);
    }
    let node = read(NODE_CONFIG_PATH)?.and_then(|text| NodeConfig::parse(&text).ok());
    let made_from = node.map_or_else(|| called.clone(), |node| node.host_name);
    Ok(Some(Name { made_from, called }))
}

/// The name of an item among [`Plan::items`].
pub(crate) fn key(kind: &str, name: &str) -> String {
    format!("{kind} {name}")
}
