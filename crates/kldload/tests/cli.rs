//! The command line as a person meets it.

use kld_host::{Cmd, Output};

const KLDLOAD: &str = env!("CARGO_BIN_EXE_kldload");

fn kldload(args: &[&str], stdin: &str) -> (i32, String, String) {
    let cmd =
        [1, 2, 3].into_iter().fold(Cmd::new(KLDLOAD).args(args).stdin_bytes(stdin.as_bytes()), Cmd::accept);
    let Output { code: status, stdout, stderr } = cmd.output().expect("it starts");
    (status, String::from_utf8_lossy(&stdout).into_owned(), stderr)
}

const RECIPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/webapp/appliance.manifest");

/// Asks a command, and every one below it, for help; those of `node` are for units, not for people.
fn helps(words: &[&str], seen: &mut Vec<String>) {
    let (status, stdout, stderr) = kldload(&[words, &["--help"]].concat(), "");
    assert_eq!((status, stderr.as_str()), (0, ""), "{words:?}");
    assert!(words.is_empty() || stdout.contains("Examples:\n  k"), "{words:?}:\n{stdout}");
    seen.push(words.join(" "));
    let list = stdout.split_once("\nCommands:\n").map_or("", |(_, list)| list);
    let names = list.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
        let name = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?;
        name.split(' ').next().filter(|name| !["help", "node"].contains(name))
    });
    for name in names {
        helps(&[words, &[name]].concat(), seen);
    }
}

#[test]
fn help_never_acts_and_shows_examples() {
    let mut seen = Vec::new();
    helps(&[], &mut seen);
    for verb in ["apply", "be create", "be export", "pkg remove", "snap hold", "pool verify", "recover"] {
        assert!(seen.iter().any(|of| of == verb), "{verb} is not among {seen:?}");
    }
    let folder = tempfile::tempdir().expect("writable");
    for name in ["ksnap", "kdir", "kbe", "kdf", "kst", "kpkg", "kupgrade"] {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink(KLDLOAD, &link).expect("writable");
        let said = Cmd::new(&link).arg("--help").stdout_string().expect("it helps");
        assert!(said.contains("Examples:\n  k") && said.contains(&format!("\n  {name}")), "{said}");
    }
    let (status, _, stderr) = kldload(&[], "");
    assert_eq!(status, 2, "{stderr}");
    let (status, _, stderr) = kldload(&["chek"], "");
    assert_eq!(status, 2);
    assert!(stderr.contains("check"), "a typo gets a suggestion:\n{stderr}");
}

#[test]
fn a_machine_without_boot_environments_is_told_why() {
    let (status, stdout, stderr) = kldload(&["be", "list"], "");
    assert_eq!((status, stdout.as_str()), (1, ""));
    assert!(stderr.contains("the root file system is ") && stderr.contains("hint: "), "{stderr}");
    for bad in ["a b", "-x", "a@b", "x.stand-in", ""] {
        let (status, _, stderr) = kldload(&["be", "create", "--", bad], "");
        assert_eq!(status, 2, "{stderr}");
        assert!(stderr.contains("is no name for a boot environment"), "{stderr}");
    }
}

/// Runs bash with our completion, on a line that is being typed; gives what it offers.
fn completed(words: &[&str]) -> Vec<String> {
    let script = r#"export PATH="${1%/*}:$PATH"; eval "$(kldload completion bash)"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        function=$(complete -p "$1"); function=${function#*-F }; function=${function%% *}
        "$function" "$1" "${COMP_WORDS[$COMP_CWORD]}" "${COMP_WORDS[$COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let cmd = Cmd::new("bash").args(["-c", script, "bash", KLDLOAD]).args(words);
    cmd.stdout_string().expect("bash completes").lines().map(str::to_owned).collect()
}

