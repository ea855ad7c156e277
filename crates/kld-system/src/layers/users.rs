//! Accounts, with numbers that are the same in every build.
//!
//! Packages number their accounts from 100 up and 999 down, so those of a manifest have ranges of their own.

use kld_manifest::model::{Appliance, MAX_SYSTEM_ACCOUNTS};
use kld_manifest::names::UserName;

use crate::context::Context;
use crate::draft::Draft;
use crate::system::{Because, Layer, SystemFile, SystemUser};

/// First number of system accounts.
const FIRST_SYSTEM: u32 = 800;
/// First number of people (`FIRST_UID` of adduser.conf(5)).
const FIRST_PERSON: u32 = 1000;
// A manifest with more is refused.
const _: () = assert!(FIRST_SYSTEM as usize + MAX_SYSTEM_ACCOUNTS == FIRST_PERSON as usize);

/// Adds every account of the manifest, and sudo when one of them is an administrator.
pub(crate) fn add(context: &Context<'_>, draft: &mut Draft) {
    let mut users: Vec<_> = context.appliance.users.iter().collect();
    users.sort_by_key(|u| &u.name.value);
    let mut admins = Vec::new();
    for user in users {
        let name = &user.name.value;
        let Some(uid) = uid_of(name, context.appliance) else { continue };
        let reason = if user.system { "services run as it" } else { "a person who logs in" };
        let home = user.home.as_ref().map(|h| h.value.clone());
        let shell = user.shell.as_ref().map(|s| s.value.clone());
        let (default_home, default_shell) = match (user.system, name.as_str()) {
            (true, _) => ("/nonexistent".to_owned(), "/usr/sbin/nologin"),
            (false, "root") => ("/root".to_owned(), "/bin/bash"),
            (false, name) => (format!("/home/{name}"), "/bin/bash"),
        };
        let mut groups: Vec<_> = user.groups.iter().map(|g| g.value.clone()).collect();
        groups.sort();
        groups.dedup();
        if user.admin && name.as_str() != "root" {
            admins.push(user);
        }
        draft.users.push(SystemUser {
            name: name.clone(),
            uid,
            gid: uid,
            system: user.system,
            home: home.unwrap_or(default_home),
            shell: shell.unwrap_or_else(|| default_shell.to_owned()),
            groups,
            ssh_keys: user.ssh_keys.iter().map(|k| k.value.clone()).collect(),
            password_hash: user.password_hash.as_ref().map(|h| h.value.clone()),
            admin: user.admin,
            because: Because::new(Layer::Users, user.name.span, reason),
        });
    }
    let Some(first) = admins.first() else { return };
    let because = |reason: &str| Because::new(Layer::Users, first.name.span, reason);
    draft.role(&context.distro.packages.admin, &because("administrators become root with it"));
    // Passwords are locked unless the manifest gives a hash, so there is nothing that sudo could ask for.
    let mut text = String::from("# Who may become root. Written by kldload.\n");
    for admin in &admins {
        let ask = if admin.password_hash.is_some() { "" } else { "NOPASSWD: " };
        text.push_str(&format!("{} ALL=(ALL:ALL) {ask}ALL\n", admin.name.value));
    }
    draft.file(
        SystemFile::text("/etc/sudoers.d/50-kldload", text, because("who may become root")).with_mode(0o440),
    );
}

/// The number of a manifest's account; `None` for an account it does not describe.
pub(crate) fn uid_of(name: &UserName, appliance: &Appliance) -> Option<u32> {
    let user = appliance.users.iter().find(|u| u.name.value == *name)?;
    if name.as_str() == "root" {
        return Some(0);
    }
    let before = |other: &&kld_manifest::model::User| {
        other.system == user.system && other.name.value < *name && other.name.as_str() != "root"
    };
    let rank = u32::try_from(appliance.users.iter().filter(before).count()).unwrap_or(u32::MAX);
    let first = if user.system { FIRST_SYSTEM } else { FIRST_PERSON };
    Some(first.saturating_add(rank))
}
