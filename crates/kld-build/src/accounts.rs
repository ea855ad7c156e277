//! Accounts: the lines that the manifest's users add to `passwd(5)`, `shadow(5)`, `group(5)` and `gshadow(5)`.

use kld_system::SystemUser;

/// The four account databases, as text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Accounts {
    /// `/etc/passwd`.
    pub(crate) passwd: String,
    /// `/etc/shadow`.
    pub(crate) shadow: String,
    /// `/etc/group`.
    pub(crate) group: String,
    /// `/etc/gshadow`.
    pub(crate) gshadow: String,
}

/// Why the accounts do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// A package has an account of that name or number.
    #[error("cannot add user `{user}`: {what} `{taken}` belongs to a package of the image")]
    Taken {
        /// The manifest's user.
        user: String,
        /// `name` or `number`.
        what: &'static str,
        /// The name or number.
        taken: String,
    },
    /// A group that nobody has.
    #[error(
        "cannot add user `{user}` to group `{group}`: no package and no user of the manifest has that group"
    )]
    NoGroup {
        /// The manifest's user.
        user: String,
        /// The group.
        group: String,
    },
    /// The owner of a file or dataset.
    #[error("there is no {what} `{name}` in the image")]
    Unknown {
        /// `user` or `group`.
        what: &'static str,
        /// Its name.
        name: String,
    },
}

impl Accounts {
    /// Adds users, each with a group of its own, and locks every password that is not given as a hash.
    ///
    /// # Errors
    /// A name or number is taken, or a supplementary group does not exist.
    pub(crate) fn add(&mut self, users: &[SystemUser]) -> Result<(), AccountError> {
        for user in users {
            self.add_account(user)?;
        }
        for user in users {
            for group in &user.groups {
                self.add_member(user.name.as_str(), group.as_str())?;
            }
        }
        Ok(())
    }

    fn add_account(&mut self, user: &SystemUser) -> Result<(), AccountError> {
        let name = user.name.as_str();
        for (database, id) in [(&self.passwd, user.uid), (&self.group, user.gid)] {
            let taken = |what, taken| AccountError::Taken { user: name.to_owned(), what, taken };
            if field_of(database, 0, name).is_some() {
                return Err(taken("name", name.to_owned()));
            }
            if field_of(database, 2, &id.to_string()).is_some() {
                return Err(taken("number", id.to_string()));
            }
        }
        let hash = user.password_hash.as_deref().unwrap_or(if user.system { "!*" } else { "!" });
        append(
            &mut self.passwd,
            &format!("{name}:x:{}:{}::{}:{}", user.uid, user.gid, user.home, user.shell),
        );
        // The date of the last change is empty: password ageing is off, and no clock decides bytes.
        append(&mut self.shadow, &format!("{name}:{hash}::0:99999:7:::"));
        append(&mut self.group, &format!("{name}:x:{}:", user.gid));
        append(&mut self.gshadow, &format!("{name}:!::"));
        Ok(())
    }

    fn add_member(&mut self, user: &str, group: &str) -> Result<(), AccountError> {
        let known = add_to_list(&mut self.group, group, user);
        add_to_list(&mut self.gshadow, group, user);
        if known {
            Ok(())
        } else {
            Err(AccountError::NoGroup { user: user.to_owned(), group: group.to_owned() })
        }
    }

    /// Locks root's password: the account stays, and keys still work.
    pub(crate) fn lock_root(&mut self) {
        self.shadow = map_lines(&self.shadow, |line| match line.strip_prefix("root:") {
            Some(rest) => format!("root:!{}", rest.find(':').map_or("", |at| &rest[at..])),
            None => line.to_owned(),
        });
    }

    /// Removes the day of the last password change from every entry: it says when the image was built.
    pub(crate) fn forget_dates(&mut self) {
        self.shadow = map_lines(&self.shadow, |line| {
            let mut fields: Vec<&str> = line.split(':').collect();
            if let Some(date) = fields.get_mut(2) {
                *date = "";
            }
            fields.join(":")
        });
    }

    /// Number of a user.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn uid(&self, name: &str) -> Result<u32, AccountError> {
        number(&self.passwd, "user", name)
    }

    /// Number of a group.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn gid(&self, name: &str) -> Result<u32, AccountError> {
        number(&self.group, "group", name)
    }
}

