//! The unit that undoes, at the next start, a change of the machine that a power cut has interrupted.

use crate::context::{Context, IDENTITY_UNIT};
use crate::draft::Draft;
use crate::system::{Because, Enablement, Layer};
use crate::unit_file::{Section, UnitFile};

/// Its name.
pub const UNIT: &str = "kldload-recover.service";

/// Adds the unit.
pub(crate) fn add(context: &Context<'_>, draft: &mut Draft) {
    let because = |reason: &str| Because::always(Layer::Boot, reason);
    let mut unit = UnitFile::default();
    let mut add =
        |section, name: &str, value: &str, reason: &str| unit.add(section, name, value, because(reason));
    use Section::{Install, Service, Unit};
    add(Unit, "Description", "Undo a change that was interrupted", "what people read in the log");
    add(Unit, "Documentation", "https://github.com/kldload/kldload", "where to read on");
    add(Unit, "DefaultDependencies", "no", "it runs before everything that could use what is half changed");
    add(Unit, "RequiresMountsFor", "/var/lib/kldload", "the journal lies there");
    for kind in ["applies", "adoptions", "swaps"] {
        let folder = format!("|/var/lib/kldload/{kind}");
        add(Unit, "ConditionDirectoryNotEmpty", &folder, "most machines start without it");
    }
    let after = "systemd-remount-fs.service local-fs.target";
    add(Unit, "After", after, "it writes to every file system");
    let reason = "a dataset that an apply has had made is there, with its key, before it is taken back";
    add(Unit, "After", IDENTITY_UNIT, reason);
    let firewall = &context.distro.units.firewall;
    let before = format!("sysinit.target network-pre.target {firewall} shutdown.target");
    add(Unit, "Before", &before, "no service may start, and no rule be loaded, with half of a change");
    add(Unit, "Conflicts", "shutdown.target", "without default dependencies this must be said");
    add(Service, "Type", "oneshot", "done when the machine is as it was");
    add(Service, "ExecStart", "/usr/bin/kldload recover --boot", "reads the journal and goes back");
    add(Service, "TimeoutStartSec", "30min", "putting a large package back on a slow disk takes a while");
    add(Service, "StandardOutput", "journal+console", "what is undone is seen on the console");
    for (name, value, reason) in super::hardening::RECOVERY {
        add(Service, name, value, reason);
    }
    add(Install, "WantedBy", "sysinit.target", "part of every start");
    let reason = "a power cut in the middle of `kldload apply` leaves the machine as it was";
    draft.file(unit.into_file(format!("/etc/systemd/system/{UNIT}"), because(reason)));
    draft.unit(UNIT, Enablement::Enabled, because(reason));
}