#[test]
fn shells_complete_verbs_under_every_name() {
    assert_eq!(completed(&["kldload", "sna"]), ["snap"]);
    assert_eq!(completed(&["ksnap", "roll"]), ["rollback"]);
    assert_eq!(completed(&["ksnap", "rollback", "--sw"]), ["--swap"]);
    assert_eq!(completed(&["kbe", "act"]), ["activate"]);
    assert_eq!(completed(&["kdf", "--what-if", "d"]), ["destroy"]);
    assert_eq!(completed(&["kdir", "--for", "post"]), ["postgres"]);
    assert_eq!(completed(&["kst", "--prom"]), ["--prometheus"]);
    for shell in ["zsh", "fish"] {
        let (status, text, error) = kldload(&["completion", shell], "");
        assert_eq!(status, 0, "{error}");
        for name in ["kldload", "kst", "ksnap", "kbe", "kdf", "kdir", "kpkg", "kupgrade"] {
            assert!(text.contains(name), "{shell}: {name}");
        }
    }
    assert_eq!(completed(&["kdf", "/etc/hostna"]), ["/etc/hostname"]);
    assert_eq!(completed(&["kldload", "plan", "/etc/hostna"]), ["/etc/hostname"]);
    // What stands in an option's place is no verb.
    assert_eq!(completed(&["kupgrade", "--dry"]), ["--dry-run"]);
    let (status, _, error) = kldload(&["completion", "elvish"], "");
    assert!(status == 2 && error.contains("[possible values: bash, zsh, fish]"), "{error}");
}

#[test]
fn every_command_has_a_page_and_the_pages_do_not_change() {
    let dir = tempfile::tempdir().expect("writable");
    let page = |folder: &str, name: &str| std::fs::read_to_string(dir.path().join(folder).join(name));
    for folder in ["one", "two"] {
        let (status, _, error) = kldload(&["man", &dir.path().join(folder).display().to_string()], "");
        assert_eq!(status, 0, "{error}");
    }
    let mut pages = 0;
    for entry in std::fs::read_dir(dir.path().join("one")).expect("there") {
        let name = entry.expect("readable").file_name().into_string().expect("text");
        assert_eq!(page("one", &name).expect("there"), page("two", &name).expect("there"), "{name}");
        pages += 1;
    }
    assert!(pages > 60, "{pages}");
    for name in [
        "kldload",
        "kldload-build",
        "kldload-snap-rollback",
        "ksnap",
        "ksnap-rollback",
        "kst",
        "kbe-activate",
        "kdf",
        "kdir",
    ] {
        let text = page("one", &format!("{name}.1")).expect(name);
        let title =
            format!(".TH {} 1  \"kldload {}\" kldload\n", name.to_uppercase(), env!("CARGO_PKG_VERSION"));
        assert!(text.contains(&title), "{name}: {text}");
        assert!(text.contains(".SH SYNOPSIS") && text.contains(".SH OPTIONS"), "{name}: {text}");
    }
    assert!(page("one", "ksnap-rollback.1").expect("there").contains("swap"));
}