fn number(database: &str, what: &'static str, name: &str) -> Result<u32, AccountError> {
    field_of(database, 0, name)
        .and_then(|line| line.split(':').nth(2))
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| AccountError::Unknown { what, name: name.to_owned() })
}

/// The line whose field `index` is `value`.
fn field_of<'a>(database: &'a str, index: usize, value: &str) -> Option<&'a str> {
    database.lines().find(|line| line.split(':').nth(index) == Some(value))
}

fn append(database: &mut String, line: &str) {
    if !database.is_empty() && !database.ends_with('\n') {
        database.push('\n');
    }
    database.push_str(line);
    database.push('\n');
}

/// Adds `member` to the last field of the line that begins with `group`; false when there is no such line.
fn add_to_list(database: &mut String, group: &str, member: &str) -> bool {
    let mut found = false;
    *database = map_lines(database, |line| {
        if line.split(':').next() != Some(group) {
            return line.to_owned();
        }
        found = true;
        let listed = line.rsplit(':').next().unwrap_or_default();
        if listed.split(',').any(|m| m == member) {
            line.to_owned()
        } else if listed.is_empty() {
            format!("{line}{member}")
        } else {
            format!("{line},{member}")
        }
    });
    found
}

fn map_lines(text: &str, change: impl FnMut(&str) -> String) -> String {
    text.lines().map(change).fold(String::with_capacity(text.len() + 64), |mut all, line| {
        append(&mut all, &line);
        all
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kld_manifest::Span;
    use kld_system::{Because, Layer};

    use super::*;

    fn user(name: &str, id: u32, system: bool, groups: &[&str]) -> SystemUser {
        SystemUser {
            name: name.parse().expect("a name"),
            uid: id,
            gid: id,
            system,
            home: format!("/home/{name}"),
            shell: "/bin/bash".to_owned(),
            groups: groups.iter().map(|g| g.parse().expect("a name")).collect(),
            ssh_keys: vec![],
            password_hash: None,
            admin: false,
            because: Because::new(Layer::Users, Span::DEFAULT, "test"),
        }
    }

    fn base() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/bash\n".to_owned(),
            shadow: "root:$y$secret:20000:0:99999:7:::\n".to_owned(),
            group: "root:x:0:\nadm:x:4:\n".to_owned(),
            gshadow: "root:*::\nadm:*::\n".to_owned(),
        }
    }

    #[test]
    fn users_are_appended_and_locked() {
        let mut accounts = base();
        accounts
            .add(&[user("webapp", 800, true, &[]), user("alice", 1000, false, &["adm", "webapp"])])
            .expect("they fit");
        accounts.lock_root();
        accounts.forget_dates();
        expect![[r#"
            root:x:0:0:root:/root:/bin/bash
            webapp:x:800:800::/home/webapp:/bin/bash
            alice:x:1000:1000::/home/alice:/bin/bash
            --
            root:!::0:99999:7:::
            webapp:!*::0:99999:7:::
            alice:!::0:99999:7:::
            --
            root:x:0:
            adm:x:4:alice
            webapp:x:800:alice
            alice:x:1000:
            --
            root:*::
            adm:*::alice
            webapp:!::alice
            alice:!::
        "#]]
        .assert_eq(
            &[accounts.passwd.clone(), accounts.shadow, accounts.group, accounts.gshadow].join("--\n"),
        );
    }

    #[test]
    fn what_is_taken_or_missing_is_named() {
        let error = |u: SystemUser| base().add(&[u]).expect_err("it must not fit").to_string();
        assert_eq!(
            error(user("root", 800, true, &[])),
            "cannot add user `root`: name `root` belongs to a package of the image"
        );
        assert_eq!(
            error(user("x", 4, true, &[])),
            "cannot add user `x`: number `4` belongs to a package of the image"
        );
        assert_eq!(
            error(user("x", 800, true, &["docker"])),
            "cannot add user `x` to group `docker`: no package and no user of the manifest has that group"
        );
        assert_eq!(
            base().uid("git").expect_err("unknown").to_string(),
            "there is no user `git` in the image"
        );
        assert_eq!(base().gid("adm"), Ok(4));
    }
}
