//! What tools say, as transcripts that hold for a machine in memory and for a real one: see `tools.txt`.

/// What every machine's tools say.
pub(crate) const TOOLS: &str = include_str!("tools.txt");
/// What podman says, on a machine that has it.
pub(crate) const PODMAN: &str = include_str!("podman.txt");

/// What is done in a transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Do {
    /// Run this, with these lines on its stdin.
    Run(Vec<String>, String),
    /// Put a file there.
    Put(String, String),
    /// Remove a file.
    Remove(String),
}

/// What a tool has answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What it is to answer. `None`, or nothing: it does not matter.
#[derive(Debug, Default)]
struct Expected {
    code: i32,
    stdout: Option<String>,
    begins: Vec<String>,
    stderr: Vec<String>,
}

/// Runs transcripts in order on one machine, and gives back what was not as expected.
pub(crate) fn differences(text: &str, mut machine: impl FnMut(&Do) -> Answer) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut title, mut now): (&str, Option<(Do, Expected)>) = ("", None);
    let mut done = |title: &str, step: Option<(Do, Expected)>| {
        let Some((step, expected)) = step else { return };
        let answer = machine(&step);
        let is_said = |begin: &String| answer.stdout.lines().any(|line| line.starts_with(begin.as_str()));
        let good = answer.code == expected.code
            && expected.stdout.as_ref().is_none_or(|text| *text == answer.stdout)
            && expected.begins.iter().all(is_said)
            && expected.stderr.iter().all(|text| answer.stderr.contains(text));
        if !good {
            wrong.push(format!("{title}\n  {step:?}\n  expected {expected:?}\n  got {answer:?}"));
        }
    };
    for line in text.lines() {
        let (sign, rest) = line.split_at(line.len().min(2));
        let rest = &rest.replace("\\t", "\t").replace("\\n", "\n");
        let expected = now.as_mut().map(|(_, expected)| expected);
        match (sign.trim_end(), expected) {
            ("#", _) => {
                done(title, now.take());
                title = line;
            }
            ("$", _) => {
                let run = Do::Run(words(rest), String::new());
                done(title, now.replace((run, Expected::default())));
            }
            ("<", _) => match &mut now {
                Some((Do::Run(_, stdin), _)) => *stdin += &format!("{rest}\n"),
                _ => panic!("`{line}` comes after no command"),
            },
            ("+", _) => {
                let (path, text) = rest.split_once(' ').expect("a path and a text");
                let put = Do::Put(path.to_owned(), text.to_owned());
                done(title, now.replace((put, Expected::default())));
            }
            ("-", _) => done(title, now.replace((Do::Remove(rest.clone()), Expected::default()))),
            ("?", Some(expected)) => expected.code = rest.parse().expect("a number"),
            (">", Some(expected)) => {
                *expected.stdout.get_or_insert_default() += &format!("{rest}\n");
            }
            ("~", Some(expected)) => expected.begins.push(rest.clone()),
            ("!", Some(expected)) => expected.stderr.push(rest.clone()),
            ("", _) => {}
            _ => panic!("`{line}` is no line of a transcript"),
        }
    }
    done(title, now);
    wrong
}

/// Words, which may stand in single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            _ => words.last_mut().expect("there is one").push(letter),
        }
    }
    words
}
