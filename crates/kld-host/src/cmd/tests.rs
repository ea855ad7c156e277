//! Runs what every Debian has: `sh`, `cat`, `sleep`.

use super::*;
use expect_test::expect;

fn sh(script: &str) -> Cmd {
    Cmd::new("sh").args(["-c", script])
}

#[test]
fn displays_what_one_would_type_but_no_secret() {
    let cmd = Cmd::new("wg")
        .args(["set", "wg 0", "it's"])
        .arg("")
        .secret_arg("KEY")
        .secret_env("PASSWORD", "hunter2")
        .env("LANG", "C")
        .stdin_file("/tmp/a b");
    expect!["LANG=C PASSWORD=*** wg set 'wg 0' 'it'\\''s' '' *** < '/tmp/a b'"].assert_eq(&cmd.to_string());
    assert!(!format!("{cmd:?}").contains("hunter2"));
}

#[test]
fn keeps_output_apart_and_stdin_empty() {
    let output = sh("cat; echo out; echo err >&2").output().expect("sh works");
    assert_eq!(output, Output { code: 0, stdout: b"out\n".to_vec(), stderr: "err\n".to_owned() });
}

#[test]
fn gives_stdin_from_bytes_and_files() {
    // More than a pipe holds, through a command that writes while it reads.
    let big = vec![b'x'; 1 << 20];
    assert_eq!(Cmd::new("cat").stdin_bytes(big.clone()).output().expect("cat works").stdout, big);
    // A command that does not read its input does not block.
    Cmd::new("true").stdin_bytes(big).run().expect("true works");
    assert_eq!(sh("head -c 5").stdin_file("/proc/version").stdout_string().expect("cat works"), "Linux");
    let error = Cmd::new("cat").stdin_file("/nowhere").run().expect_err("there is no such file");
    assert_eq!(error.to_string(), "could not open `/nowhere` as input of `cat < /nowhere`");
}

#[test]
fn inherits_only_what_is_listed() {
    let names = sh("env | cut -d= -f1").env("MINE", "1").stdout_string().expect("env works");
    let known = |name: &&str| {
        !INHERITED.contains(name) && !["PATH", "LC_ALL", "MINE", "PWD", "_", "OLDPWD", "SHLVL"].contains(name)
    };
    assert_eq!(names.lines().find(known), None);
    assert!(names.lines().any(|name| name == "MINE"));
}

