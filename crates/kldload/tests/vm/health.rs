//! `kst` on a machine that is well and on one that is not, as its page shows it.

use crate::daily::{ok, run};
use crate::fixture::webapp;
use crate::transcript::{commands, misfit};

#[test]
fn kst_says_what_is_wrong_and_which_command_shows_it() {
    let guest = webapp();
    // Otherwise it depends on the time of day whether the first round is over.
    ok(&guest, "systemctl stop sanoid.timer; systemctl start sanoid.service");
    let (mut wrong, mut is_bad) = (Vec::new(), false);
    for (command, shown) in commands(include_str!("../../../../docs/health.md")) {
        if command == "kst" {
            is_bad = shown.iter().any(|line| line.contains(" fail ") || line.contains(" warn "));
        }
        let looks = command.starts_with("kst") && !command.contains("--prometheus");
        // Emulated, a probe takes longer than anybody would wait for it.
        let line = if looks { &format!("{command} --timeout 60") } else { &command };
        let (status, said, error) = run(&guest, line);
        wrong.extend(misfit(&command, &shown, &said));
        if status != i32::from(is_bad && looks) {
            wrong.push(format!("$ {command}\nends with {status}: {said}{error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Again and again, until it is told to end.
    let (status, said, error) = run(&guest, "timeout --signal=INT 90 kst --watch 1s --timeout 60");
    assert!(status == 124 && said.matches("PROBE").count() > 1, "{status} {said}{error}");
}