#[test]
fn the_page_about_shells_says_what_works() {
    let dir = tempfile::tempdir().expect("writable");
    std::os::unix::fs::symlink(KLDLOAD, dir.path().join("kldload")).expect("linked");
    let page = include_str!("../../../docs/shell.md");
    let lines: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    assert_eq!(lines.len(), 4);
    for line in lines {
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        let cmd = Cmd::new("/bin/bash").cwd(dir.path()).env("PATH", path).args(["-c", line]);
        cmd.run().unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    for name in ["kldload.bash", "_kldload", "kldload.fish", "man1/kdf.1"] {
        let bytes = std::fs::read(dir.path().join(name)).expect(name);
        assert!(bytes.len() > 1000, "{name}");
    }
}

#[test]
fn what_kdf_kdir_and_ksnap_cannot_do_is_said() {
    let (status, text, _) = kldload(&["dir", "--list"], "");
    assert!(
        status == 0 && text.contains("postgres  recordsize=8k") && text.contains("pages of 8K"),
        "{text}"
    );
    for (words, part) in [
        (&["dir", "/x", "--for", "oracle"][..], "oracle"),
        (&["dir"], "required"),
        (&["df", "--what-if", "destroy"], "required"),
        (&["snap", "rollback", "-r", "--swap", "t/a", "x"], "cannot be used with"),
        (&["df", "--what-if", "destroy", "t/a"], "`t/a` is no snapshot"),
    ] {
        let (status, _, error) = kldload(words, "");
        assert!(status == 2 && error.contains(part), "{words:?}: {error}");
    }
    let (status, _, error) = kldload(&["dir", "/x", "-o", "mountpoint=/y"], "");
    assert!(status == 1 && error.contains("the path says where") && error.contains("hint: "), "{error}");
    let (status, _, error) = kldload(&["snap", "--before", "sync | cat", "t/a", "x"], "");
    assert!(status == 1 && error.contains("`|` is not quoted") && error.contains("hint: "), "{error}");
}

#[test]
fn the_recipe_is_good_and_everything_in_it_is_explained() {
    let (status, _, stderr) = kldload(&["check", RECIPE], "");
    assert_eq!(status, 0, "{stderr}");
    let (status, stdout, _) = kldload(&["explain", "--layer", "firewall", RECIPE], "");
    assert_eq!(status, 0);
    assert!(stdout.contains("8000") && stdout.contains("51820"), "{stdout}");
    let (_, json, _) = kldload(&["explain", "--json", RECIPE], "");
    let rows: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(rows["kind"], "explanation");
    let rows = rows["items"].as_array().expect("an array");
    assert!(rows.len() > 100);
    assert!(
        rows.iter().all(|row| !row["reason"].as_str().unwrap_or_default().is_empty()),
        "every row has a reason"
    );
    let (status, unit, _) = kldload(&["explain", "--show", "/etc/systemd/system/webapp.service", RECIPE], "");
    assert_eq!(status, 0);
    assert!(unit.contains("ProtectSystem=strict"), "{unit}");
}

#[test]
fn presets_are_explained_without_a_manifest() {
    let (status, stdout, error) = kldload(&["explain", "--presets"], "");
    assert_eq!(status, 0, "{error}");
    for part in ["container-host", "MemoryDenyWriteExecute=no", "PostgreSQL compiles queries"] {
        assert!(stdout.contains(part), "{part}:\n{stdout}");
    }
    let (_, json, _) = kldload(&["explain", "--presets", "--json"], "");
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    let rows = json["items"].as_array().expect("an array");
    assert!(rows.iter().all(|row| !row["reason"].as_str().unwrap_or_default().is_empty()), "{json}");
    let (status, _, error) = kldload(&["explain"], "");
    assert!(status == 2 && error.contains("FILE"), "{error}");
}

#[test]
fn a_mistake_is_shown_where_it_is() {
    let (status, stdout, stderr) = kldload(
        &["check", "-"],
        "name: x\ndistro: Debian 13\nprofile: server\nzfs_layout:\n  rpool/srv/x: recordsize=3k\n",
    );
    assert_eq!((status, stdout.as_str()), (1, ""));
    for part in ["-:5:", "recordsize=3k", "^", "hint:"] {
        assert!(stderr.contains(part), "{part}:\n{stderr}");
    }
    let (status, json, _) = kldload(&["check", "--json", "-"], "naem: x\n");
    assert_eq!(status, 1);
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert!(json["items"].as_array().is_some_and(|items| !items.is_empty()), "{json}");
}

/// Every command that reads a manifest reads it in the same way; the plan needs a machine.
#[test]
fn a_file_that_is_not_the_manifests_is_refused_with_its_line() {
    let dir = tempfile::tempdir().expect("writable");
    let (manifest, app) = (dir.path().join("a.manifest"), dir.path().join("app.py"));
    let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let text = std::fs::read_to_string(RECIPE)
        .expect("there")
        .replace(":  app.py\n", &format!(":  app.py  sha256={digest}\n"));
    assert!(text.contains(digest), "{text}");
    std::fs::write(&manifest, text).expect("written");
    let (manifest, image) = (manifest.display().to_string(), dir.path().join("x.img").display().to_string());
    let commands: [&[&str]; 3] = [
        &["check", &manifest],
        &["explain", &manifest],
        &["build", "--dry-run", "--output", &image, &manifest],
    ];
    std::fs::write(&app, "hello").expect("written");
    for words in commands {
        let (status, _, stderr) = kldload(words, "");
        assert_eq!(status, 0, "{words:?}: {stderr}");
    }
    std::fs::write(&app, "hello\n").expect("written");
    for words in commands {
        let (status, _, stderr) = kldload(words, "");
        assert_eq!(status, 1, "{words:?}: {stderr}");
        let found = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        for part in [found, digest, "^^^^", "a.manifest:", "`sha256sum "] {
            assert!(stderr.contains(part), "{part}: {stderr}");
        }
    }
    std::fs::remove_file(&app).expect("removed");
    let (status, _, stderr) = kldload(commands[0], "");
    assert!(status == 1 && stderr.contains("cannot compare `app.py` with its SHA-256"), "{stderr}");
}

#[test]
fn secrets_have_names_and_come_from_files() {
    let (status, _, stderr) = kldload(&["secret", "set", "Not A Name", "x"], "");
    assert!(status == 2 && stderr.contains("small letter"), "{stderr}");
    let (status, page, _) = kldload(&["secret", "set", "--help"], "");
    assert!(status == 0 && page.contains("Examples:") && !page.contains("--value"), "{page}");
}

#[test]
fn what_cannot_be_built_is_said_before_anything_is_done() {
    let (status, _, stderr) =
        kldload(&["build", "--distro", "plan9", "--profile", "core", "--output", "/nonexistent/x.img"], "");
    assert_eq!(status, 1);
    assert!(stderr.contains("`plan9`") && stderr.contains("debian-13"), "{stderr}");
    let (status, _, stderr) =
        kldload(&["build", "--distro", "debian", "--profile", "core", "--output", "/nonexistent/x.img"], "");
    assert_eq!(status, 1);
    assert!(stderr.contains("/nonexistent/x.img") && stderr.contains("hint:"), "{stderr}");
    // Nobody waits a quarter of an hour for a machine that cannot answer.
    let dir = tempfile::tempdir().expect("a directory");
    let manifest = dir.path().join("old.manifest").display().to_string();
    let text = "name: old\npurpose: An older release\nowner: Ops  ops@example.com\ndistro: Debian 12\nprofile: core\n";
    std::fs::write(&manifest, text).expect("written");
    let (status, _, stderr) = kldload(&["run", &manifest], "");
    assert!(status == 1 && stderr.contains("its systemd 252 takes no units from the firmware"), "{stderr}");
    let image = dir.path().join("old.img").display().to_string();
    std::fs::File::create(&image).and_then(|file| file.set_len(1 << 27)).expect("sparse");
    let lock = "version = 1\ndistro = \"debian-12\"\nkernel = \"6.1.0\"\npackage = []\n";
    std::fs::write(format!("{image}.lock"), lock).expect("written");
    let (status, _, stderr) = kldload(&["run", &image], "");
    assert!(status == 1 && stderr.contains("hint: `kldload build` makes the image"), "{stderr}");
    let (status, _, stderr) = kldload(&["build", RECIPE, "--size", "huge", "--output", "x.img"], "");
    assert_eq!(status, 2, "{stderr}");
    let (status, stdout, _) = kldload(&["build", RECIPE, "--dry-run", "--output", "/nonexistent/x.img"], "");
    assert_eq!(status, 0);
    assert!(stdout.contains("rpool/ROOT/debian"), "{stdout}");
}

#[test]
fn the_page_of_distributions_has_a_row_for_each_release() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/distributions.md");
    let page = std::fs::read_to_string(page).expect("it is there");
    for spec in kld_system::known_distros() {
        let zfs = spec.zfs_compatibility.trim_start_matches("openzfs-").trim_end_matches("-linux");
        let row = format!("`{}`", spec.label());
        let row = page.lines().find(|line| line.starts_with('|') && line.contains(&row)).expect(&row);
        for part in [format!("| {zfs} |"), format!("| {} |", spec.systemd_version)] {
            assert!(row.contains(&part), "{part} in {row}");
        }
    }
}

