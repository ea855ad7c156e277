//! `kldload pool` as a person meets it: what goes in comes out, and what goes wrong is said.

use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use kld_host::{Cmd, Output};

const KLDLOAD: &str = env!("CARGO_BIN_EXE_kldload");

/// Runs `kldload pool` in a directory: exit code, standard output, what was said.
fn pool(dir: &Path, args: &[&str]) -> (i32, Vec<u8>, String) {
    ran(Cmd::new(KLDLOAD).arg("pool").args(args).cwd(dir))
}

fn ran(cmd: Cmd) -> (i32, Vec<u8>, String) {
    let cmd = [1, 2].into_iter().fold(cmd.env("SOURCE_DATE_EPOCH", "1700000000"), Cmd::accept);
    let Output { code, stdout, stderr } = cmd.output().expect("it starts");
    (code, stdout, stderr)
}

#[track_caller]
fn ok(dir: &Path, args: &[&str]) -> String {
    let (code, stdout, said) = pool(dir, args);
    assert_eq!(code, 0, "{args:?}: {said}");
    String::from_utf8(stdout).expect("it is text") + &said
}

/// `write`, with what every pool here has.
fn write<'a>(output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let words = ["write", "--name", "tank", "--size", "128M", "--seed", "s", "--output", output];
    words.into_iter().chain(more.iter().copied()).collect()
}

/// Digits that no compressor here makes shorter than a block pointer.
fn noise(len: usize) -> Vec<u8> {
    let mut word = 2_654_435_761_u32;
    (0..len)
        .map(|_| {
            word ^= word << 13;
            word ^= word >> 17;
            word ^= word << 5;
            word as u8
        })
        .collect()
}

fn fresh() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let home = dir.path().join("home");
    std::fs::create_dir_all(home.join("deep/er")).expect("writable");
    std::fs::write(home.join("thesis"), "chapter one\n").expect("writable");
    std::fs::write(home.join("deep/er/noise"), noise(600_000)).expect("writable");
    std::fs::hard_link(home.join("thesis"), home.join("deep/again")).expect("writable");
    std::os::unix::fs::symlink("thesis", home.join("link")).expect("writable");
    let sparse = std::fs::File::create(home.join("sparse")).expect("writable");
    sparse.set_len(64 << 20).expect("writable");
    sparse.write_all_at(b"in the middle", 30 << 20).expect("writable");
    dir
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

