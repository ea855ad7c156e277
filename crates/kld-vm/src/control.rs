//! The control channel: running scripts in a guest whose image holds nothing for it.
//!
//! systemd in the guest (256 and later) takes units from system credentials (`systemd.system-credentials(7)`,
//! `systemd.extra-unit.*`, `systemd.unit-dropin.*`), and the firmware's tables carry credentials. So the host
//! injects a service that opens a virtio-serial port and runs what comes through it, as root. It depends on no
//! other unit, so it also answers in a boot that is stuck. Needs `bash` and coreutils in the guest. The
//! port exists only where the host made one: an image that runs elsewhere has no such service.
//!
//! A request and a reply are one line each, with a nonce. A host that comes back after it was killed finds the
//! reply to the request of its former life, sees the foreign nonce and skips it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Credential;
use crate::lines::LineSocket;

/// The name of the virtio-serial port.
pub const PORT: &str = "kldload.control";

/// How long a guest may take, beyond the script's own time, to kill the script and to send what it has written.
const SLACK: Duration = Duration::from_secs(60);

/// How often a guest that is silent is asked whether it is there.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// The guest's end, for guests whose systemd takes no units from credentials: bash runs it as root.
pub const SCRIPT: &str = include_str!("control.bash");

const UNIT: &str = "[Unit]
Description=kldload control channel
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
IgnoreOnIsolate=yes

[Service]
ImportCredential=kldload.control-script
ExecStart=/bin/bash ${CREDENTIALS_DIRECTORY}/kldload.control-script
Restart=always
RestartSec=1
Environment=LC_ALL=C.UTF-8 HOME=/root
";

/// Starts it with the first units, right after the root file system, and lets none of them wait for it.
const DROP_IN: &str = "[Unit]\nWants=kldload-control.service\n";

/// What the guest's systemd must be given.
pub fn credentials() -> Vec<Credential> {
    vec![
        Credential::new("kldload.control-script", SCRIPT),
        Credential::new("systemd.extra-unit.kldload-control.service", UNIT),
        Credential::new("systemd.unit-dropin.sysinit.target~kldload-control", DROP_IN),
    ]
}

/// What a script in the guest has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit status; 124 when it was ended for taking too long, 128 + n when a signal ended it.
    pub status: i32,
    /// Its stdout.
    pub stdout: Vec<u8>,
    /// Its stderr.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether it said 0.
    pub fn is_ok(&self) -> bool {
        self.status == 0
    }

    /// Its stdout as text, without spaces and newlines around it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.stdout.trim_ascii()).into_owned()
    }

    /// Its stderr as text, without spaces and newlines around it.
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(self.stderr.trim_ascii()).into_owned()
    }
}

/// The host's end of the channel.
#[derive(Debug)]
pub(crate) struct Control {
    socket: LineSocket,
    life: u64,
    count: u64,
    /// When the guest was last asked whether it is there, and the nonces of all times since it last answered.
    asked: Option<(Instant, Vec<String>)>,
}

impl Control {
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        // Random, and only to tell this connection's requests from those of others.
        let life = RandomState::new().build_hasher().finish();
        Ok(Self { socket: LineSocket::connect(path)?, life, count: 0, asked: None })
    }

    /// Sends a script that may run for `limit`; its nonce is for [`Control::wait`].
    pub(crate) fn send(&mut self, script: &str, limit: Duration) -> io::Result<String> {
        self.count += 1;
        let nonce = format!("{:016x}.{}", self.life, self.count);
        self.socket.send(&render_request(&nonce, limit, script))?;
        Ok(nonce)
    }

    /// Whether the guest listens; `false` at the deadline, and then one may ask again. Firmware that knows the port
    /// (OVMF since 2024) swallows what is sent before the guest's system has it, so the question is repeated.
    pub(crate) fn is_there(&mut self, deadline: Instant) -> io::Result<bool> {
        let (at, mut nonces) = self.asked.take().unwrap_or((Instant::now(), Vec::new()));
        let due = nonces.is_empty() || at.elapsed() >= ASK_AGAIN;
        let at = if due { Instant::now() } else { at };
        if due {
            nonces.push(self.send("true", ASK_AGAIN)?);
        }
        let answered = self.wait_for(|nonce| nonces.iter().any(|asked| asked == nonce), deadline)?.is_some();
        self.asked = (!answered).then_some((at, nonces));
        Ok(answered)
    }

    /// Waits for the reply to this nonce; `None` at the deadline, and then one may wait again.
    pub(crate) fn wait(&mut self, nonce: &str, deadline: Instant) -> io::Result<Option<Output>> {
        self.wait_for(|of| of == nonce, deadline)
    }

    fn wait_for(&mut self, is: impl Fn(&str) -> bool, deadline: Instant) -> io::Result<Option<Output>> {
        while let Some(line) = self.socket.read(deadline)? {
            if let Some((_, output)) = parse_reply(&line).filter(|(nonce, _)| is(nonce)) {
                return Ok(Some(output));
            }
        }
        Ok(None)
    }

    /// Runs a script; `None` when the guest is silent for longer than the script may take.
    pub(crate) fn run(&mut self, script: &str, limit: Duration) -> io::Result<Option<Output>> {
        let nonce = self.send(script, limit)?;
        self.wait(&nonce, Instant::now() + limit + SLACK)
    }
}