#[test]
fn a_failure_tells_command_status_and_stderr() {
    let error = sh("echo partial; echo 'no such pool' >&2; exit 3").run().expect_err("exits 3");
    expect![[r#"
        `sh -c 'echo partial; echo '\''no such pool'\'' >&2; exit 3'` failed with exit status: 3
          no such pool"#]]
    .assert_eq(&error.to_string());
    assert_eq!(error.stderr(), Some("no such pool\n"));
    assert_eq!(error.hint(), None);

    let error = sh("seq 30 >&2; false").run();
    let text = error.expect_err("false fails").to_string();
    assert!(text.contains("(10 lines above)\n  11\n") && text.ends_with("\n  30"), "{text}");
}

#[test]
fn accepted_codes_are_answers() {
    assert_eq!(sh("exit 3").accept(3).output().expect("3 is accepted").code, 3);
    assert!(sh("exit 4").accept(3).run().is_err());
    assert!(sh("kill -9 $$").accept(9).run().is_err());
}

#[test]
fn a_missing_program_names_its_package() {
    let error = Cmd::new("/opt/none/mmdebstrap").run().expect_err("there is no such program");
    assert_eq!(error.to_string(), "`/opt/none/mmdebstrap` is not installed");
    assert_eq!(error.hint().as_deref(), Some("`apt install mmdebstrap`"));
    let error = Cmd::new("kldload-no-such-program").spawn().expect_err("there is no such program");
    assert!(matches!(error, ExecError::Missing { package: None, .. }), "{error}");
    // A program that is run by the one that is started, before anything is started.
    let error = Cmd::new("true").needs("qemu-img-of-nobody").run().expect_err("there is no such program");
    assert_eq!(error.to_string(), "`qemu-img-of-nobody` is not installed");
    Cmd::new("true").needs("sh").run().expect("both are there");
    let error = Cmd::new("true").cwd("/nowhere").run().expect_err("there is no such folder");
    assert!(matches!(error, ExecError::Start { .. }), "{error}");
}

#[test]
fn a_deadline_ends_the_whole_family() {
    let cmd = sh("sleep 1000 & echo waiting >&2; sleep 1000").timeout(Duration::from_millis(300));
    let error = cmd.run().expect_err("it sleeps for longer");
    assert!(matches!(&error, ExecError::TimedOut { stderr, .. } if stderr == "waiting\n"), "{error}");
    // A command that ends leaves nobody behind who holds its output open.
    sh("sleep 1000 &").timeout(Duration::from_secs(60)).run().expect("sh ends at once");
}

#[test]
fn streams_lines_of_both() {
    let mut seen = Vec::new();
    let cmd = sh("printf 'one\\ntwo'; printf '10%%\\r20%%\\r\\n' >&2");
    cmd.stream(|line| seen.push(format!("{line:?}"))).expect("printf works");
    seen.sort();
    assert_eq!(seen, [r#"Stderr("10%")"#, r#"Stderr("20%")"#, r#"Stdout("one")"#, r#"Stdout("two")"#]);

    let error =
        sh("yes 'a line of stderr' | head -c 1000000 >&2; exit 1").stream(|_| ()).expect_err("exits 1");
    let kept = error.stderr().expect("it ran").len();
    assert!((STDERR_KEPT..=2 * STDERR_KEPT + 8192).contains(&kept), "{kept}");
}

#[test]
fn hands_out_stdout_while_it_is_written() {
    let read = sh("seq 3; seq 100000").read_stdout(|pipe| {
        let mut first = [0; 6];
        pipe.read_exact(&mut first).map(|()| first)
    });
    assert_eq!(&read.expect("seq works").expect("there are six bytes"), b"1\n2\n3\n");
    assert!(sh("echo half; false").read_stdout(|_| ()).is_err());
}

#[test]
fn a_child_lives_until_it_is_dropped() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    // Started from a thread that ends at once: the child must not end with it.
    let start = || sh("echo started; sleep 1000 & wait").log_file(&log).spawn();
    let mut child =
        std::thread::scope(|scope| scope.spawn(start).join().expect("no panic")).expect("sh works");
    let file = format!("/proc/{}/stat", child.id());
    assert_eq!(child.wait(Duration::from_millis(50)).expect("can be asked"), None);
    assert!(Path::new(&file).exists());
    drop(child);
    assert!(!Path::new(&file).exists());

    let mut child = sh("exit 7").spawn().expect("sh works");
    let status = child.wait(Duration::from_secs(60)).expect("can be asked").expect("it ends");
    assert_eq!(status.code(), Some(7));
    assert_eq!(child.kill().expect("can be asked").code(), Some(7));
}

#[test]
fn an_attached_command_says_whether_it_succeeded() {
    sh("exit 0").run_attached().expect("it succeeds");
    sh("exit 3").accept(3).run_attached().expect("3 is accepted");
    assert!(matches!(sh("exit 3").run_attached(), Err(ExecError::Failed { .. })));
}

#[test]
fn a_command_that_is_apart_gets_no_ctrl_c_of_ours() {
    // The fifth field of proc_pid_stat(5): the process group, which a terminal tells.
    let group = sh("cut -d ' ' -f 5 /proc/$$/stat");
    let of = |cmd: &Cmd| cmd.stdout_string().expect("it answers").trim().parse::<i32>().expect("a number");
    let ours = rustix::process::getpgrp().as_raw_nonzero().get();
    assert_eq!(of(&group), ours);
    assert_ne!(of(&group.clone().apart()), ours);
    assert_ne!(of(&group.timeout(Duration::from_secs(60))), ours);
}

#[test]
fn what_is_not_wanted_any_more_is_killed_with_all_it_started() {
    let stop = AtomicBool::new(false);
    let done = sh("echo out").output_unless(&stop).expect("sh works");
    assert_eq!(done.map(|output| output.stdout), Some(b"out\n".to_vec()));
    assert!(sh("exit 3").output_unless(&stop).is_err());
    let start = Instant::now();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| sh("sleep 60 & sleep 60").output_unless(&stop));
        std::thread::sleep(Duration::from_millis(50));
        stop.store(true, Ordering::SeqCst);
        assert_eq!(run.join().expect("it does not panic").expect("it was ended"), None);
    });
    assert!(start.elapsed() < Duration::from_secs(30));
}