#[test]
fn what_goes_in_comes_out() {
    let dir = fresh();
    let at = dir.path();
    ok(at, &write("a.img", &["--dataset", "home=home", "--snapshot", "first"]));
    let said = ok(at, &["extract", "a.img", "tank/home@first", "--output", "out"]);
    assert!(said.contains("3 directories, 3 files, 1 hard links, 1 others"), "{said}");
    assert_eq!(read(at.join("out/thesis")), b"chapter one\n");
    assert_eq!(read(at.join("out/deep/er/noise")), noise(600_000));
    let (thesis, again) = (at.join("out/thesis").metadata(), at.join("out/deep/again").metadata());
    assert_eq!(thesis.expect("it is there").ino(), again.expect("it is there").ino());
    let sparse = at.join("out/sparse").metadata().expect("it is there");
    assert!(sparse.len() == 64 << 20 && sparse.blocks() < 2048, "{} sectors", sparse.blocks());
    let (was, is) = (at.join("home").metadata().expect("there"), at.join("out").metadata().expect("there"));
    assert_eq!((was.mode(), was.mtime_nsec()), (is.mode(), is.mtime_nsec()));

    // A tar of it makes the same pool, packed or not, from a file or a pipe; GNU tar agrees.
    ok(at, &["extract", "a.img", "tank/home", "--tar", "home.tar"]);
    let (_, piped, _) = pool(at, &["extract", "a.img", "tank/home", "--tar", "-"]);
    assert!(piped == read(at.join("home.tar")), "a tar is the same on standard output");
    let tar = read(at.join("home.tar"));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).expect("it is memory");
    std::fs::write(at.join("home.tar.gz"), gzip.finish().expect("it is memory")).expect("writable");
    std::fs::write(at.join("home.tar.zst"), zstd::encode_all(&tar[..], 1).expect("it is memory"))
        .expect("writable");
    std::fs::write(at.join("home.tar.xz"), b"\xfd7zXZ\0 and so on").expect("writable");
    for source in ["home=home.tar", "home=home.tar.gz", "home=home.tar.zst"] {
        ok(at, &write("b.img", &["--force", "--dataset", source, "--snapshot", "first"]));
        assert!(read(at.join("a.img")) == read(at.join("b.img")), "{source}");
    }
    let cmd =
        Cmd::new(KLDLOAD).arg("pool").args(write("c.img", &["--dataset", "home=-", "--snapshot", "first"]));
    let (code, _, said) = ran(cmd.cwd(at).stdin_file(at.join("home.tar.zst")));
    assert_eq!(code, 0, "{said}");
    assert!(read(at.join("a.img")) == read(at.join("c.img")), "from standard input");
    let (code, _, said) = pool(at, &write("x.img", &["--dataset", "home=home.tar.xz"]));
    assert!(
        code == 1 && said.contains("compressed with xz") && said.contains("`xz -d -k home.tar.xz`"),
        "{said}"
    );

    std::fs::create_dir(at.join("gnu")).expect("writable");
    Cmd::new("tar").args(["-xf", "home.tar", "-C", "gnu", "--sparse"]).cwd(at).run().expect("tar reads it");
    Cmd::new("diff")
        .args(["-r", "--no-dereference", "home", "gnu"])
        .cwd(at)
        .run()
        .expect("they are the same");
    let sparse = at.join("gnu/sparse").metadata().expect("it is there");
    assert!(sparse.len() == 64 << 20 && sparse.blocks() < 2048, "{} sectors", sparse.blocks());

    Cmd::new("mkfifo").arg("pipe").cwd(at).run().expect("coreutils are installed");
    for (args, wanted) in [
        (&["extract", "a.img", "tank/home", "--tar", "pipe"][..], "it is a pipe"),
        (&["send", "a.img", "tank/home@first", "--output", "pipe"], "it is a pipe"),
        (&["extract", "a.img", "tank/home", "--output", "out"], "`out` is not empty"),
        (&["extract", "a.img", "tank/home", "/nope", "--output", "new"], "no `/nope`"),
        (&["extract", "a.img", "tank/nope", "--output", "new"], "no dataset `tank/nope`"),
        (&["extract", "a.img", "tank/home", "--tar", "no/x.tar"], "mkdir -p no"),
    ] {
        let (code, _, said) = pool(at, args);
        assert!(code == 1 && said.contains(wanted), "{args:?}: {said}");
        assert!(!at.join("new").exists());
    }
    assert_eq!(pool(at, &["extract", "a.img", "tank/home"]).0, 2, "to where?");
}

#[test]
fn snapshots_that_differ_and_volumes_by_options_and_by_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = dir.path();
    for (name, text) in [("mon", "one"), ("tue", "two"), ("now", "three")] {
        std::fs::create_dir(at.join(name)).expect("writable");
        std::fs::write(at.join(name).join("f"), text).expect("writable");
    }
    let mut raw = noise(300_000);
    std::fs::write(at.join("web.raw"), &raw).expect("writable");
    let spec = "
name: tank
size: 128M
seed: s
properties: {compression: zstd-3, copies: 2}
datasets:
  - name: home
    content: ../now
    properties: {recordsize: 16k}
    snapshots:
      - {name: monday, content: ../mon}
      - {name: tuesday, content: ../tue}
      - name: last
  - name: vm/web
    content: ../web.raw
    properties: {volsize: 1M, volblocksize: 8k}
