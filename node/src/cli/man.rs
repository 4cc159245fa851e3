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
    clap_mangen::Man::new(command.clone()).title(name).render(&mut page)?;
    std::fs::write(dir.join(format!("{name}.1")), page)?;
    let mut written = 1;
    for below in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        written += write(below, &format!("{name}-{}", below.get_name()), dir)?;
    }
    Ok(written)
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
            assert!(text.contains(".SH NAME"), "{page}");
        }
    }
}
