//! `kldload completion`.

use clap::CommandFactory as _;
use clap_complete::{Generator, Shell, generate};
use kld_ui::{ExitStatus, Hinted, Printer};

use crate::names::{command_of, short_names};

/// Print what a shell needs to complete the commands and their options
///
/// Under all names of the program at once: kldload, kst, ksnap, kbe, kdf, kdir, kpkg, kupgrade.
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
    let all = std::iter::once(crate::Args::command()).chain(short_names().map(command_of));
    let parts: Vec<String> = match shell {
        Shell::Zsh => all.map(verbs_first).map(|command| part(shell, command)).collect(),
        _ => all.map(|command| part(shell, command)).collect(),
    };
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
                let itself = if *name == "kldload" { "_itself" } else { "" };
                choose += &format!("    {name}) _{name}{itself} \"$@\" ;;\n");
            }
            // The file is `_kldload` for zsh, which calls the function of that name from the second time on.
            text + &format!(
                "\nfunctions[_kldload_itself]=$functions[_kldload]\n\n_kldload() {{\n  case \"$service\" in\n{choose}  esac\n}}\n\n\
                 if [ \"$funcstack[1]\" = \"_kldload\" ]; then\n    _kldload \"$@\"\nelse\n    compdef _kldload {}\nfi\n",
                names.join(" ")
            )
        }
        _ => parts.join("\n"),
    }
}

/// The same without arguments of its own beside verbs, below which zsh would never find the verb.
fn verbs_first(command: clap::Command) -> clap::Command {
    if !command.has_subcommands() {
        return command;
    }
    let verbs: Vec<clap::Command> = command.get_subcommands().cloned().map(verbs_first).collect();
    let options = command.get_arguments().filter(|arg| !arg.is_positional()).cloned();
    let about = command.get_about().cloned().unwrap_or_default();
    // Names of commands live as long as the program does.
    let name: &str = command.get_name().to_owned().leak();
    let bare = clap::Command::new(name).about(about);
    bare.args(options.collect::<Vec<_>>()).subcommands(verbs)
}

fn part(shell: impl Generator, mut command: clap::Command) -> String {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    generate(shell, &mut command, name, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