/// Every command that the README shows is one that exists and does what it says; what builds or boots is asked for
/// its plan here, and done for real by the tests in machines.
#[test]
fn the_commands_of_the_readme_work_as_written() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let readme = std::fs::read_to_string(format!("{root}/README.md")).expect("there is a README");
    let mut seen = 0;
    for line in readme.lines().filter(|line| line.starts_with("kldload ")) {
        let command = line.split('#').next().unwrap_or_default();
        let mut words: Vec<&str> = command.split_whitespace().skip(1).collect();
        match words[0] {
            "build" => words.push("--dry-run"),
            "run" | "pool" => words = vec![words[0], "--help"],
            _ => {}
        }
        let output = Cmd::new(KLDLOAD).cwd(root).args(&words).output();
        output.unwrap_or_else(|error| panic!("`{line}`: {error}"));
        seen += 1;
    }
    assert!(seen >= 7, "the README shows its commands");
}

/// A pool in a partition of a disk image, written by the library that `kldload build` uses.
fn disk_with_a_pool(dir: &std::path::Path) -> String {
    use kld_disk::DiskLayout;
    use kld_pool::tree::Tree;
    use kld_pool::{DatasetSpec, PoolSpec, Region, write_pool};
    let files = dir.join("files");
    std::fs::create_dir_all(files.join("etc")).expect("writable");
    std::fs::write(files.join("etc/motd"), "good morning\n").expect("writable");
    // Digits that repeat too late for a compressor, and are too many to lie in a block pointer.
    let digits: String = (0..4000).map(|n: u32| format!("{:08x}", n.wrapping_mul(2_654_435_761))).collect();
    std::fs::write(files.join("etc/digits"), digits).expect("writable");
    std::os::unix::fs::symlink("etc/motd", files.join("today")).expect("writable");
    let layout = DiskLayout::plan(160 << 20, 33 << 20, "tank", &[1; 32]).expect("it fits");
    let path = dir.join("disk.img");
    let mut disk = std::fs::File::create_new(&path).expect("writable");
    disk.set_len(layout.size()).expect("sparse files work");
    layout.write_tables(&mut disk).expect("writable");
    let mut spec = PoolSpec::new("tank".parse().expect("a name"), layout.pool().len, [1; 32]);
    let mut home = DatasetSpec::new("tank/home".parse().expect("a name"));
    home.content = Tree::from_dir(&files).expect("readable").into();
    home.snapshots.push("first".into());
    spec.datasets.push(home);
    write_pool(&spec, &[&Region { file: &disk, start: layout.pool().start, len: layout.pool().len }], &())
        .expect("it is written");
    path.display().to_string()
}