";
    std::fs::create_dir(at.join("specs")).expect("writable");
    std::fs::write(at.join("specs/tank.yaml"), spec).expect("writable");
    ok(at, &["write", "--spec", "specs/tank.yaml", "--output", "a.img"]);
    let datasets = [
        "-Ocompression=zstd-3",
        "-Ocopies=2",
        "--dataset",
        "home=now,@monday=mon,@tuesday=tue,@last,recordsize=16k",
        "--dataset",
        "vm/web=web.raw,volsize=1M,volblocksize=8k",
    ];
    let said = ok(at, &write("b.img", &datasets));
    assert!(said.contains("3 datasets") || said.contains("4 datasets"), "{said}");
    assert!(said.contains("x)") && said.contains("/s)"), "ratio and speed are said: {said}");
    assert!(read(at.join("a.img")) == read(at.join("b.img")), "options and file say the same");
    for (state, text) in
        [("home@monday", "one"), ("home@tuesday", "two"), ("home@last", "three"), ("home", "three")]
    {
        assert_eq!(pool(at, &["cat", "a.img", &format!("tank/{state}"), "f"]).1, text.as_bytes(), "{state}");
    }
    assert!(ok(at, &["verify", "a.img"]).contains("nothing is wrong"));
    ok(at, &["extract", "a.img", "tank/vm/web", "--output", "out.raw"]);
    raw.resize(1 << 20, 0);
    assert!(read(at.join("out.raw")) == raw);
    let (code, _, said) = pool(at, &["extract", "a.img", "tank/vm/web", "--tar", "-"]);
    assert!(code == 1 && said.contains("is a volume"), "{said}");
    let (code, _, said) = pool(at, &["extract", "a.img", "tank/vm/web", "--output", "out.raw"]);
    assert!(code == 1 && said.contains("exists already"), "{said}");

    std::fs::write(at.join("bad.yaml"), "name: tank\nsizes: 3\n").expect("writable");
    for (args, wanted) in [
        (&["write", "--spec", "bad.yaml", "--output", "x.img"][..], "sizes"),
        (&["write", "--spec", "nope.yaml", "--output", "x.img"], "cannot read `nope.yaml`"),
        (&["write", "--name", "tank", "--output", "x.img"], "--size 20G"),
        (&write("x.img", &["--dataset", "v=web.raw,volsize=100K,volblocksize=16k"]), "cannot have its sizes"),
        (&write("x.img", &["--dataset", "v=now,volsize=1M"]), "is not a regular file"),
        (&write("x.img", &["--dataset", "v=web.raw,volsize=1M,recordsize=4k"]), "is not one of volumes"),
        (&write("x.img", &["--dataset", "v=now,@a,@a"]), "given twice"),
        (&write("/dev/null", &[]), "neither a file nor a disk"),
    ] {
        let (code, _, said) = pool(at, args);
        assert!(code == 1 && said.contains(wanted), "{args:?}: {said}");
        assert!(!at.join("x.img").exists());
    }
    assert_eq!(pool(at, &["write", "--spec", "specs/tank.yaml", "--name", "x", "--output", "x.img"]).0, 2);
}

