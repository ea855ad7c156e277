//! `kldload completion`.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::env::{EnvCompleter, Shells};
use kld_ui::{ExitStatus, Printer};

use crate::names::{command_of, short_names};

/// Set by what [`run`] prints to the name of the shell that wants to know how a line goes on; the line stands behind `--`.
const VARIABLE: &str = "KLDLOAD_COMPLETE";

/// Print what a shell needs to complete commands, options, and names of datasets, snapshots and boot environments
///
/// Under all names of the program at once: kldload, kst, ksnap, kbe, kdf, kdir, kpkg, kupgrade. It asks `kldload`, which it finds
/// on PATH.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload completion bash > /etc/bash_completion.d/kldload\n  kldload completion zsh > /usr/local/share/zsh/site-functions/_kldload\n  kldload completion fish > ~/.config/fish/completions/kldload.fish\n  eval \"$(kldload completion bash)\""
)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
        }
    }
}

/// Prints it.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let shell = args.shell.name();
    let registered = |name: &str| -> io::Result<String> {
        let mut text = Vec::new();
        completer(OsStr::new(shell))?.write_registration(VARIABLE, name, name, "kldload", &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let names: Vec<&str> = std::iter::once("kldload").chain(short_names()).collect();
    let text = match args.shell {
        // One file for all names, whose function has the name of the file: it is called when zsh has read it.
        Shell::Zsh => {
            let one = registered("kldload")?;
            let names = names.join(" ");
            let body = one.trim_start_matches("#compdef kldload\n").trim_end();
            let body = body.strip_suffix("compdef _clap_dynamic_completer_kldload kldload").unwrap_or(body);
            format!(
                "#compdef {names}\n{body}compdef _clap_dynamic_completer_kldload {names}\n\
                 [[ \"$funcstack[1]\" != _kldload ]] || _clap_dynamic_completer_kldload \"$@\"\n"
            )
        }
        _ => names.into_iter().map(registered).collect::<io::Result<Vec<_>>>()?.concat(),
    };
    printer.data(&text)?;
    Ok(ExitStatus::Done)
}

fn completer(shell: &OsStr) -> io::Result<&'static dyn EnvCompleter> {
    const KNOWN: &Shells<'static> = &Shells::builtins();
    KNOWN.completer(&shell.to_string_lossy()).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Answers a shell that wants to know how a line goes on; `false` when none does.
///
/// # Errors
/// When the shell is unknown or does not listen.
pub(crate) fn answer() -> io::Result<bool> {
    let Some(shell) = std::env::var_os(VARIABLE) else { return Ok(false) };
    let mut command = called(&line());
    command.build();
    let mut text = Vec::new();
    let here = std::env::current_dir().ok();
    completer(&shell)?.write_complete(&mut command, line(), here.as_deref(), &mut text)?;
    io::stdout().write_all(&text)?;
    Ok(true)
}

/// The command that a line calls.
fn called(line: &[OsString]) -> clap::Command {
    let name = line.first().and_then(|word| Path::new(word).file_name());
    match short_names().find(|short| name.is_some_and(|name| name == *short)) {
        Some(name) => command_of(name),
        None => crate::Args::command(),
    }
}

/// What is on the line that is typed.
fn line() -> Vec<OsString> {
    std::env::args_os().skip_while(|word| word != "--").skip(1).collect()
}

/// The last word on that line, before the one that is typed, that is no option.
pub(crate) fn word_before() -> Option<String> {
    let line = line();
    let index = std::env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|index| index.parse().ok());
    // fish sends what is before the cursor.
    let before = line.get(1..index.unwrap_or(line.len().saturating_sub(1)))?.iter();
    before.filter_map(|word| word.to_str()).rfind(|word| !word.starts_with('-')).map(str::to_owned)
}
