//! Replication by syncoid on a timer, over a plane. Options of syncoid 2.2.
//!
//! It sends the snapshots that sanoid takes and makes none of its own (`--no-sync-snap`), resumes after a break, and never
//! rolls the other side back (`--no-rollback`): what was changed there by hand stops it, and is reported by its age.
//!
//! It runs as an account that may send and nothing else: zfs-allow(8) is given at first boot, and the SSH key comes as a
//! credential, so that it stays root's.

use kld_manifest::model::{Replication, ReplicationHost, Schedule};

use crate::context::Context;
use crate::draft::Draft;
use crate::layers::identity::interval_minutes;
use crate::layers::{hardening, snapshots, wireguard};
use crate::node::NodeReplication;
use crate::system::{Because, Enablement, Layer, SystemFile, SystemUser};
use crate::unit_file::{Section, UnitFile};

const DIRECTORY: &str = "/etc/kldload/replication";
const STATE: &str = "/var/lib/kldload/replication";
/// Name and number. Below the numbers that a manifest's accounts get, see [`super::users`].
pub(crate) const ACCOUNT: (&str, u32) = ("kldload-replicate", 799);
const SERVICE: &str = "kldload-replicate.service";
const TIMER: &str = "kldload-replicate.timer";

/// Adds the job, when the manifest has a target.
pub(crate) fn add(context: &Context<'_>, draft: &mut Draft) {
    let Some(replication) = &context.appliance.replication else { return };
    let because = |reason: &str| Because::new(Layer::Replication, replication.span, reason);
    draft.role(&context.distro.packages.replication, &because("syncoid, and what it pipes through"));
    draft.role(&context.distro.packages.ssh_client, &because("the transport"));
    draft.file(SystemFile::directory(
        DIRECTORY,
        0o700,
        because("the SSH key of replication, made on the machine"),
    ));
    draft.users.push(SystemUser {
        name: ACCOUNT.0.parse().expect("a valid name"),
        uid: ACCOUNT.1,
        gid: ACCOUNT.1,
        system: true,
        home: STATE.to_owned(),
        shell: "/usr/sbin/nologin".to_owned(),
        groups: Vec::new(),
        ssh_keys: Vec::new(),
        password_hash: None,
        admin: false,
        because: because("it may send the datasets, and nothing else"),
    });
    draft.file(service(context, replication));
    draft.file(timer(replication));
    let schedule = Because::new(Layer::Replication, replication.schedule.span, "nobody has to remember");
    draft.unit(TIMER, Enablement::Enabled, schedule);
}

fn service(context: &Context<'_>, replication: &Replication) -> SystemFile {
    let because = |reason: &str| Because::new(Layer::Replication, replication.span, reason);
    let mut unit = UnitFile::default();
    let node = node_replication(context, replication);
    wireguard::wait_for_mesh(&mut unit, &because("it travels over a plane, never in clear"));
    let mut add =
        |section, name: &str, value: &str, reason: &str| unit.add(section, name, value, because(reason));
    use Section::{Service, Unit};
    add(Unit, "Description", &format!("Replicate to {}", node.host), "what people read in the log");
    add(Service, "Type", "oneshot", "done when everything is sent");
    add(Service, "User", ACCOUNT.0, "it may send the datasets, and nothing else");
    add(
        Service,
        "StateDirectory",
        "kldload/replication",
        "the other side's host key, and when it last worked",
    );
    add(
        Service,
        "LoadCredential",
        &format!("ssh_key:{}", node.key_file),
        "the key stays root's, and is read here from memory",
    );
    for (dataset, _) in snapshots::datasets(context) {
        let leaf = dataset.as_str().rsplit('/').next().unwrap_or_default();
        let command = format!(
            "{} --no-privilege-elevation --no-sync-snap --no-rollback --quiet --sshkey=%d/ssh_key --sshoption=UserKnownHostsFile={} \
             --sshoption=StrictHostKeyChecking=accept-new --sshoption=BatchMode=yes --sshoption=ConnectTimeout=20 \
             --sendoptions=w {dataset} {}@{}:{}/{leaf}",
            context.distro.paths.syncoid,
            node.known_hosts,
            node.user,
            ssh_host(&node.host),
            node.target
        );
        add(
            Service,
            "ExecStart",
            &command,
            "sends what the other side does not have, encrypted datasets as they are",
        );
    }
    add(
        Service,
        "ExecStart",
        &format!("/usr/bin/touch {}", node.stamp_file),
        "reached only when everything was sent",
    );
    add(Service, "TimeoutStartSec", "infinity", "a first send takes as long as it takes");
    add(Service, "Nice", "10", "services come first");
    add(Service, "IOSchedulingClass", "idle", "services come first");
    for (name, value, reason) in hardening::REPLICATION {
        add(Service, name, value, reason);
    }
    if let Some(plane) = context.plane(&replication.plane.value) {
        add(Service, "IPAddressDeny", "any", "it talks to the plane it travels over");
        add(Service, "IPAddressAllow", "localhost", "names are resolved on this machine");
        add(Service, "IPAddressAllow", &plane.address.trunc().to_string(), "the plane it travels over");
    }
    unit.into_file(format!("/etc/systemd/system/{SERVICE}"), because("a copy of the data on another machine"))
}

