//! What a service wants done around snapshots of its data: a unit before, a unit after, started by `ksnap` and by sanoid
//! alike, so that both find the same account, the same sandbox and the same log.

use kld_manifest::Spanned;
use kld_manifest::model::Service;
use kld_manifest::names::DatasetName;

use crate::context::{Context, without_suffix};
use crate::draft::Draft;
use crate::ini_file::IniFile;
use crate::layers::{presets, services};
use crate::node::NodeSnapshotHook;
use crate::system::{Because, Layer, SystemFile};
use crate::unit_file::{Section, UnitFile};

/// Who waits for longer has a service that stands still.
const TIMEOUT: &str = "60";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Before,
    After,
}

impl When {
    fn word(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
        }
    }

    fn command(self, service: &Service) -> Option<&Spanned<String>> {
        match self {
            Self::Before => service.before_snapshot.as_ref(),
            Self::After => service.after_snapshot.as_ref(),
        }
    }

    fn unit(self, service: &Service) -> Option<String> {
        self.command(service)?;
        Some(format!("kldload-{}-snapshot-{}.service", self.word(), without_suffix(&service.unit.value)))
    }
}

/// Adds the units.
pub(crate) fn add(context: &Context<'_>, draft: &mut Draft) {
    for service in &context.services {
        for when in [When::Before, When::After] {
            if let Some(file) = file(context, service, when) {
                draft.file(file);
            }
        }
    }
}

fn file(context: &Context<'_>, service: &Service, when: When) -> Option<SystemFile> {
    let command = when.command(service)?;
    let because = |reason: &str| Because::new(Layer::Snapshots, command.span, reason);
    let mut unit = UnitFile::default();
    let mut add =
        |section, name: &str, value: &str, reason: &str| unit.add(section, name, value, because(reason));
    let of = without_suffix(&service.unit.value);
    let description = format!("What {of} does {} a snapshot", when.word());
    add(Section::Unit, "Description", &description, "what people read in the log");
    add(Section::Unit, "StartLimitIntervalSec", "0", "snapshots may follow each other fast");
    for (path, _) in services::mount_points(context, service) {
        add(Section::Unit, "RequiresMountsFor", &path, "it works on the data");
    }
    if let (When::Before, Some(after)) = (when, When::After.unit(service)) {
        add(Section::Unit, "OnFailure", &after, "what was begun is ended, whoever wanted the snapshot");
    }
    add(Section::Service, "Type", "oneshot", "done when the command is");
    add(Section::Service, "ExecStart", &command.value, "written in the manifest");
    add(Section::Service, "TimeoutStartSec", TIMEOUT, "a service must not stand still for long");
    services::add_environment(context, service, &mut unit);
    // As first steps: as root, so that they can act as any account.
    for (name, value, reason) in presets::PACKAGED {
        unit.add(Section::Service, name, *value, Because::new(Layer::Hardening, command.span, *reason));
    }
    services::add_command_reach(context, service, &[], &mut unit);
    let path = format!("/etc/systemd/system/{}", when.unit(service)?);
    Some(unit.into_file(path, because(&format!("what {of} does {} a snapshot of its data", when.word()))))
}

/// What the machine must know of them.
pub(crate) fn node_hooks(context: &Context<'_>) -> Vec<NodeSnapshotHook> {
    let of = |service: &&Service| {
        let [before, after] = [When::Before, When::After].map(|when| when.unit(service));
        let datasets = service.datasets.iter().map(|dataset| dataset.value.to_string());
        let hooks = datasets.map(|dataset| NodeSnapshotHook {
            dataset,
            before: before.clone(),
            after: after.clone(),
        });
        hooks.filter(|hook| hook.before.is_some() || hook.after.is_some()).collect::<Vec<_>>()
    };
    context.services.iter().flat_map(of).collect()
}

/// Has sanoid start them, too (sanoid 2.2, `runscript`).
pub(crate) fn of_sanoid(context: &Context<'_>, dataset: &DatasetName, file: &mut IniFile) {
    let owner = context.services.iter().find(|service| service.datasets.iter().any(|d| d.value == *dataset));
    let Some(service) = owner else { return };
    let keys = [(When::Before, "pre_snapshot_script"), (When::After, "post_snapshot_script")];
    let hooks = keys.map(|(when, key)| Some((key, when.command(service)?.span, when.unit(service)?)));
    for (key, span, unit) in hooks.iter().flatten() {
        let because = Because::new(Layer::Snapshots, *span, "written in the manifest");
        file.set(key, format!("systemctl start {unit}"), because);
    }
    let Some((_, span, _)) = hooks.iter().flatten().next() else { return };
    let because = |reason: &str| Because::new(Layer::Snapshots, *span, reason);
    file.set("no_inconsistent_snapshot", "yes", because("when the command before fails, none is taken"));
    file.set("script_timeout", 0, because("systemd ends the units in time, and what they have started"));
}
