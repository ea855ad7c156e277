//! QEMU's own control protocol: JSON lines on a unix socket (QMP specification 1.1).

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lines::LineSocket;

/// QEMU answers at once or is stuck; saved states are jobs with a deadline of their own.
const DEADLINE: Duration = Duration::from_secs(30);
/// Events that are kept for [`Qmp::wait_event`]; a guest makes a handful per boot.
const EVENTS_KEPT: usize = 1000;

/// A command that QEMU did not do.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket is gone or silent.
    #[error("lost touch with QEMU during `{command}`")]
    Socket {
        /// What was asked.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// QEMU says no.
    #[error("QEMU refused `{command}`: {reason}")]
    Refused {
        /// What was asked.
        command: String,
        /// QEMU's words.
        reason: String,
    },
}

/// A connection to one QEMU.
#[derive(Debug)]
pub struct Qmp {
    socket: LineSocket,
    events: VecDeque<Value>,
    jobs: u64,
}

impl Qmp {
    /// Connects and leaves the negotiation behind.
    ///
    /// # Errors
    /// When nobody listens there, or it is no QEMU.
    pub fn connect(path: &Path) -> Result<Self, QmpError> {
        let error = |source| QmpError::Socket { command: "connect".to_owned(), source };
        let socket = LineSocket::connect(path).map_err(error)?;
        let mut qmp = Self { socket, events: VecDeque::new(), jobs: 0 };
        let greeting = qmp.read("connect", Instant::now() + DEADLINE)?;
        if greeting.is_none_or(|greeting| greeting.get("QMP").is_none()) {
            return Err(error(io::ErrorKind::InvalidData.into()));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Does one command and gives its answer.
    ///
    /// # Errors
    /// When QEMU refuses or is gone.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let request = match arguments.as_object().is_some_and(|arguments| !arguments.is_empty()) {
            true => json!({ "execute": command, "arguments": arguments }),
            false => json!({ "execute": command }),
        };
        let sent = self.socket.send(&format!("{request}\n"));
        sent.map_err(|source| QmpError::Socket { command: command.to_owned(), source })?;
        let deadline = Instant::now() + DEADLINE;
        loop {
            let Some(mut answer) = self.read(command, deadline)? else {
                let source = io::ErrorKind::TimedOut.into();
                return Err(QmpError::Socket { command: command.to_owned(), source });
            };
            if answer.get("event").is_some() {
                self.keep(answer);
            } else if let Some(error) = answer.get("error") {
                let reason = error["desc"].as_str().unwrap_or("it does not say why").to_owned();
                return Err(QmpError::Refused { command: command.to_owned(), reason });
            } else if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
        }
    }

