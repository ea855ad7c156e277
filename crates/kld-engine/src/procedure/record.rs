//! What happened, on disk.

use serde::{Deserialize, Serialize};

use super::run::End;
use super::snapshots::Newest;
use super::{Procedure, Report};
use crate::history::{MEMORY, SECRET_DIRECTORY, SECRET_FILE, own};
use crate::host::{Host, HostError, Node};
use crate::journal::{from_lines, to_line};

/// How a procedure has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcedureEnd {
    /// Every step is done.
    Done,
    /// A step has failed.
    Failed,
    /// A step needs a person, and nobody was there.
    Stopped,
    /// A kill or a power cut; or it is still under way.
    Interrupted,
}

/// One line of a journal. Times are milliseconds since 1970, steps count from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Event {
    Started {
        at: u64,
        by: String,
        procedure: Procedure,
        from: usize,
        /// The one that it goes on with.
        continues: Option<u32>,
        /// When that one began.
        since: u64,
        newest: Vec<Newest>,
    },
    Begun {
        at: u64,
        step: usize,
    },
    Ended {
        at: u64,
        step: usize,
        end: End,
    },
    Finished {
        at: u64,
        end: ProcedureEnd,
        newest: Vec<Newest>,
    },
}

/// More of a step's output is not kept.
const MAX_OUTPUT: usize = 1 << 20;
/// This much of it stands in the report.
const MAX_SHOWN: usize = 16 << 10;

/// The directory of one procedure.
pub(super) struct Record<'a> {
    pub(super) host: &'a dyn Host,
    pub(super) number: u32,
}

/// Their numbers, in order.
pub(super) fn numbers(host: &dyn Host) -> Result<Vec<u32>, HostError> {
    let names = host.list(&format!("{MEMORY}/procedures"))?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

impl<'a> Record<'a> {
    /// Makes the directory of the next one.
    pub(super) fn begin(host: &'a dyn Host) -> Result<Self, HostError> {
        let number = numbers(host)?.last().map_or(1, |last| last + 1);
        let record = Self { host, number };
        for directory in [format!("{MEMORY}/procedures"), record.path(""), record.path("output")] {
            host.put(&directory, &own(Node::Directory, SECRET_DIRECTORY))?;
        }
        Ok(record)
    }

    fn path(&self, name: &str) -> String {
        let directory = format!("{MEMORY}/procedures/{:06}", self.number);
        if name.is_empty() { directory } else { format!("{directory}/{name}") }
    }

    /// Adds an event; it is on disk when this returns.
    pub(super) fn write(&self, event: &Event) -> Result<(), HostError> {
        self.host.append(&self.path("journal"), to_line(event).as_bytes())
    }

    pub(super) fn events(&self) -> Result<Vec<Event>, HostError> {
        Ok(from_lines(&self.host.read(&self.path("journal"))?.unwrap_or_default()))
    }

    /// Keeps what a step has written.
    pub(super) fn keep(&self, step: usize, output: &str) -> Result<(), HostError> {
        if output.is_empty() {
            return Ok(());
        }
        self.host.append(&self.path(&format!("output/{}", step + 1)), output.as_bytes())
    }

    /// The report of what has happened so far; `None` when it never began.
    pub(super) fn report(&self) -> Result<Option<Report>, HostError> {
        let events = self.events()?;
        let mut outputs = Vec::new();
        if let Some(Event::Started { procedure, .. }) = events.first() {
            for step in 1..=procedure.steps.len() {
                let text = self.host.read(&self.path(&format!("output/{step}")))?.unwrap_or_default();
                outputs.push(end_of(&text, MAX_SHOWN));
            }
        }
        Ok(Report::of(self.number, &events, outputs))
    }

    /// Writes the report, for machines and for people.
    pub(super) fn tell(&self, report: &Report, page: String) -> Result<(), HostError> {
        let json = serde_json::to_string_pretty(report).expect("reports are plain data") + "\n";
        self.host.put(&self.path("report.json"), &own(Node::File(json.into_bytes()), SECRET_FILE))?;
        self.host.put(&self.path("report.txt"), &own(Node::File(page.into_bytes()), SECRET_FILE))
    }
}

/// The last lines that fit.
fn end_of(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let start = (text.len() - limit..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let cut = &text[start..];
    format!("…\n{}", cut.split_once('\n').map_or(cut, |(_, rest)| rest))
}

/// What a step writes, on its way to the disk: a write for each line would wait for the disk each time.
pub(super) struct Output {
    buffer: String,
    kept: usize,
    flushed_at: u64,
}

impl Output {
    pub(super) fn new(now: u64) -> Self {
        Self { buffer: String::new(), kept: 0, flushed_at: now }
    }

    /// Takes a line; what is to be written now, once a second.
    pub(super) fn line(&mut self, line: &str, now: u64) -> Option<String> {
        if self.kept < MAX_OUTPUT {
            self.kept += line.len() + 1;
            self.buffer.push_str(line);
            self.buffer.push('\n');
            if self.kept >= MAX_OUTPUT {
                self.buffer.push_str("… more is not kept\n");
            }
        }
        if now < self.flushed_at + 1000 {
            return None;
        }
        self.flushed_at = now;
        Some(std::mem::take(&mut self.buffer))
    }

    /// What is left.
    pub(super) fn rest(&mut self) -> String {
        std::mem::take(&mut self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_output_begins_with_a_whole_line() {
        assert_eq!(end_of("one\ntwo\n", 100), "one\ntwo\n");
        assert_eq!(end_of("one\ntwo\nthree\n", 8), "…\nthree\n");
        assert_eq!(end_of("ääää", 3), "…\nä");
    }

    #[test]
    fn output_is_written_once_a_second_and_not_without_end() {
        let mut output = Output::new(0);
        assert_eq!(output.line("a", 10), None);
        assert_eq!(output.line("b", 1000).as_deref(), Some("a\nb\n"));
        assert_eq!(output.line("c", 1500), None);
        assert_eq!(output.rest(), "c\n");
        let long = "x".repeat(MAX_OUTPUT);
        assert!(output.line(&long, 9000).is_some_and(|text| text.ends_with("… more is not kept\n")));
        assert_eq!(output.line("d", 20_000).as_deref(), Some(""));
    }
}
