//! Accounts and their groups.
//!
//! An account that is there keeps its number: files belong to it. Accounts that leave the manifest stay, and the plan says
//! how to remove them. A password that the manifest gives is set, one that leaves it is locked, and those that it never gave
//! are people's own.

mod lines;
mod shadow;

use std::collections::{BTreeMap, BTreeSet};

use kld_host::Cmd;
use kld_system::SystemUser;
use serde::{Deserialize, Serialize};

use self::shadow::Password;
use super::{Found, Kind, Refusal, WayBack, digest, to_value};
use crate::history::Store;
use crate::host::{Host, HostError, KeptEntry};
use crate::plan::{Action, Because, Cause, Left, Step, key};
use crate::wanted::Wanted;

pub(super) struct Account;

/// The account as it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    name: String,
    /// `None` when it is there already, with a number of its own.
    uid: Option<u32>,
    system: bool,
    home: String,
    shell: String,
    /// Groups it is to be in besides its own; those it is in already stay.
    groups: Vec<String>,
    /// The hash itself is among the plan's secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<Password>,
}

/// The files of accounts as they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    files: Vec<(String, Option<KeptEntry>)>,
}

impl Memory {
    fn shadow(&self) -> Option<&KeptEntry> {
        self.files.iter().find(|(path, _)| path == shadow::PATH).and_then(|(_, kept)| kept.as_ref())
    }
}

/// passwd(5), group(5), gshadow(5), and subordinate ids: what tools change besides shadow(5).
const FILES: [&str; 5] = ["/etc/passwd", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/subgid"];

/// `/etc/passwd` and `/etc/group`, as far as they matter here.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Number, home and shell by name.
    accounts: BTreeMap<String, (u32, String, String)>,
    /// Groups by member.
    groups: BTreeSet<(String, String)>,
    group_numbers: BTreeMap<String, u32>,
}

impl Seen {
    fn is_in(&self, account: &str, group: &str) -> bool {
        self.groups.contains(&(account.to_owned(), group.to_owned()))
    }

    /// The numbers of an account and a group.
    pub(super) fn ids(&self, user: &str, group: &str) -> Result<(u32, u32), HostError> {
        let missing = |name: &str| HostError::NoAccount(name.to_owned());
        let root = |name: &str| matches!(name, "root" | "0").then_some(0);
        let uid = root(user).or_else(|| Some(self.accounts.get(user)?.0)).ok_or_else(|| missing(user))?;
        let gid = root(group).or_else(|| self.group_numbers.get(group).copied());
        Ok((uid, gid.ok_or_else(|| missing(group))?))
    }
}

/// Reads both files, once for all that is asked about them.
pub(super) fn look(host: &dyn Host) -> Result<Seen, HostError> {
    let read = |path: &str| host.read(path).map(Option::unwrap_or_default);
    Ok(parse(&read("/etc/passwd")?, &read("/etc/group")?))
}

fn parse(passwd: &str, group: &str) -> Seen {
    let mut seen = Seen::default();
    for line in passwd.lines() {
        if let [name, _, uid, _, _, home, shell] = line.split(':').collect::<Vec<_>>()[..]
            && let Ok(uid) = uid.parse()
        {
            seen.accounts.insert(name.to_owned(), (uid, home.to_owned(), shell.to_owned()));
        }
    }
    for line in group.lines() {
        if let [group, _, gid, members] = line.split(':').collect::<Vec<_>>()[..] {
            seen.group_numbers.extend(gid.parse().map(|gid| (group.to_owned(), gid)));
            let members = members.split(',').filter(|member| !member.is_empty());
            seen.groups.extend(members.map(|member| (member.to_owned(), group.to_owned())));
        }
    }
    seen
}

impl Kind for Account {
    type Change = Change;
    type Memory = Memory;
    const NAME: &'static str = "account";

    fn compare(
        &self,
        host: &dyn Host,
        wanted: &Wanted,
        before: &BTreeMap<String, String>,
        _earlier: &[Step],
    ) -> Result<Found, Refusal> {
        let seen = look(host).map_err(|error| Refusal::Look("the accounts", error))?;
        let mut found = Found::default();
        let mut taken: BTreeSet<u32> = seen.accounts.values().map(|(uid, ..)| *uid).collect();
        taken.extend(seen.group_numbers.values());
        let was_given = |user: &SystemUser| before.contains_key(&key(Self::NAME, &given(user.name.as_str())));
        let users = &wanted.system.users;
        let hashes = match users.iter().any(|user| user.password_hash.is_some() || was_given(user)) {
            true => shadow::look(host).map_err(|error| Refusal::Look("the passwords", error))?,
            false => BTreeMap::new(),
        };
        for user in users {
            let name = user.name.to_string();
            let now = hashes.get(&name).map_or("!", String::as_str);
            let own = (&user.home, &user.shell, &user.groups, user.admin);
            let (own, password) = match &user.password_hash {
                Some(hash) => {
                    found.items.insert(given(&name), "given".to_owned());
                    (digest(&(own, hash)), (now != hash).then_some(Password::Set))
                }
                None => {
                    let locks = was_given(user) && !shadow::is_locked(now);
                    (digest(&own), locks.then_some(Password::Lock))
                }
            };
            found.items.insert(name.clone(), own);
            let Some(step) = compare_one(user, &seen, &mut taken, password) else { continue };
            found.steps.push(step);
            if let Some(hash) = user.password_hash.as_ref().filter(|_| password.is_some()) {
                found.secrets.insert(key(Self::NAME, &name), hash.clone());
            }
        }
        for gone in super::gone(Self::NAME, before, &found.items) {
            if seen.accounts.contains_key(gone) {
                found.left.push(Left {
                    kind: Self::NAME.to_owned(),
                    name: gone.to_owned(),
                    remove_with: format!("userdel {gone}   # its files stay"),
                });
            }
        }
        Ok(found)
    }

