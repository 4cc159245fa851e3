//! `citybrain man DIR`: a man page for the program and for each of its commands.

use super::{Cli, Fail, Output, examples};
use clap::{Args, CommandFactory};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct Man {
    /// Where to write `citybrain.1`, `citybrain-status.1`, …; made if it is not there
    pub dir: PathBuf,
}

impl Man {
    pub fn act(self) -> Result<Output, Fail> {
        let hint = "give a folder that is yours to write to, such as /usr/share/man/man1";
        let fail = |e: std::io::Error| Fail::usage(format!("cannot write to `{}`: {e}", self.dir.display()), hint);
        std::fs::create_dir_all(&self.dir).map_err(fail)?;
        let mut command = examples::with(Cli::command());
        command.build();
        let written = write(&command, "citybrain", &self.dir).map_err(fail)?;
        Ok(Output::Text(format!("{written} pages in {}\n", self.dir.display())))
    }
}

fn write(command: &clap::Command, name: &str, dir: &Path) -> std::io::Result<usize> {
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone());
    let man = man.title(name).source(format!("citybrain {}", env!("CARGO_PKG_VERSION")));
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|a| !a.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if command.get_subcommands().any(|c| !c.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(text) = command.get_after_help() {
        page.extend(examples_section(&text.to_string()).into_bytes());
    }
    std::fs::write(dir.join(format!("{name}.1")), page)?;
    let mut written = 1;
    for below in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        written += write(below, &format!("{name}-{}", below.get_name()), dir)?;
    }
    Ok(written)
}

/// What stands under a command's help, line by line as it stands there: a command that is broken
/// anywhere cannot be copied. What an example answers comes on a line of its own.
fn examples_section(text: &str) -> String {
    let mut page = ".SH EXAMPLES\n.nf\n".to_owned();
    for line in text.lines().filter(|l| !["Example:", "Examples:"].contains(&l.trim())) {
        let (typed, answers) = line.trim().split_once("  ").unwrap_or((line.trim(), ""));
        page.push_str(&roff(typed));
        page.push('\n');
        if !answers.trim().is_empty() {
            page.push_str(&format!("    {}\n", roff(answers.trim())));
        }
    }
    page.push_str(".fi\n");
    page
}

/// As it is, whatever roff thinks of its characters.
fn roff(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        Man { dir: dir.path().into() }.act().unwrap();
        for page in ["citybrain.1", "citybrain-status.1", "citybrain-dlq-retry.1", "citybrain-doctor-bundle.1"] {
            let text = std::fs::read_to_string(dir.path().join(page)).unwrap();
            assert!(text.contains(".SH NAME") && text.contains(".SH EXAMPLES"), "{page}");
            assert!(text.contains("\"citybrain 0."), "{page} is of this program");
        }
        let text = std::fs::read_to_string(dir.path().join("citybrain-events.1")).unwrap();
        let want =
            "\ncitybrain events \\-\\-type \\(aqcity.air.*\\(aq \\-\\-limit 5\n    the newest five of these types\n";
        assert!(text.contains(want), "{text}");
    }
}