#[test]
fn a_pool_is_read_without_the_module() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = disk_with_a_pool(dir.path());
    let ok = |args: &[&str]| {
        let (status, stdout, stderr) = kldload(args, "");
        assert_eq!(status, 0, "{args:?}: {stderr}");
        stdout
    };
    let info = ok(&["pool", "info", &disk]);
    assert!(info.contains("tank/home@first") && info.contains("pool      tank"), "{info}");
    assert_eq!(ok(&["pool", "ls", &disk, "tank/home"]), "etc\ntoday\n");
    assert_eq!(
        ok(&["pool", "ls", "--recursive", &disk, "tank/home@first"]),
        "etc\ntoday\netc/digits\netc/motd\n"
    );
    let long = ok(&["pool", "ls", "-l", &disk, "tank/home"]);
    assert!(long.contains("today -> etc/motd") && long.contains("drwx"), "{long}");
    assert_eq!(ok(&["pool", "cat", &disk, "tank/home@first", "/etc/motd"]), "good morning\n");
    assert_eq!(ok(&["pool", "diff", &disk, "tank/home@first", "tank/home"]), "");
    assert!(ok(&["pool", "verify", &disk]).contains("tank: nothing is wrong"));
    let stream = dir.path().join("home.zstream");
    ok(&["pool", "send", "-cLe", &disk, "tank/home@first", "--output", &stream.display().to_string()]);
    let stream = std::fs::File::open(stream).expect("it is there");
    assert_eq!(kld_pool::send::check(stream).expect("it is whole").name, "tank/home@first");

    // Something that is not there, in words.
    for (args, said) in [
        (&["pool", "ls", &disk, "tank/nope"][..], "no dataset `tank/nope`"),
        (&["pool", "cat", &disk, "tank/home", "/nope"], "no `/nope`"),
        (&["pool", "cat", &disk, "tank/home", "/today"], "is a link to `etc/motd`"),
        (&["pool", "send", &disk, "tank/home"], "only `DATASET@SNAPSHOT` can be sent"),
        (&["pool", "send", &disk, "-t", "1-2-3-44"], "the token's checksum is wrong"),
        (&["pool", "send", "--offset", "1G", &disk, "tank/home@first"], "cannot go on at byte 1073741824"),
        (&["pool", "info", RECIPE], "no pool is on"),
        (&["pool", "info", "/nope"], "cannot open `/nope`"),
    ] {
        let (status, _, stderr) = kldload(args, "");
        assert!(status == 1 && stderr.contains(said), "{args:?}: {stderr}");
    }
}

