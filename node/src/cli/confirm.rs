//! Changing commands say what they will do, and do it only when told twice.

use super::Fail;
use clap::Args;
use std::io::{self, BufRead, IsTerminal, Write};

#[derive(Clone, Debug, Default, Args)]
pub struct Yes {
    /// Do it without asking
    #[arg(long, short)]
    pub yes: bool,
}

impl Yes {
    /// Says what will be done and asks, unless `--yes` was given.
    ///
    /// # Errors
    /// 2 when there is nobody to ask, 1 when the answer is no.
    pub fn confirm(&self, will: &str) -> Result<(), Fail> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            let will = will.lines().collect::<Vec<_>>().join(" ");
            return Err(Fail::usage(
                format!("nothing was done, for there is no terminal to ask at. It would be this: {will}"),
                "`--yes` does it without asking",
            ));
        }
        let mut err = io::stderr().lock();
        // Whoever closed stderr does not want to read it.
        let _ = write!(err, "{will}\nDo it? [y/N] ");
        let _ = err.flush();
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        match read.is_ok() && ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) {
            true => Ok(()),
            false => Err(Fail::no("declined", "nothing was done", "")),
        }
    }
}
