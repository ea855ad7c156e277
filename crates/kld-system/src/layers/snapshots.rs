//! Snapshots by sanoid: one template from the manifest's policy, one section for each dataset. Format of sanoid 2.2.

use kld_manifest::model::SnapshotPolicy;
use kld_manifest::names::DatasetName;

use crate::context::Context;
use crate::draft::Draft;
use crate::ini_file::IniFile;
use crate::layers::{hardening, snapshot_hooks};
use crate::node::NodeSnapshots;
use crate::system::{Because, Enablement, Layer};
use crate::unit_file::{Section, UnitFile};

const CONFIG: &str = "/etc/sanoid/sanoid.conf";

/// Adds sanoid and its policy.
pub(crate) fn add(context: &Context<'_>, draft: &mut Draft) {
    let Some(policy) = &context.appliance.snapshots else { return };
    let because = |reason: &str| Because::new(Layer::Snapshots, policy.span, reason);
    let units = &context.distro.units;
    draft.role(&context.distro.packages.snapshots, &because("takes and removes snapshots"));

    let mut file = IniFile::default();
    for (dataset, span) in datasets(context) {
        file.block(dataset.as_str());
        let because =
            Because::new(Layer::Snapshots, span, "its data can be brought back to an earlier minute");
        file.set("use_template", &policy.template, because);
        snapshot_hooks::of_sanoid(context, dataset, &mut file);
    }
    file.block(format!("template_{}", policy.template));
    let kept = |count: u32, what: &str| match count {
        0 => format!("no {what} snapshots"),
        count => format!("how many {what} snapshots are kept: {count}"),
    };
    if policy.frequent_period_minutes > 0 {
        file.set(
            "frequent_period",
            policy.frequent_period_minutes,
            because("minutes between two frequent snapshots"),
        );
    }
    for (name, count, what) in [
        ("frequently", policy.frequently, "frequent"),
        ("hourly", policy.hourly, "hourly"),
        ("daily", policy.daily, "daily"),
        ("weekly", policy.weekly, "weekly"),
        ("monthly", policy.monthly, "monthly"),
        ("yearly", policy.yearly, "yearly"),
    ] {
        file.set(name, count, because(&kept(count, what)));
    }
    file.set("autosnap", "yes", because("nobody has to remember"));
    file.set("autoprune", "yes", because("the pool does not fill with old snapshots"));
    draft.file(file.into_file(CONFIG, because("how snapshots are taken and how long they are kept")));

    for (unit, reason) in
        [(&units.sanoid, "it takes snapshots"), (&units.sanoid_prune, "it removes snapshots")]
    {
        let mut drop_in = UnitFile::default();
        for (name, value, reason) in hardening::ZFS_JOB {
            drop_in.add(Section::Service, name, *value, Because::new(Layer::Hardening, policy.span, *reason));
        }
        let families = "AF_UNIX AF_NETLINK";
        drop_in.add(
            Section::Service,
            "RestrictAddressFamilies",
            families,
            because("snapshots need no network"),
        );
        drop_in.add(Section::Service, "PrivateNetwork", "yes", because("snapshots need no network"));
        drop_in.add(Section::Service, "IPAddressDeny", "any", because("snapshots need no network"));
        drop_in.add(Section::Service, "CapabilityBoundingSet", "CAP_SYS_ADMIN", because("ZFS asks for it"));
        for directory in ["/run/sanoid", "/var/cache/sanoid"] {
            drop_in.add(
                Section::Service,
                "ReadWritePaths",
                format!("-{directory}"),
                because("its locks and its memory"),
            );
        }
        drop_in.add(Section::Service, "RuntimeDirectory", "sanoid", because("its locks"));
        drop_in.add(
            Section::Service,
            "RuntimeDirectoryPreserve",
            "yes",
            because("the other job has its locks there"),
        );
        drop_in.add(Section::Service, "CacheDirectory", "sanoid", because("what it remembers of snapshots"));
        draft.file(drop_in.into_file(
            format!("/etc/systemd/system/{unit}.d/40-kldload-snapshots.conf"),
            because(&format!("{reason} and does nothing else")),
        ));
    }
    draft.unit(&units.sanoid_timer, Enablement::Enabled, because("every fifteen minutes"));
}

/// The datasets under the policy: the manifest's, as far as they hold files or volumes.
pub(crate) fn datasets<'a>(context: &Context<'a>) -> Vec<(&'a DatasetName, kld_manifest::Span)> {
    let mut all: Vec<_> = context
        .appliance
        .datasets
        .iter()
        .filter(|d| d.mountpoint.is_some())
        .map(|d| (&d.name.value, d.name.span))
        .collect();
    all.sort();
    all
}

/// What the machine must know of the policy.
pub(crate) fn node_snapshots(context: &Context<'_>, policy: &SnapshotPolicy) -> NodeSnapshots {
    // The timer of the package runs every fifteen minutes, so nothing is newer than that.
    const TIMER_MINUTES: u32 = 15;
    let intervals = [
        (policy.frequently, policy.frequent_period_minutes.max(TIMER_MINUTES)),
        (policy.hourly, 60),
        (policy.daily, 24 * 60),
        (policy.weekly, 7 * 24 * 60),
        (policy.monthly, 31 * 24 * 60),
        (policy.yearly, 366 * 24 * 60),
    ];
    let shortest = intervals.iter().filter(|(count, _)| *count > 0).map(|(_, minutes)| *minutes).min();
    NodeSnapshots {
        datasets: datasets(context).iter().map(|(name, _)| name.to_string()).collect(),
        max_age_minutes: shortest.unwrap_or(366 * 24 * 60).saturating_mul(2),
    }
}
