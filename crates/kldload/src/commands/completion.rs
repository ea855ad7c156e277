//! `kldload completion`.

use clap::CommandFactory as _;
use clap_complete::{Generator, Shell, generate};
use kld_ui::{ExitStatus, Hinted, Printer};

use crate::names::{command_of, short_names};

/// Print what a shell needs to complete the commands and their options
///
/// Under all names of the program at once: kldload, kst, ksnap, kbe, kdf, kdir.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload completion bash > /etc/bash_completion.d/kldload\n  kldload completion zsh > /usr/local/share/zsh/site-functions/_kldload\n  kldload completion fish > ~/.config/fish/completions/kldload.fish\n  eval \"$(kldload completion bash)\""
)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// Prints it.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    if !matches!(args.shell, Shell::Bash | Shell::Zsh | Shell::Fish) {
        let hint = "bash, zsh and fish are";
        return Err(Hinted::new(format!("`{}` is not a shell that is known here", args.shell), hint).into());
    }
    printer.data(&text(args.shell))?;
    Ok(ExitStatus::Done)
}

fn text(shell: Shell) -> String {
    let mut parts = vec![part(shell, crate::Args::command())];
    parts.extend(short_names().map(|name| part(shell, command_of(name))));
    match shell {
        // One file for all names: zsh runs the part of the name that is completed.
        Shell::Zsh => {
            let names: Vec<&str> = std::iter::once("kldload").chain(short_names()).collect();
            let mut text = format!("#compdef {}\n", names.join(" "));
            let mut choose = String::new();
            for (name, part) in names.iter().zip(&parts) {
                // What a part of its own would end with: its name, and calling or registering itself.
                let end = part.find("\nif [ \"$funcstack[1]\"").unwrap_or(part.len());
                text += part[..end].strip_prefix(&format!("#compdef {name}\n")).unwrap_or(&part[..end]);
                text += "\n";
                choose += &format!("    {name}) _{name} \"$@\" ;;\n");
            }
            text + &format!(
                "\n_kldload_names() {{\n  case \"$service\" in\n{choose}  esac\n}}\n\nif [ \"$funcstack[1]\" = \"_kldload\" ]; then\n    _kldload_names \"$@\"\nelse\n    compdef _kldload_names {}\nfi\n",
                names.join(" ")
            )
        }
        _ => parts.join("\n"),
    }
}

fn part(shell: impl Generator, mut command: clap::Command) -> String {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    generate(shell, &mut command, name, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