    fn remember(&self, host: &dyn Host, store: &Store<'_>, change: &Change) -> Result<Memory, HostError> {
        let files = FILES.iter().map(|path| Ok(((*path).to_owned(), store.keep(path)?)));
        let mut files: Vec<_> = files.collect::<Result<_, HostError>>()?;
        if change.password.is_some() && change.uid.is_none() {
            files.extend(shadow::keep(host, store)?.map(|kept| (shadow::PATH.to_owned(), Some(kept))));
        }
        Ok(Memory { files })
    }

    fn make(&self, host: &dyn Host, store: &Store<'_>, change: &Change) -> Result<(), HostError> {
        let there = look(host)?.accounts.contains_key(&change.name);
        let groups = change.groups.join(",");
        if there {
            let mut cmd = Cmd::new("usermod").args(["--home", &change.home, "--shell", &change.shell]);
            if !groups.is_empty() {
                cmd = cmd.args(["--append", "--groups", &groups]);
            }
            host.run(&cmd.arg(&change.name))?;
            return set_password(host, store, change);
        }
        let number = change.uid.unwrap_or_default().to_string();
        let system = change.system.then_some("--system");
        // A group of that name may be there with another number, which stays.
        host.run(&Cmd::new("groupadd").args(system).args(["--force", "--gid", &number, &change.name]))?;
        let mut cmd = Cmd::new("useradd").args(system).args(["--uid", &number, "--gid", &change.name]);
        cmd = cmd.args(["--home-dir", &change.home, "--shell", &change.shell]);
        cmd = cmd.arg(if change.system { "--no-create-home" } else { "--create-home" });
        if !groups.is_empty() {
            cmd = cmd.args(["--groups", &groups]);
        }
        host.run(&cmd.arg(&change.name))?;
        set_password(host, store, change)
    }

    fn undo(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        change: &Change,
        memory: &Memory,
    ) -> Result<(), HostError> {
        // What an apply that came to nothing has made of them goes whole, with the accounts that its packages brought. Since one
        // that was committed, people have made accounts of their own.
        let merge = if store.was_committed()? { Some(lines::merge as lines::Merge) } else { None };
        put_back(host, store, &change.name, memory, merge)?;
        // A password that the change did not set is its owner's, who may have another by now.
        let line = if change.password.is_some() { shadow::Line::AsBefore } else { shadow::Line::Stays };
        shadow::put_back(host, store, &change.name, memory.shadow(), line)
    }

    fn way_back(&self, store: &Store<'_>, change: &Change, memory: &Memory) -> Result<WayBack, HostError> {
        if change.uid.is_some() {
            return Ok(WayBack::Goes(Action::Remove, "goes; its files stay".to_owned()));
        }
        let text = |path: &str| -> Result<String, HostError> {
            let kept = memory.files.iter().find(|(of, _)| of == path).and_then(|(_, kept)| kept.as_ref());
            kept.map_or(Ok(String::new()), |kept| store.text_of(path, kept))
        };
        let before = parse(&text("/etc/passwd")?, &text("/etc/group")?);
        let mut changes = Vec::new();
        if let Some((_, home, shell)) = before.accounts.get(&change.name) {
            if *home != change.home {
                changes.push(format!("home {} → {home}", change.home));
            }
            if *shell != change.shell {
                changes.push(format!("shell {} → {shell}", change.shell));
            }
        }
        let joined = change.groups.iter().filter(|group| !before.is_in(&change.name, group));
        changes.extend(joined.map(|group| format!("leaves {group}")));
        changes.extend(change.password.map(|_| "password as it was".to_owned()));
        Ok(match changes.is_empty() {
            true => WayBack::Nothing,
            false => WayBack::Goes(Action::Change, changes.join(", ")),
        })
    }

    fn changed(
        &self,
        host: &dyn Host,
        _store: &Store<'_>,
        change: &Change,
        _memory: &Memory,
    ) -> Result<Option<String>, HostError> {
        let seen = look(host)?;
        let Some((_, home, shell)) = seen.accounts.get(&change.name) else {
            return Ok(change.uid.is_none().then(|| "somebody has removed it since".to_owned()));
        };
        let mut changes = Vec::new();
        if *home != change.home {
            changes.push(format!("home {home}"));
        }
        if *shell != change.shell {
            changes.push(format!("shell {shell}"));
        }
        let left = change.groups.iter().filter(|group| !seen.is_in(&change.name, group));
        changes.extend(left.map(|group| format!("not in {group}")));
        Ok((!changes.is_empty()).then(|| format!("{} by hand since", changes.join(", "))))
    }

