//! What every machine must do with files, the one in memory and the real one, and what the tools of the one in memory must
//! say: the same transcripts that real tools are held to in a machine (`kldload/tests/vm/contract.rs`).

mod support;

use kld_engine::{Entry, Ground, Host, HostError, Node, RealHost};
use kld_host::{Cmd, ExecError};
use support::fake::{Deb, Fake};
use support::land::Land;
use support::transcript::{Answer, Do, PODMAN, TOOLS, differences};

fn entry(node: Node, mode: u32) -> Entry {
    // Whoever runs the tests may be anybody.
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    Entry { node, mode, uid, gid }
}

fn file(text: &str, mode: u32) -> Entry {
    entry(Node::File(text.as_bytes().to_vec()), mode)
}

fn keeps_files(host: &dyn Host, root: &str) {
    let at = |name: &str| format!("{root}/{name}");
    let get = |name: &str| host.entry(&at(name)).expect("readable");
    assert_eq!(get("a"), None);
    assert_eq!(get("a/b"), None);
    assert!(host.list(&at("a")).expect("readable").is_empty());
    host.remove(&at("a")).expect("what is not there is no error");

    // Directories above it come along, for everybody to enter.
    host.put(&at("a/b/c"), &file("one", 0o640)).expect("writable");
    assert_eq!(get("a/b/c"), Some(file("one", 0o640)));
    let above = get("a/b").expect("it came along");
    assert_eq!((above.node, above.mode), (Node::Directory, 0o755));
    host.put(&at("a/b/c"), &file("two", 0o4755)).expect("writable");
    assert_eq!(get("a/b/c"), Some(file("two", 0o4755)));

    host.put(&at("a/link"), &entry(Node::Link("b/c".to_owned()), 0o777)).expect("writable");
    assert_eq!(get("a/link").map(|entry| entry.node), Some(Node::Link("b/c".to_owned())));
    // Nobody's rights are changed through a link.
    let through = host.put(&at("a/link"), &entry(Node::Directory, 0));
    assert!(matches!(through, Err(HostError::InTheWay { .. })), "{through:?}");
    // A file in place of a link replaces the link, and not what it leads to.
    host.put(&at("a/link"), &file("three", 0o600)).expect("writable");
    assert_eq!(get("a/link"), Some(file("three", 0o600)));
    assert_eq!(get("a/b/c"), Some(file("two", 0o4755)));

    host.put(&at("a/empty"), &entry(Node::Directory, 0o700)).expect("writable");
    host.put(&at("a/empty"), &entry(Node::Directory, 0o711)).expect("again");
    assert_eq!(get("a/empty"), Some(entry(Node::Directory, 0o711)));
    assert_eq!(host.list(&at("a")).expect("readable"), ["b", "empty", "link"]);
    let full = host.remove(&at("a/b"));
    assert!(
        matches!(&full, Err(HostError::File { source, .. }) if source.kind() == std::io::ErrorKind::DirectoryNotEmpty),
        "{full:?}"
    );
    host.remove(&at("a/b/c")).expect("a file");
    host.remove(&at("a/b")).expect("an empty directory");
    assert_eq!(get("a/b"), None);

    host.append(&at("a/journal"), b"one\n").expect("writable");
    host.append(&at("a/journal"), b"two\n").expect("writable");
    assert_eq!(get("a/journal").map(|entry| entry.node), Some(Node::File(b"one\ntwo\n".to_vec())));
    assert_eq!(get("a/journal").map(|entry| entry.mode), Some(0o600));
}

#[test]
fn a_machine_in_memory_keeps_files() {
    keeps_files(&Fake::default(), "/srv");
}

#[test]
fn a_real_machine_keeps_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    keeps_files(&RealHost, &dir.path().display().to_string());
    // Nothing half-made stays beside what was made.
    let left: Vec<_> = std::fs::read_dir(dir.path().join("a"))
        .expect("readable")
        .map(|e| e.expect("readable").file_name())
        .collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
}