    /// `running`, `paused`, `shutdown`, `internal-error` …
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn status(&mut self) -> Result<String, QmpError> {
        let answer = self.execute("query-status", json!({}))?;
        Ok(answer["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits for an event of this name, `RESET`, `SHUTDOWN`; those that came before count. `None` at the deadline.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn wait_event(&mut self, name: &str, deadline: Instant) -> Result<Option<Value>, QmpError> {
        loop {
            if let Some(index) = self.events.iter().position(|event| event["event"] == name) {
                return Ok(self.events.remove(index));
            }
            match self.read(name, deadline)? {
                Some(event) => self.keep(event),
                None => return Ok(None),
            }
        }
    }

    /// Forgets the events that came so far.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn forget_events(&mut self) -> Result<(), QmpError> {
        // The answer comes after every event before it.
        self.execute("query-name", json!({}))?;
        self.events.clear();
        Ok(())
    }

    /// Does a job (`snapshot-save` …) and waits for its end.
    ///
    /// # Errors
    /// When the job fails, or has not ended at the deadline.
    pub(crate) fn run_job(
        &mut self,
        command: &str,
        mut arguments: Value,
        limit: Duration,
    ) -> Result<(), QmpError> {
        self.jobs += 1;
        let id = format!("job{}", self.jobs);
        arguments["job-id"] = json!(id);
        let deadline = Instant::now() + limit;
        self.execute(command, arguments)?;
        loop {
            let jobs = self.execute("query-jobs", json!({}))?;
            let job = jobs
                .as_array()
                .into_iter()
                .flatten()
                .find(|job| job["id"] == *id)
                .cloned()
                .unwrap_or_default();
            if job["status"] == "concluded" {
                self.execute("job-dismiss", json!({ "id": id }))?;
                let reason = job["error"].as_str().map(str::to_owned);
                return reason
                    .map_or(Ok(()), |reason| Err(QmpError::Refused { command: command.to_owned(), reason }));
            }
            if self.wait_event("JOB_STATUS_CHANGE", deadline)?.is_none() {
                let source = io::ErrorKind::TimedOut.into();
                return Err(QmpError::Socket { command: command.to_owned(), source });
            }
        }
    }

    fn keep(&mut self, event: Value) {
        if self.events.len() >= EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn read(&mut self, command: &str, deadline: Instant) -> Result<Option<Value>, QmpError> {
        let error = |source| QmpError::Socket { command: command.to_owned(), source };
        let Some(line) = self.socket.read(deadline).map_err(error)? else {
            return Ok(None);
        };
        serde_json::from_str(&line).map(Some).map_err(|source| error(source.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;

    /// A QEMU that answers from a script: each request is answered by the next item.
    fn scripted(answers: &[&'static str]) -> (tempfile::TempDir, Qmp) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("qmp.sock");
        let listener = UnixListener::bind(&path).expect("bindable");
        let answers = answers.to_vec();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the client connects");
            let mut requests = BufReader::new(stream.try_clone().expect("clonable")).lines();
            writeln!(stream, r#"{{"QMP": {{"version": {{}}}}}}"#).expect("the client reads");
            for answer in std::iter::once(&r#"{"return": {}}"#).chain(&answers) {
                requests.next();
                // The client may have seen enough.
                let _ = writeln!(stream, "{answer}");
            }
        });
        let qmp = Qmp::connect(&path).expect("the script starts as QEMU does");
        (folder, qmp)
    }

    #[test]
    fn events_that_nobody_has_read_yet_have_come() {
        let events = "{\"return\": {}}\r\n{\"event\": \"RESET\"}\r\n{\"event\": \"RESET\"}";
        // It waits for a request that does not come.
        let (_folder, mut qmp) = scripted(&[events, r#"{"return": {}}"#]);
        qmp.execute("cont", json!({})).expect("answered");
        // The script has written them in one piece with its answer, or will have soon.
        let first = qmp.wait_event("RESET", Instant::now() + DEADLINE).expect("readable");
        assert!(first.is_some());
        let mut more = || qmp.wait_event("RESET", Instant::now()).expect("readable").is_some();
        assert_eq!([more(), more()], [true, false]);
    }

    #[test]
    fn events_wait_while_commands_are_answered() {
        let (_folder, mut qmp) = scripted(&[
            "{\"event\": \"RESET\", \"data\": {\"guest\": true}}\r\n{\"return\": {\"status\": \"running\"}}",
            r#"{"error": {"class": "GenericError", "desc": "no such device"}}"#,
        ]);
        assert_eq!(qmp.status().expect("answered"), "running");
        let error = qmp.execute("snapshot-save", json!({ "tag": "x" })).expect_err("refused");
        assert_eq!(error.to_string(), "QEMU refused `snapshot-save`: no such device");
        let event = qmp.wait_event("RESET", Instant::now()).expect("it came before").expect("it came before");
        assert_eq!(event["data"]["guest"], true);
        assert!(matches!(qmp.status(), Err(QmpError::Socket { .. })), "the script is over");
    }

    #[test]
    fn a_job_ends_with_its_own_error() {
        let (_folder, mut qmp) = scripted(&[
            r#"{"return": {}}"#,
            "{\"return\": [{\"id\": \"job1\", \"status\": \"running\"}]}\n{\"event\": \"JOB_STATUS_CHANGE\"}",
            r#"{"return": [{"id": "job1", "status": "concluded", "error": "disk full"}]}"#,
            r#"{"return": {}}"#,
        ]);
        let error = qmp.run_job("snapshot-save", json!({}), Duration::from_secs(60)).expect_err("it fails");
        assert_eq!(error.to_string(), "QEMU refused `snapshot-save`: disk full");
    }
}