    fn remember_back(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        change: &Change,
    ) -> Result<Memory, HostError> {
        let mut memory = self.remember(host, store, change)?;
        if memory.shadow().is_none() {
            memory.files.extend(shadow::keep(host, store)?.map(|kept| (shadow::PATH.to_owned(), Some(kept))));
        }
        Ok(memory)
    }

    fn redo(
        &self,
        host: &dyn Host,
        store: &Store<'_>,
        _of: &Store<'_>,
        change: &Change,
        memory: &Memory,
    ) -> Result<(), HostError> {
        let merge = if store.was_committed()? { Some(lines::merge_again as lines::Merge) } else { None };
        put_back(host, store, &change.name, memory, merge)?;
        shadow::put_back(host, store, &change.name, memory.shadow(), shadow::Line::Again)
    }

    fn drifted(&self, host: &dyn Host, items: &[(&str, &str)]) -> Result<Vec<String>, HostError> {
        let seen = look(host)?;
        let names = items.iter().filter(|(name, _)| !name.contains('#'));
        let gone = names.filter(|(name, _)| !seen.accounts.contains_key(*name));
        Ok(gone.map(|(name, _)| (*name).to_owned()).collect())
    }
}

/// Brings the files of accounts back, whole, or with the lines that others have written since.
fn put_back(
    host: &dyn Host,
    store: &Store<'_>,
    account: &str,
    memory: &Memory,
    merge: Option<lines::Merge>,
) -> Result<(), HostError> {
    for (path, kept) in memory.files.iter().filter(|(path, _)| path != shadow::PATH) {
        let merged = match (kept, merge) {
            (Some(kept), Some(merge)) => {
                host.rewrite(path, |now| Ok(merge(path, now, &store.text_of(path, kept)?, account)))?
            }
            _ => false,
        };
        if !merged {
            store.put_back(path, kept.as_ref())?;
        }
    }
    Ok(())
}

/// That the manifest gives an account's password, among what is remembered; `#` is in no name of an account.
fn given(account: &str) -> String {
    format!("{account}#password")
}

fn set_password(host: &dyn Host, store: &Store<'_>, change: &Change) -> Result<(), HostError> {
    match change.password {
        Some(Password::Set) => {
            shadow::set(host, &change.name, store.secrets.get(&key(Account::NAME, &change.name))?)
        }
        Some(Password::Lock) => shadow::lock(host, &change.name),
        None => Ok(()),
    }
}

/// The number an image would give it, or the next that is free: numbers of accounts that are there do not change.
fn free_number(wanted: u32, taken: &mut BTreeSet<u32>) -> u32 {
    let number = (wanted..).find(|number| !taken.contains(number)).unwrap_or(wanted);
    taken.insert(number);
    number
}

fn compare_one(
    user: &SystemUser,
    seen: &Seen,
    taken: &mut BTreeSet<u32>,
    password: Option<Password>,
) -> Option<Step> {
    let name = user.name.to_string();
    let mut groups: Vec<String> = user.groups.iter().map(ToString::to_string).collect();
    if user.admin && !groups.iter().any(|group| group == "sudo") {
        groups.push("sudo".to_owned());
    }
    let missing: Vec<&String> = groups.iter().filter(|group| !seen.is_in(&name, group)).collect();
    let there = seen.accounts.get(&name);
    let (action, uid, summary) = match there {
        None => {
            let uid = free_number(user.uid, taken);
            let kind = if user.system { "system account" } else { "person" };
            let with = if password.is_some() { ", with a password" } else { "" };
            (Action::Add, Some(uid), format!("{kind} {uid}{with}"))
        }
        Some((_, home, shell)) => {
            let mut changes = Vec::new();
            if *home != user.home {
                changes.push(format!("home {home} → {}", user.home));
            }
            if *shell != user.shell {
                changes.push(format!("shell {shell} → {}", user.shell));
            }
            changes.extend(missing.iter().map(|group| format!("joins {group}")));
            changes.extend(password.map(|password| match password {
                Password::Set => "password changes".to_owned(),
                Password::Lock => "password is locked".to_owned(),
            }));
            if changes.is_empty() {
                return None;
            }
            (Action::Change, None, changes.join(", "))
        }
    };
    Some(Step {
        kind: Account::NAME.to_owned(),
        name: name.clone(),
        action,
        cause: Cause::Wish,
        summary,
        interrupts: None,
        notes: Vec::new(),
        because: Because::from(&user.because),
        change: to_value(&Change {
            name,
            uid,
            system: user.system,
            home: user.home.clone(),
            shell: user.shell.clone(),
            groups,
            password,
        }),
    })
}