/// Does it with a machine in memory. What looks at files is no tool there.
fn answer(fake: &Fake, step: &Do) -> Answer {
    let text = |path: &str| match fake.entry(path).expect("readable") {
        Some(Entry { node: Node::File(bytes), .. }) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        _ => None,
    };
    let found = |stdout: Option<String>| Answer {
        code: i32::from(stdout.is_none()),
        stdout: stdout.unwrap_or_default(),
        stderr: String::new(),
    };
    match step {
        Do::Put(path, content) => {
            let node = Node::File((content.clone() + "\n").into_bytes());
            fake.put(path, &Entry { node, mode: 0o644, uid: 0, gid: 0 }).expect("writable");
            Answer::default()
        }
        Do::Remove(path) => {
            fake.remove(path).expect("writable");
            Answer::default()
        }
        Do::Run(words, stdin) => match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["cat", path] => found(text(path)),
            ["test", "-d", path] => found(fake.entry(path).expect("readable").map(|_| String::new())),
            ["grep", begin, path] => {
                let begin = begin.trim_start_matches('^');
                let text = text(path).unwrap_or_default();
                found(text.lines().find(|line| line.starts_with(begin)).map(|line| format!("{line}\n")))
            }
            _ => match fake.run(&Cmd::new(&words[0]).args(&words[1..]).stdin_bytes(stdin.clone())) {
                Ok(output) => found(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
                Err(HostError::Exec(ExecError::Failed { status, stderr, .. })) => {
                    let code = status.code().expect("it has ended by itself");
                    Answer { code, stdout: String::new(), stderr }
                }
                Err(error) => panic!("{words:?}: {error}"),
            },
        },
    }
}

#[test]
fn tools_in_memory_say_what_real_ones_do() {
    let probe = Deb { units: vec!["kld-probe.service"], provides: vec!["kld-feeler"], ..Deb::default() };
    let fake = Fake::new(
        [
            ("kld-probe".to_owned(), probe),
            (
                "dpkg".to_owned(),
                Deb { versions: vec!["1.22.21"], files: vec![("/usr/bin/dpkg", "")], ..Deb::default() },
            ),
        ]
        .into(),
    );
    let policy = "/usr/sbin/policy-rc.d";
    fake.put(policy, &file("exit 101\n", 0o755)).expect("writable");
    fake.run(&Cmd::new("apt-get").args(["install", "dpkg"])).expect("it is in the archive");
    fake.remove(policy).expect("it was made");
    fake.put("/proc/sys/vm/swappiness", &file("60\n", 0o644)).expect("writable");
    let wrong = differences(TOOLS, |step| answer(&fake, step));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn podman_in_memory_says_what_the_real_one_does() {
    let fake = Fake::new([("podman".to_owned(), Deb::default())].into());
    let policy = "/usr/sbin/policy-rc.d";
    fake.put(policy, &file("exit 101\n", 0o755)).expect("writable");
    fake.run(&Cmd::new("apt-get").args(["install", "podman"])).expect("it is in the archive");
    fake.change(|machine| {
        machine.images.insert("localhost/greeter:1".to_owned());
        machine.containers.insert("greeter.service".to_owned(), "localhost/greeter:1".to_owned());
    });
    let wrong = differences(PODMAN, |step| answer(&fake, step));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn moves_directories(ground: &dyn Ground, root: &str) {
    let at = |name: &str| format!("{root}/{name}");
    ground.put(&at("one/a"), &file("text", 0o640)).expect("writable");
    ground.put(&at("two"), &entry(Node::Directory, 0o700)).expect("writable");
    let number = |name: &str| ground.number(&at(name)).expect("it can be asked");
    let (one, two) = (number("one"), number("two"));
    assert!(one.is_some() && one != two && number("none").is_none());
    assert!(ground.is_directory(&at("one")).expect("it can be asked"));
    assert!(!ground.is_directory(&at("one/a")).expect("it can be asked"));
    assert_eq!(ground.resolve(&at("one")).expect("it can be asked"), Some(at("one")));
    assert_eq!(ground.resolve(&at("none")).expect("it can be asked"), None);

    let before = ground.survey(&at("one")).expect("readable");
    assert_eq!(before.entries, 2);
    assert!(ground.exchange(&at("one"), &at("two")).expect("both are there"));
    assert_eq!((number("one"), number("two")), (two, one), "numbers go along");
    assert_eq!(ground.list(&at("two")).expect("readable"), ["a"]);
    assert!(ground.list(&at("one")).expect("readable").is_empty());
    assert_eq!(ground.survey(&at("two")).expect("readable").stamp, before.stamp, "nothing in it has changed");
    assert!(ground.exchange(&at("one"), &at("none")).is_err());

    assert!(ground.rename(&at("two"), &at("one")).is_err(), "never over something");
    ground.rename(&at("two"), &at("three")).expect("that name is free");
    assert_eq!((number("two"), number("three")), (None, one));
    let different = ground.compare(&at("three"), &at("one")).expect("readable").differences;
    assert!(!different.is_empty());
    let same = ground.compare(&at("three"), &at("three")).expect("readable");
    assert!(same.differences.is_empty() && same.old == same.new && same.old == before.stamp, "{same:?}");
    assert!(ground.users(&at("three")).expect("it can be asked").is_empty());
}

#[test]
fn a_machine_in_memory_moves_directories() {
    moves_directories(&Land::new(true), "/srv");
}

#[test]
fn a_real_machine_moves_directories() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let root = dir.path().canonicalize().expect("it is there");
    moves_directories(&RealHost, &root.display().to_string());
}