/// The newline before it ends what a killed host has left unfinished.
fn render_request(nonce: &str, limit: Duration, script: &str) -> String {
    // The shell that reads it knows no empty words: a script without a line has one.
    let body = STANDARD.encode(if script.is_empty() { "\n" } else { script });
    format!("\nrun {nonce} {} {body} end\n", limit.as_secs().max(1))
}

/// Nonce and output, or nothing when the line is no whole reply.
fn parse_reply(line: &str) -> Option<(String, Output)> {
    let words: Vec<&str> = line.split(' ').collect();
    let ["done", nonce, status, stdout, stderr, "end"] = words[..] else {
        return None;
    };
    let bytes = |word: &str| STANDARD.decode(word.strip_prefix('=')?).ok();
    let output = Output { status: status.parse().ok()?, stdout: bytes(stdout)?, stderr: bytes(stderr)? };
    Some((nonce.to_owned(), output))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use kld_host::Cmd;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_request_is_one_line_that_shows_its_end() {
        expect![[r#"

            run 1.1 90 ZWNobyAnYSxiJwo= end
        "#]]
        .assert_eq(&render_request("1.1", Duration::from_secs(90), "echo 'a,b'\n"));
    }

    #[test]
    fn only_whole_replies_count() {
        let (nonce, output) = parse_reply("done n.1 7 =b3V0Cg== = end").expect("is whole");
        assert_eq!((nonce.as_str(), output.status, output.text().as_str()), ("n.1", 7, "out"));
        assert_eq!(output.stderr, b"");
        for line in [
            "",
            "done",
            "done n.1 0 =b3V0",
            "done n.1 0 =b3V0Cg== =",
            "done n.1 x = = end",
            "done n.1 0 =! = end",
        ] {
            assert_eq!(parse_reply(line), None, "{line}");
        }
    }

    #[test]
    fn replies_to_a_former_life_are_skipped() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("control.sock");
        let listener = UnixListener::bind(&path).expect("bindable");
        let guest = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the host connects");
            let mut lines = BufReader::new(stream.try_clone().expect("clonable")).lines();
            let request = lines.find(|line| line.as_ref().is_ok_and(|line| !line.is_empty()));
            let request = request.expect("a request comes").expect("a request comes");
            let nonce = request.split(' ').nth(1).expect("it has a nonce");
            write!(stream, "f end\ndone 0.1 1 =b2xk = end\ndone {nonce} 0 =bmV3 = end\n")
                .expect("the host reads");
        });
        let mut control = Control::connect(&path).expect("it listens");
        let output = control.run("true", Duration::from_secs(60)).expect("connected").expect("answered");
        assert_eq!(output.text(), "new");
        guest.join().expect("no panic");
    }

    #[test]
    fn a_guest_whose_firmware_swallowed_the_question_is_asked_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("control.sock");
        let listener = UnixListener::bind(&path).expect("bindable");
        let guest = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the host connects");
            let lines = BufReader::new(stream.try_clone().expect("clonable")).lines();
            let mut requests = lines.map_while(Result::ok).filter(|line| !line.is_empty());
            let _swallowed = requests.next();
            let request = requests.next().expect("it comes again");
            let nonce = request.split(' ').nth(1).expect("it has a nonce");
            writeln!(stream, "done {nonce} 0 = = end").expect("the host reads");
        });
        let mut control = Control::connect(&path).expect("it listens");
        assert!(!control.is_there(Instant::now() + Duration::from_millis(10)).expect("connected"));
        let deadline = Instant::now() + Duration::from_secs(60);
        let soon = || Instant::now() + Duration::from_millis(100);
        while !control.is_there(soon()).expect("connected") {
            assert!(Instant::now() < deadline, "never asked again");
        }
        guest.join().expect("no panic");
    }

    /// The guest's half is a shell script: run it here, with a pair of pipes for the port.
    #[test]
    fn the_guests_half_runs_scripts_and_skips_rubbish() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let work = folder.path().display().to_string();
        let requests = [
            "rubbish".to_owned(),
            "run cut.1 5 dG91Y2ggL3RtcC9uZXZlcg==".to_owned(),
            render_request("a.1", Duration::from_secs(60), "echo out; echo err >&2; exit 7"),
            render_request("a.2", Duration::from_secs(1), "sleep 600"),
            render_request("a.3", Duration::from_secs(60), "cat; pwd"),
            render_request("a.4", Duration::from_secs(60), ""),
        ];
        std::fs::write(folder.path().join("in"), requests.join("\n")).expect("writable");
        let script = SCRIPT
            .replace("/run/kldload-control", &format!("{work}/work"))
            .replace("modprobe -q virtio_console; until find_port; do sleep 0.1; done", "")
            .replace("exec 3<>\"$port\"", &format!("exec 3<{work}/in"))
            .replace(">&3", &format!(">>{work}/out"))
            .replace("sleep 0.2", "exit");
        std::fs::write(folder.path().join("script"), script).expect("writable");
        Cmd::new("bash").arg(folder.path().join("script")).run().expect("bash works");
        let out = std::fs::read_to_string(folder.path().join("out")).expect("it has answered");
        expect![[r#"
            done a.1 7 =b3V0Cg== =ZXJyCg== end
            done a.2 124 = = end
            done a.3 0 =Lwo= = end
            done a.4 0 = = end
        "#]]
        .assert_eq(&out);
    }
}