#[test]
fn damage_is_healed_and_counted_or_named() {
    let dir = fresh();
    let at = dir.path();
    ok(at, &write("a.img,b.img", &["--vdev", "mirror", "--dataset", "home=home"]));
    let damage = |name: &str, from: usize| {
        let mut bytes = read(at.join(name));
        let wanted = noise(600_000);
        let found = bytes.windows(64).position(|window| *window == wanted[from..from + 64]);
        bytes[found.expect("it is not compressed")] ^= 1;
        std::fs::write(at.join(name), bytes).expect("writable");
    };
    damage("a.img", 300_000);
    let cat = |image: &str| pool(at, &["cat", image, "tank/home", "deep/er/noise"]);
    let (code, content, said) = cat("a.img,b.img");
    assert!(code == 0 && content == noise(600_000), "{said}");
    assert!(said.contains("1 copy of a block is damaged"), "{said}");
    let (code, content, said) = cat("a.img");
    assert!(code == 1 && content == noise(600_000)[..262_144], "all that is before the damage: {said}");
    assert!(said.contains("cannot read bytes 262144 to 393216 of `deep/er/noise`"), "{said}");
    assert!(said.contains("wrong checksum"), "{said}");

    let said = ok(at, &["extract", "a.img,b.img", "tank/home", "--output", "healed"]);
    assert!(said.contains("1 copy of a block is damaged"), "{said}");
    assert!(read(at.join("healed/deep/er/noise")) == noise(600_000));
    let (code, _, said) = pool(at, &["extract", "a.img", "tank/home", "--output", "hurt"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("`/deep/er/noise`: bytes 262144 to 393216 are missing"), "{said}");
    let hurt = read(at.join("hurt/deep/er/noise"));
    assert!(hurt[..262_144] == noise(600_000)[..262_144] && hurt[393_216..] == noise(600_000)[393_216..]);
    assert_eq!(read(at.join("hurt/thesis")), b"chapter one\n");
    let (code, _, said) = pool(at, &["extract", "a.img", "tank/home", "--tar", "hurt.tar"]);
    assert!(code == 1 && said.contains("bytes 262144 to 393216 are missing"), "{said}");
}

/// Runs a script that must not be root's: nobody in particular, who owns nothing.
/// What the crate's README shows, as it stands there; and that it is what a pool of the same content would give.
#[test]
fn streams_of_content_that_is_in_no_pool() {
    let dir = fresh();
    let at = dir.path();
    let copy = |from: &str, to: &str| {
        Cmd::new("cp").args(["-a", from, to]).cwd(at).run().expect("it is copied");
    };
    copy("home", "home.new");
    std::fs::write(at.join("home.new/thesis"), "chapter one\nchapter two\n").expect("writable");
    let readme = read(concat!(env!("CARGO_MANIFEST_DIR"), "/../kld-pool/README.md"));
    let readme = String::from_utf8(readme).expect("it is text");
    let lines: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("kldload pool ")).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in lines {
        let said = ok(at, &line.split(' ').collect::<Vec<_>>());
        assert!(said.contains(".zstream: ") && said.contains(" of tank/home@"), "{said}");
    }
    ok(
        at,
        &[
            "write",
            "--name",
            "tank",
            "--size",
            "128M",
            "--seed",
            "example",
            "--output",
            "tank.img",
            "--dataset",
            "home,@monday=home,@tuesday=home.new",
        ],
    );
    let (code, monday, said) = pool(at, &["send", "tank.img", "tank/home@monday"]);
    assert!(code == 0 && monday == read(at.join("monday.zstream")), "{said}");
    let (code, tuesday, said) = pool(at, &["send", "-i", "@monday", "tank.img", "tank/home@tuesday"]);
    assert!(code == 0 && tuesday == read(at.join("tuesday.zstream")), "{said}");
    assert!(tuesday.len() < monday.len() / 10, "{} of {}", tuesday.len(), monday.len());

    // From a tar, with letters, and from the middle on: it is the same content.
    Cmd::new("tar").args(["-C", "home", "-cf", "home.tar", "."]).cwd(at).run().expect("it is packed");
    let more = ["--seed", "example", "--property", "compression=zstd-3", "-cLe", "tank/home@monday"];
    let whole = |content: &'static str| {
        let (code, stream, said) = pool(at, &[&["send", "--tree", content][..], &more].concat());
        assert_eq!(code, 0, "{said}");
        stream
    };
    let stream = whole("home.tar");
    let (code, rest, said) =
        pool(at, &[&["send", "--offset", "100000", "--tree", "home.tar"][..], &more].concat());
    assert!(code == 0 && rest == stream[100_000..], "{said}");
    let volume =
        ["send", "--tree", "home/sparse", "--property", "volsize=64M", "--output", "v.zstream", "tank/v@a"];
    ok(at, &volume);

    for (words, code, said) in [
        (&["--tree", "home", "tank/home"][..], 1, "`tank/home` is not a snapshot"),
        (&["--tree", "nowhere", "tank/home@a"], 1, "cannot read `nowhere`"),
        (&["--tree", "home", "tank//home@a"], 1, "cannot be the name of a dataset"),
        (&["--tree", "home", "--property", "mountpoint=/", "tank/home@a"], 1, "zfs receive -o mountpoint=/"),
        (&["--tree", "home", "--property", "recordsize=3k", "tank/home@a"], 1, "a power of two"),
        (&["--tree", "home", "--ashift", "8", "tank/home@a"], 1, "it must be from 9 to 16"),
        (&["--tree", "home", "--from-tree", "home", "tank/home@a"], 2, "--seed"),
        (&["--tree", "home", "tank.img", "tank/home@a"], 2, "cannot be used with"),
        (&["tank.img"], 2, "required"),
    ] {
        let (found, out, text) = pool(at, &[&["send"][..], words].concat());
        assert!(found == code && out.is_empty() && text.contains(said), "{words:?}: {found} {text}");
    }
}

