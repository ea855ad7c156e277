//! Builds that go wrong leave nothing behind, and builds that go right give the same bytes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use kld_build::Cache;
use kld_host::Cmd;
use sha2::{Digest, Sha256};

use crate::fixture::{KLDLOAD, RECIPE, fresh, kldload, webapp_image};
use crate::turn::Turn;

fn digest(path: &Path) -> String {
    let mut hash = Sha256::new();
    let mut file = fs::File::open(path).expect("the image is there");
    let mut buffer = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).expect("readable") {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    format!("{:x?}", hash.finalize())
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("readable")
        .map(|e| e.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn the_same_manifest_gives_the_same_bytes() {
    let _turn = Turn::take();
    let dir = fresh("again");
    let recipe = Path::new(RECIPE).parent().expect("it has a directory");
    // Another directory, another umask, another number of threads, other file times, and later.
    let script = "umask 077; cp -r \"$1\" \"$2/recipe\"; touch -d 2001-01-01 \"$2/recipe/app.py\"; cd \"$2\"; \
                  exec \"$3\" build recipe/appliance.manifest --size 6G --threads 1 --output again.img";
    Cmd::new("sh")
        .args(["-c", script, "sh"])
        .arg(recipe)
        .arg(&dir)
        .arg(KLDLOAD)
        .env("TZ", "Asia/Tokyo")
        .run()
        .expect("it builds");
    assert_eq!(digest(&dir.join("again.img")), digest(webapp_image()));
    let lock = |image: &Path| fs::read(format!("{}.lock", image.display())).expect("the lock file is there");
    assert_eq!(lock(&dir.join("again.img")), lock(webapp_image()));
    assert_eq!(
        names(&dir).into_iter().filter(|name| name != "recipe").collect::<Vec<_>>(),
        ["again.img", "again.img.lock", "again.img.spdx.json"]
    );
}

#[test]
fn a_root_tree_made_again_from_the_lock_file_is_the_same() {
    let _turn = Turn::take();
    let dir = fresh("from-lock");
    let image = webapp_image();
    // Another cache that has only the compiled module: the root tree is installed again.
    let cache = dir.join("cache");
    fs::create_dir_all(&cache).expect("writable");
    Cmd::new("cp").arg("-r").arg(Cache::default_root().join("modules")).arg(&cache).run().expect("copied");
    let again = dir.join("again.img");
    kldload([
        "build",
        RECIPE,
        "--size",
        "6G",
        "--lock",
        &format!("{}.lock", image.display()),
        "--cache",
        &cache.display().to_string(),
        "--output",
        &again.display().to_string(),
    ]);
    assert_eq!(digest(&again), digest(image), "two installations of the same packages");
    // Every package file is kept for the next tree, all but the modules, which were compiled here.
    let lock = fs::read_to_string(format!("{}.lock", again.display())).expect("the lock file is there");
    assert_eq!(names(&cache.join("packages")).len(), lock.matches("[[package]]").count() - 1);
    fs::remove_dir_all(dir).expect("removable");
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    let _turn = Turn::take();
    webapp_image();
    let dir = fresh("full");
    let script = "mount -t tmpfs -o size=64m none \"$1\" && { \"$2\" build \"$3\" --output \"$1/webapp.img\"; status=$?; ls -A \"$1\" >&2; exit $status; }";
    let output = Cmd::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(&dir)
        .arg(KLDLOAD)
        .arg(RECIPE)
        .accept(1)
        .output()
        .expect("user namespaces work");
    let said = &output.stderr;
    assert_eq!(output.code, 1, "{said}");
    assert!(said.contains("No space left") && said.contains("hint: make room"), "{said}");
    assert!(!said.contains("webapp.img\n") && !said.contains(".partial"), "nothing may be left: {said}");
}

#[test]
fn a_killed_build_leaves_no_image_and_can_be_run_again() {
    let _turn = Turn::take();
    webapp_image();
    let dir = fresh("killed");
    let output = dir.join("webapp.img");
    let cmd = || Cmd::new(KLDLOAD).args(["build", RECIPE, "--size", "6G", "--output"]).arg(&output);
    let mut child = cmd().log_file(dir.join("log")).spawn().expect("it starts");
    // Kill it while it writes: as soon as the partial file has content.
    let partial_has_content = || {
        names(&dir).iter().any(|name| {
            name.contains(".partial-") && fs::metadata(dir.join(name)).is_ok_and(|meta| meta.blocks() > 1000)
        })
    };
    while !partial_has_content() {
        assert_eq!(
            child.wait(Duration::from_millis(1)).expect("it can be asked"),
            None,
            "it must be killed before it ends"
        );
    }
    child.kill().expect("it can be killed");
    assert!(!output.exists());
    cmd().run().expect("the second run succeeds");
    assert_eq!(digest(&output), digest(webapp_image()));
    assert!(names(&dir).iter().all(|name| !name.contains(".partial")), "{:?}", names(&dir));
}

#[test]
fn no_network_says_what_was_being_fetched() {
    let _turn = Turn::take();
    let dir = fresh("offline");
    let output = Cmd::new(KLDLOAD)
        .args([
            "build",
            "--distro",
            "debian",
            "--profile",
            "core",
            "--mirror",
            "http://127.0.0.1:9/debian",
            "--cache",
        ])
        .arg(dir.join("cache"))
        .arg("--output")
        .arg(dir.join("x.img"))
        .accept(1)
        .output()
        .expect("it starts");
    let said = &output.stderr;
    assert_eq!(output.code, 1, "{said}");
    assert!(said.contains("127.0.0.1:9") && said.contains("hint: check the network"), "{said}");
    assert_eq!(names(&dir), ["cache"]);
}

#[test]
fn an_unsigned_archive_is_refused() {
    let _turn = Turn::take();
    let dir = fresh("unsigned");
    let packages = dir.join("archive/dists/trixie/main/binary-amd64");
    fs::create_dir_all(&packages).expect("writable");
    fs::write(packages.join("Packages"), "").expect("writable");
    fs::write(
        dir.join("archive/dists/trixie/Release"),
        "Suite: trixie\nCodename: trixie\nArchitectures: amd64\nComponents: main contrib\n",
    )
    .expect("writable");
    let output = Cmd::new(KLDLOAD)
        .args(["build", "--distro", "debian", "--profile", "core", "--mirror"])
        .arg(format!("deb file://{} trixie main", dir.join("archive").display()))
        .arg("--cache")
        .arg(dir.join("cache"))
        .arg("--output")
        .arg(dir.join("x.img"))
        .accept(1)
        .output()
        .expect("it starts");
    let said = &output.stderr;
    assert_eq!(output.code, 1, "{said}");
    assert!(said.contains("hint: the archive is not signed"), "{said}");
    assert!(!dir.join("x.img").exists());
}

#[test]
fn a_missing_program_is_named_with_its_package() {
    let _turn = Turn::take();
    let dir = fresh("bare");
    let empty = dir.join("empty");
    fs::create_dir(&empty).expect("writable");
    // Every program of the machine disappears; kldload needs none to start.
    let script = "mount --bind \"$1\" /usr/bin && exec \"$2\" build --distro debian --profile core --cache \"$3\" --output \"$4\"";
    let output = Cmd::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .args([&empty, Path::new(KLDLOAD), &dir.join("cache"), &dir.join("x.img")])
        .accept(1)
        .output()
        .expect("user namespaces work");
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert!(output.stderr.contains("hint: `apt install mmdebstrap`"), "{}", output.stderr);
    assert!(!dir.join("x.img").exists());
}
