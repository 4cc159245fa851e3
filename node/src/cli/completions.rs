//! `citybrain completions`: what a shell offers when tab is pressed.
//!
//! `clap_complete` writes the scripts. It is told more than the parser needs to know (what is a path, and
//! that nothing else is), and what it leaves out for a shell stands below its script.

use super::{Cli, Fail, Output};
use clap::{Arg, ArgAction, Args, Command, CommandFactory, ValueHint};
use clap_complete::Shell;
use std::fmt::Write as _;

#[derive(Debug, Args)]
pub struct Completions {
    /// The shell that will read it
    pub shell: Shell,
}

impl Completions {
    pub fn act(self) -> Result<Output, Fail> {
        Ok(Output::Text(script(self.shell)))
    }
}

fn script(shell: Shell) -> String {
    let mut command = told(Cli::command());
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "citybrain", &mut text);
    let mut text = String::from_utf8_lossy(&text).into_owned();
    match shell {
        Shell::Bash => text.push_str(BASH),
        Shell::Fish => positionals(&command, &mut Vec::new(), &mut text),
        _ => {}
    }
    text
}

/// The command, as completions need it.
fn told(command: Command) -> Command {
    // clap keeps names for ever, and this process prints one script and ends.
    let names = command.get_subcommands().map(|c| &*c.get_name().to_owned().leak());
    let names: Vec<&'static str> = names.collect();
    // clap's own `help` has a copy of the whole tree at every level, and fish does not get into it.
    let help = Command::new("help")
        .about("Print this message or the help of the given subcommand")
        .arg(Arg::new("command").value_parser(clap::builder::PossibleValuesParser::new(names)));
    // Its value comes only behind `=`: the word after it is the command.
    let watch = |flag: Arg| {
        let about = flag.get_help().cloned().unwrap_or_default();
        Arg::new("watch").long("watch").help(about).global(true).action(ArgAction::SetTrue)
    };
    below(command.mut_arg("watch", watch)).subcommand(help)
}

fn below(command: Command) -> Command {
    let command = command.disable_help_subcommand(true).mut_args(|arg| match arg.get_value_hint() {
        _ if !arg.get_action().takes_values() => arg,
        // Whose type is no path; files would be offered.
        ValueHint::Unknown => arg.value_hint(ValueHint::Other),
        // Bash goes on into a folder only of these.
        ValueHint::AnyPath => arg.value_hint(ValueHint::FilePath),
        _ => arg,
    });
    command.mut_subcommands(below)
}

/// Where a name or a file may stand, options are offered once a dash was typed.
const BASH: &str = r#"
_citybrain_words() {
    _citybrain "$@"
    [[ $2 == -* ]] && return
    local word words=()
    for word in "${COMPREPLY[@]}"; do
        [[ $word == -* ]] || words+=("$word")
    done
    COMPREPLY=("${words[@]}")
}
if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -F _citybrain_words -o nosort -o bashdefault -o default citybrain
else
    complete -F _citybrain_words -o bashdefault -o default citybrain
fi
"#;

/// What fish offers where an argument without a dash may stand: its values, or nothing. Files are what it
/// offers anyway.
fn positionals(command: &Command, path: &mut Vec<String>, script: &mut String) {
    for sub in command.get_subcommands() {
        path.push(sub.get_name().to_owned());
        positionals(sub, path, script);
        path.pop();
    }
    let Some((first, rest)) = path.split_first().filter(|_| !command.has_subcommands()) else { return };
    let is_path = |a: &Arg| a.get_value_hint() == ValueHint::FilePath || a.get_value_hint() == ValueHint::DirPath;
    if command.get_positionals().any(is_path) {
        return;
    }
    let mut when = format!("__fish_citybrain_using_subcommand {first}");
    for name in rest {
        let _ = write!(when, "; and __fish_seen_subcommand_from {name}"); // a String takes every write
    }
    let values: Vec<String> = command
        .get_positionals()
        .flat_map(Arg::get_possible_values)
        .filter(|v| !v.is_hide_set())
        .map(|v| v.get_name().to_owned())
        .collect();
    let offered = if values.is_empty() { String::new() } else { format!(" -a \"{}\"", values.join(" ")) };
    let _ = writeln!(script, "complete -c citybrain -n \"{when}\" -f{offered}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_path_is_not_completed_by_files() {
        let fish = script(Shell::Fish);
        let option = |name: &str| {
            let found = fish.lines().find(|l| l.contains(&format!(" -l {name} ")));
            found.unwrap_or_else(|| panic!("no {name} in\n{fish}")).to_owned()
        };
        assert!(option("at").ends_with(" -r -f"), "{}", option("at"));
        assert!(option("offline").ends_with(" -r -F"), "{}", option("offline"));
        assert!(!option("watch").contains(" -r"), "the word after it is a command: {}", option("watch"));
        let place = |when: &str| fish.lines().find(|l| l.contains(when) && !l.contains(" -l ")).map(str::to_owned);
        let shells = place("subcommand completions\"").expect("values");
        assert!(shells.ends_with("-f -a \"bash elvish fish powershell zsh\""), "{shells}");
        assert!(place("subcommand show\"").expect("an id").ends_with(" -f"));
        assert!(place("subcommand help\"").expect("commands").contains(" status "));
        assert_eq!(place("subcommand check\""), None, "it names files");
    }
}
