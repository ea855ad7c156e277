//! What the engine's machine in memory is held to, with the real tools: the same transcripts.

#[path = "../../../kld-engine/tests/support/transcript.rs"]
mod transcript;

use kld_host::Cmd;
use kld_vm::Guest;

use crate::apply::make_package;
use crate::fixture::webapp;
pub(crate) use transcript::PODMAN;
use transcript::{Answer, Do, TOOLS, differences};

fn answer(guest: &Guest, step: &Do) -> Answer {
    let script = match step {
        // As it is printed, which is also how people will repeat it.
        Do::Run(words, stdin) => {
            let command = Cmd::new(&words[0]).args(&words[1..]).to_string();
            if stdin.is_empty() { command } else { format!("{command} <<'END'\n{stdin}END") }
        }
        Do::Put(path, text) => {
            guest.write_file(path, format!("{text}\n").as_bytes(), 0o644).expect("written");
            return Answer::default();
        }
        Do::Remove(path) => format!("rm {path}"),
    };
    let output = guest.run(&script).expect("it answers");
    // The channel trims what is said.
    let mut stdout = output.text();
    if !stdout.is_empty() {
        stdout.push('\n');
    }
    Answer { code: output.status, stdout, stderr: output.error_text() }
}

/// What tools say in a machine that they should not.
pub(crate) fn differences_in(guest: &Guest, text: &str) -> Vec<String> {
    differences(text, |step| answer(guest, step))
}

#[test]
fn real_tools_say_what_those_in_memory_do() {
    let guest = webapp();
    make_package(&guest);
    let wrong = differences_in(&guest, TOOLS);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
