//! Whether a step of a procedure is a command or something for a person.
//!
//! A sentence that is run does harm; a command that is asked about costs a keystroke. So a line is a command only when its
//! first word is the name of a program (a path, or one of [`PROGRAMS`]) and nothing behind it reads as English.

use crate::model::{StepAction, StepRole};

/// Programs that steps of procedures begin with: of the system, of storage and networks, of what usually serves.
const PROGRAMS: &str = "\
    apt apt-get apt-mark awk bash blkid bootctl borg btrfs cat chmod chown chroot cmp cp cryptsetup curl \
    dd df diff dig dnf docker dpkg dpkg-reconfigure echo efibootmgr false flatpak fsck fwupdmgr getent \
    gh git gpg grep gzip hostnamectl ip journalctl kbe kdf kdir kill killall kldload kpkg kpod ksnap kst \
    kubectl kupgrade kvm-create logger ls lsblk make mariadb mariadb-dump mbuffer mkdir mktemp modprobe \
    mount mountpoint mv mysql mysqldump nc networkctl nft nginx npm openssl pacman pg_basebackup pg_dump \
    pg_dumpall pg_restore pg_upgradecluster ping pip pip3 podman printf psql python3 reboot redis-cli \
    resolvectl restic rm rmdir rsync runuser sanoid scp sed service sh shutdown sleep sqlite3 ss ssh \
    stat su sudo sync syncoid sysctl systemctl systemd-analyze systemd-run tar tee test timedatectl \
    timeout touch true udevadm umount update-grub update-initramfs useradd usermod virsh wg wg-quick \
    wget xz yum zdb zfs zpool zstd zypper";

/// Words that stand in sentences and not in command lines.
const ENGLISH: &str = "\
    a all an and are before each every everything is it its or our that the them then these this until \
    when your";

/// Options of `ssh` that take a word.
const SSH_TAKES: &str = "BbcDEeFIiJLlmOoPpQRSWw";

/// What a step is for, and who does it.
pub(super) fn read(text: &str) -> (StepRole, StepAction) {
    if let Some(rest) = after(text, "if failed") {
        return (StepRole::Branch, action(rest));
    }
    match after(text, "verify:") {
        Some(rest) => (StepRole::Proof, action(rest)),
        None => (StepRole::Work, action(text)),
    }
}

/// A command, or something for a person.
pub(super) fn action(text: &str) -> StepAction {
    if is_command(text) { StepAction::Run(text.to_owned()) } else { StepAction::Ask(text.to_owned()) }
}

/// What stands behind a label, written in any case.
fn after<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let head = text.get(..label.len())?;
    head.eq_ignore_ascii_case(label).then(|| text[label.len()..].trim_start_matches([':', ',']).trim())
}

fn is_command(text: &str) -> bool {
    let words = plain_words(text);
    let mut words = words.iter().map(String::as_str).skip_while(|word| is_assignment(word));
    let Some(first) = words.next() else { return false };
    let rest: Vec<&str> = words.collect();
    is_program(first) && !is_prose(&rest) && !(first == "ssh" && is_login(&rest))
}

/// `PGDATA=/srv/db`: set for the command behind it.
fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        letters && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    })
}

fn is_program(word: &str) -> bool {
    let path = ["/", "./", "../"].iter().any(|start| word.len() > start.len() && word.starts_with(start));
    path || PROGRAMS.split_whitespace().any(|program| program == word)
}

/// Sentences hold articles, a lone `+`, or end with a full stop.
fn is_prose(words: &[&str]) -> bool {
    let english = |word: &&str| {
        let bare = word.trim_end_matches([',', '.', ';', ':', '!', '?']);
        ENGLISH.split_whitespace().any(|word| word == bare) || *word == "+"
    };
    let stops = words.last().is_some_and(|last| {
        last.strip_suffix('.').is_some_and(|word| word.ends_with(|c: char| c.is_alphanumeric()))
    });
    stops || words.iter().any(english)
}

/// `ssh backup@10.8.2.1`: a person logs in; there is nothing to run.
fn is_login(words: &[&str]) -> bool {
    let (mut named, mut takes) = (0, false);
    for word in words {
        match word.strip_prefix('-') {
            _ if takes => takes = false,
            Some(option) if named == 0 => takes = option.len() == 1 && SSH_TAKES.contains(option),
            _ => named += 1,
        }
    }
    named < 2
}

/// Words outside of quotes. A quoted part counts as a word without content: what it says is data.
fn plain_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut began = false;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            // An apostrophe stands inside a word, a quotation begins one or follows `=`.
            None if c == '"' || c == '\'' && (word.is_empty() || word.ends_with('=')) => {
                quote = Some(c);
                began = true;
            }
            None if c.is_whitespace() => {
                if began {
                    words.push(std::mem::take(&mut word));
                }
                began = false;
            }
            None => {
                word.push(c);
                began = true;
            }
        }
    }
    if began {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_run() {
        for text in [
            "kbe create pre-upgrade-$(date +%Y%m%d)",
            "ksnap rpool/srv/webapp-db pre-upgrade",
            "systemctl start gitea && curl -f http://10.8.0.1:3000/api/v1/version",
            "dnf update gitea",
            "zpool import tank",
            "/usr/local/bin/migrate --to 7",
            "PGDATA=/srv/db pg_dumpall -f /srv/all.sql",
            "ssh -p 2222 backup@10.8.2.1 zfs send tank/web@now",
            "logger 'the upgrade of the database begins'",
            "psql -c \"update a set b = 1 where it is null\"",
            "cp -a /etc .",
            "cd-lite is no program; reboot",
            "reboot",
        ] {
            let wanted = !text.starts_with("cd-lite");
            assert_eq!(matches!(action(text), StepAction::Run(_)), wanted, "{text}");
        }
    }

    #[test]
    fn sentences_are_asked() {
        for text in [
            "",
            "call the owner",
            "Boot it, then syncoid the datasets back from the replica",
            "Apply upgrade (packages / config / schema)",
            "On backup host: zpool import tank",
            "Start services: systemctl start gitea",
            "Update DNS: git.internal → 10.8.2.1",
            "kst + service health check",
            "mount the disk of the old machine",
            "reboot it",
            "ping everybody who uses it.",
            "test whether logins work.",
            "ssh backup@10.8.2.1",
            "ssh -i /root/key -p 22 backup@10.8.2.1",
            "do: this",
            "=x",
            "/",
        ] {
            assert_eq!(action(text), StepAction::Ask(text.to_owned()));
        }
    }

    #[test]
    fn labels_say_what_a_step_is_for() {
        let run = |text: &str| StepAction::Run(text.to_owned());
        assert_eq!(read("Verify: kst"), (StepRole::Proof, run("kst")));
        assert_eq!(read("verify: kst"), (StepRole::Proof, run("kst")));
        assert_eq!(
            read("If failed: kbe activate x && reboot"),
            (StepRole::Branch, run("kbe activate x && reboot"))
        );
        assert_eq!(
            read("If failed, call the owner"),
            (StepRole::Branch, StepAction::Ask("call the owner".to_owned()))
        );
        assert_eq!(read("kst"), (StepRole::Work, run("kst")));
        assert_eq!(read("É"), (StepRole::Work, StepAction::Ask("É".to_owned())));
    }
}