/// IPv6 addresses need brackets before a colon.
fn ssh_host(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn timer(replication: &Replication) -> SystemFile {
    let because = |reason: &str| Because::new(Layer::Replication, replication.schedule.span, reason);
    let mut unit = UnitFile::default();
    let mut add =
        |section, name: &str, value: &str, reason: &str| unit.add(section, name, value, because(reason));
    use Section::{Install, Timer, Unit};
    add(Unit, "Description", "When to replicate", "what people read in the log");
    add(Timer, "OnCalendar", &calendar(&replication.schedule.value), "as written in the manifest");
    add(Timer, "Persistent", "yes", "a run that was missed while the machine was off is made up for");
    add(Timer, "AccuracySec", "1s", "the age of a copy is measured, so it starts when it is said to");
    add(Install, "WantedBy", "timers.target", "part of every start");
    unit.into_file(format!("/etc/systemd/system/{TIMER}"), because("how old the copy may get"))
}

/// A schedule as systemd.time(7) writes it.
pub(crate) fn calendar(schedule: &Schedule) -> String {
    match schedule {
        Schedule::EveryMinutes(minutes) => format!("*:0/{minutes}"),
        Schedule::Hourly { minute } => format!("*:{minute:02}"),
        Schedule::Daily { hour, minute } => format!("*-*-* {hour:02}:{minute:02}:00"),
        Schedule::Weekly { day, hour, minute } => format!("{day} *-*-* {hour:02}:{minute:02}:00"),
    }
}

/// What the machine must know of replication.
pub(crate) fn node_replication(context: &Context<'_>, replication: &Replication) -> NodeReplication {
    NodeReplication {
        user: replication.user.to_string(),
        host: match &replication.host {
            ReplicationHost::Name(name) => name.to_string(),
            ReplicationHost::Address(address) => address.to_string(),
        },
        target: replication.dataset.to_string(),
        plane: replication.plane.to_string(),
        datasets: snapshots::datasets(context).iter().map(|(name, _)| name.to_string()).collect(),
        key_file: format!("{DIRECTORY}/ssh_key"),
        known_hosts: format!("{STATE}/known_hosts"),
        account: ACCOUNT.0.to_owned(),
        stamp_file: format!("{STATE}/last-success"),
        max_age_minutes: interval_minutes(&replication.schedule.value).saturating_mul(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_calendar_expressions() {
        for (schedule, text, minutes) in [
            (Schedule::EveryMinutes(15), "*:0/15", 15),
            (Schedule::Hourly { minute: 5 }, "*:05", 60),
            (Schedule::Daily { hour: 2, minute: 0 }, "*-*-* 02:00:00", 1440),
            (Schedule::Weekly { day: "Sun", hour: 3, minute: 30 }, "Sun *-*-* 03:30:00", 10080),
        ] {
            assert_eq!((calendar(&schedule).as_str(), interval_minutes(&schedule)), (text, minutes));
        }
    }
}