fn as_nobody(dir: &Path, script: &str) -> (i32, Vec<u8>, String) {
    let script = format!("exec 2>&1; {script}");
    ran(Cmd::new("unshare").args(["--user", "sh", "-c", &script, "sh", KLDLOAD]).cwd(dir))
}

#[test]
fn without_root_what_only_root_can_do_is_said_once() {
    let dir = fresh();
    let at = dir.path();
    let mut perms = at.metadata().expect("it is there").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut perms, 0o777);
    std::fs::set_permissions(at, perms).expect("it is ours");
    // Owned by nobody here, by whoever runs this test in the pool; with set-id bits that would lend nobody's rights.
    let mut tar = Vec::new();
    for (name, flag, uid) in [("one", b'0', 1234), ("two", b'0', 1234), ("null", b'3', 0)] {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0004755");
        header[108..115].copy_from_slice(format!("{uid:07o}").as_bytes());
        header[116..123].copy_from_slice(b"0000000");
        header[156] = flag;
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[329..336].copy_from_slice(b"0000001");
        header[337..344].copy_from_slice(b"0000003");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar.extend(header);
    }
    tar.resize(tar.len() + 1024, 0);
    std::fs::write(at.join("x.tar"), tar).expect("writable");
    ok(at, &write("a.img", &["--dataset", "x=x.tar"]));
    let (code, said, _) =
        as_nobody(at, "chmod 644 a.img; \"$1\" pool extract a.img tank/x --output out; ls -ln out");
    let said = String::from_utf8_lossy(&said);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("owners were left out: 3 files, the first is `/one`"), "{said}");
    assert!(said.contains("devices were left out: 1 files, the first is `/null`"), "{said}");
    assert!(said.contains("set-user-id") && said.contains("-rwxr-xr-x"), "{said}");

    // A file that may not be read, and an image for which there is no room.
    std::fs::write(at.join("home/secret"), "sesame").expect("writable");
    std::fs::set_permissions(at.join("home/secret"), std::os::unix::fs::PermissionsExt::from_mode(0o000))
        .expect("ours");
    let line = "\"$1\" pool write --name t --size 128M --output x.img --dataset home=home";
    let (code, said, _) = as_nobody(at, line);
    let said = String::from_utf8_lossy(&said);
    assert!(code == 1 && said.contains("home/secret`") && said.contains("ermission denied"), "{said}");
    std::fs::remove_file(at.join("home/secret")).expect("ours");
    let left = std::fs::read_dir(at).expect("readable").map(|entry| entry.expect("readable").file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().contains("x.img")), "nothing is left");
}

#[test]
fn no_room_is_said_and_nothing_is_left() {
    let dir = fresh();
    let at = dir.path();
    std::fs::write(at.join("home/much"), noise(70 << 20)).expect("writable");
    let words = ["write", "--name", "tank", "--size", "64M", "--output", "x.img", "--dataset", "home=home"];
    let (code, _, said) = pool(at, &words);
    assert!(code == 1 && said.contains("does not fit into 67108864 bytes: at least"), "{said}");
    assert!(said.contains("hint: make the pool at least"), "{said}");
    let script = "mkdir full && mount -t tmpfs -o size=8M tmpfs full && cd full && exec 2>&1
        \"$1\" pool write --name t --size 128M --output x.img --dataset home=../home; echo \"code $?\"; ls -A";
    let cmd =
        Cmd::new("unshare").args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", KLDLOAD]);
    let (_, said, _) = ran(cmd.cwd(at));
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("No space left") && said.ends_with("code 1\n"), "nothing is left: {said}");
    let names: Vec<_> =
        std::fs::read_dir(at).expect("readable").map(|entry| entry.expect("readable").file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().contains("x.img")), "{names:?}");
}