#[test]
fn a_damaged_pool_is_reported() {
    use std::os::unix::fs::FileExt as _;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = disk_with_a_pool(dir.path());
    let disk = std::fs::File::options().read(true).write(true).open(&path).expect("writable");
    // Wherever the file's content lies in the pool's partition.
    let mut bytes = vec![0; 120 << 20];
    disk.read_exact_at(&mut bytes, 34 << 20).expect("readable");
    let digits = format!("{:08x}", 2_654_435_761_u32);
    let found =
        bytes.windows(8).position(|window| window == digits.as_bytes()).expect("it is not compressed");
    disk.write_all_at(b"evil", (34 << 20) + found as u64).expect("writable");
    let (status, stdout, stderr) = kldload(&["pool", "verify", &path], "");
    assert_eq!(status, 1, "{stderr}");
    assert!(stdout.contains("etc/digits") && stdout.contains("no copy of the block is good"), "{stdout}");
}

#[test]
fn a_pool_is_written_once_and_not_over_another() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(dir.path().join("home")).expect("writable");
    std::fs::write(dir.path().join("home/thesis"), "chapter one\n").expect("writable");
    let write = |more: &[&str]| {
        let words =
            ["pool", "write", "--name", "tank", "--size", "128M", "--seed", "a seed", "--snapshot", "first"];
        let dataset =
            ["--dataset", "home=home,compression=zstd-3", "--dataset", "empty,quota=10M", "-O", "atime=off"];
        let cmd = Cmd::new(KLDLOAD).cwd(dir.path()).env("SOURCE_DATE_EPOCH", "1700000000");
        let output = cmd.args(words).args(dataset).args(more).accept(1).output().expect("it starts");
        (output.code, output.stderr)
    };
    let read = |name: &str| std::fs::read(dir.path().join(name)).expect("it is there");

    assert_eq!(write(&["--output", "one.img"]).0, 0);
    assert_eq!(write(&["--output", "two.img", "--threads", "1"]).0, 0);
    assert!(read("one.img") == read("two.img"), "the same content, the same bytes");
    let (status, said) = write(&["--output", "one.img"]);
    assert!(status == 1 && said.contains("`one.img` holds a pool") && said.contains("--force"), "{said}");
    assert_eq!(write(&["--output", "one.img", "--force"]).0, 0);
    assert_eq!(write(&["--output", "a.img,b.img", "--vdev", "mirror"]).0, 0);
    assert_eq!(write(&["--output", "c.img,d.img,e.img", "--vdev", "raidz1"]).0, 0);
    assert_eq!(write(&["--output", "f.img,g.img", "--vdev", "stripe"]).0, 0);

    let path = |name: &str| dir.path().join(name).display().to_string();
    let paths = |names: &[&str]| names.iter().map(|name| path(name)).collect::<Vec<_>>().join(",");
    let sets: [&[&str]; 6] = [
        &["one.img"],
        &["a.img", "b.img"],
        &["b.img"],
        &["c.img", "d.img", "e.img"],
        &["c.img", "e.img"],
        &["f.img", "g.img"],
    ];
    for image in sets.map(paths) {
        let (status, stdout, stderr) = kldload(&["pool", "cat", &image, "tank/home@first", "thesis"], "");
        assert_eq!((status, stdout.as_str()), (0, "chapter one\n"), "{image}: {stderr}");
        assert_eq!(kldload(&["pool", "verify", &image], "").0, 0, "{image}");
    }

    for (more, wanted) in [
        (&["--output", "x.img", "--dataset", "a=/nope"][..], "cannot read `/nope`"),
        (&["--output", "x.img", "--dataset", "a,recordsize=3k"], "recordsize"),
        (&["--output", "x.img", "--dataset", "a,compression"], "`compression` is not `property=value`"),
        (&["--output", "x.img", "--dataset", "@a"], "cannot be the name of a dataset"),
        (&["--output", "x.img,y.img"], "hint: `--vdev mirror`"),
        (&["--output", "x.img,y.img", "--vdev", "raidz2"], "a raidz on 2 devices is not possible"),
        (&["--output", "x.img", "--dataset", "b,origin=nope@nothing"], "nope@nothing"),
        (&["--output", "/dev/null"], "neither a file nor a disk"),
        (&["--output", "nope/x.img"], "mkdir -p nope"),
    ] {
        let (status, said) = write(more);
        assert!(status == 1 && said.contains(wanted), "{more:?}: {said}");
        assert!(!dir.path().join("x.img").exists());
    }
}

