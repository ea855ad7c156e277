//! Every `kldload` command of the README, executed as it is written there.

use std::time::{Duration, Instant};

use kld_host::Cmd;

use crate::fixture::{BOOT, KLDLOAD, fresh};
use crate::turn::Turn;

/// The repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Lines of its code blocks that start with the program's name, without their comments.
fn commands() -> Vec<String> {
    let text = std::fs::read_to_string(format!("{ROOT}/README.md")).expect("the README is there");
    let in_blocks = text.split("```").skip(1).step_by(2).flat_map(str::lines);
    let commands = in_blocks.filter(|line| line.starts_with("kldload "));
    commands.map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned()).collect()
}

#[test]
fn the_readme_says_what_works() {
    let _turn = Turn::take();
    let dir = fresh("readme");
    Cmd::new("cp").arg("-r").arg(format!("{ROOT}/recipes")).arg(&dir).run().expect("copied");
    let commands = commands();
    assert!(commands.len() > 6, "{commands:?}");
    for line in commands {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        let cmd = Cmd::new(KLDLOAD).args(&words).cwd(&dir);
        if words[0] != "run" {
            cmd.run().unwrap_or_else(|error| panic!("`{line}`: {error}"));
            continue;
        }
        // It runs until somebody presses Ctrl-C.
        let log = dir.join("log");
        let mut child = cmd.log_file(&log).spawn().expect("it starts");
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        let deadline = Instant::now() + BOOT;
        while !said().contains("Ctrl-C powers it off") {
            let ended = child.wait(Duration::from_millis(200)).expect("it can be asked");
            assert_eq!(ended, None, "`{line}` ended: {}", said());
            assert!(Instant::now() < deadline, "`{line}`: {}", said());
        }
        Cmd::new("kill").args(["-INT", &child.id().to_string()]).run().expect("it is there");
        let ended = child.wait(BOOT).expect("it can be asked").expect("it ends");
        assert!(ended.success(), "`{line}`: {}", said());
    }
}