#[test]
fn procedures_are_shown_before_anybody_does_them() {
    let (status, stdout, stderr) = kldload(&["upgrade", "--dry-run", RECIPE], "");
    assert_eq!((status, stderr.as_str()), (3, ""));
    expect_test::expect![[r#"
        STEP  HOW             WHAT
           1  run             kbe create pre-webapp-upgrade
           2  run             ksnap rpool/srv/webapp-db pre-upgrade
           3  run             apt-get -y upgrade
           4  verify          kst
           5  if failed: run  kbe activate pre-webapp-upgrade && reboot
    "#]]
    .assert_eq(&stdout);
    let (status, stdout, _) = kldload(&["dr", "--dry-run", "--from", "2", RECIPE], "");
    assert_eq!(status, 3);
    expect_test::expect![[r#"
        STEP  HOW     WHAT
           2  ask     Boot it, then syncoid the datasets back from the replica
           3  verify  kst
        RTO target: 10m 00s
        RPO target: 15m 00s
    "#]]
    .assert_eq(&stdout);
    let (_, json, _) = kldload(&["dr", "--dry-run", "--json", RECIPE], "");
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(
        json["items"][0]["steps"][1]["action"]["ask"],
        "Boot it, then syncoid the datasets back from the replica"
    );
    let (status, _, stderr) = kldload(&["upgrade", "--answer", "perhaps", RECIPE], "");
    assert!(status == 2 && stderr.contains("done, failed, skip"), "{stderr}");
    let (status, _, stderr) = kldload(&["upgrade", "--dry-run"], "");
    assert!(status == 1 && stderr.contains("cannot read the manifest `appliance.manifest`"), "{stderr}");
}

#[test]
fn snapshots_are_not_made_of_what_makes_no_sense() {
    let (status, stdout, _) = kldload(&["snap", "--help"], "");
    assert!(status == 0 && stdout.contains("Examples:") && stdout.contains("rollback"), "{stdout}");
    for verb in ["list", "diff", "show", "hold", "release", "rollback", "prune"] {
        let (status, stdout, _) = kldload(&["snap", verb, "--help"], "");
        assert!(status == 0 && stdout.contains("Examples:"), "{verb}: {stdout}");
    }
    let (status, _, _) = kldload(&["snap", "tank"], "");
    assert_eq!(status, 2, "a name is wanted");
    for (status, args, part) in [
        (
            2,
            &["snap", "tank", "größe"][..],
            "`größe` cannot be the name of a snapshot: `ö` is not possible in it",
        ),
        (
            2,
            &["snap", "prune", "--keep", "fortnightly=1", "tank"],
            "`fortnightly` is not one of last, hourly",
        ),
        (2, &["snap", "prune", "--keep", "0", "tank"], "`0` is not what can be kept: it keeps nothing"),
        (1, &["snap", "tank@x", "name"], "`tank@x` is a snapshot, and a dataset is wanted"),
    ] {
        let (ended, _, stderr) = kldload(args, "");
        assert!(ended == status && stderr.contains(part) && stderr.contains("hint:"), "{part}: {stderr}");
    }
    let long = "x".repeat(255);
    let (status, _, stderr) = kldload(&["snap", "--dry-run", "tank", &long], "");
    assert!(status == 1 && stderr.contains("is too long"), "{stderr}");
    let (status, stdout, _) = kldload(&["snap", "--dry-run", "tank/a b", "tank/c", "--", "-x"], "");
    assert!(
        status == 3 && stdout.starts_with("tank/a b@-x-2") && stdout.contains("\ntank/c@-x-2"),
        "{stdout}"
    );
}

/// The program is in every image, in every boot environment, and read at every start.
#[test]
fn the_program_is_at_most_15_mib() {
    let size = std::fs::metadata(env!("CARGO_BIN_EXE_kldload")).expect("it was built").len();
    // Only the release profile is what anybody gets; the other one carries the symbols of everything.
    if !cfg!(debug_assertions) {
        assert!(size <= 15 << 20, "{size} bytes");
    }
}
