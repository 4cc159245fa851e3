//! Changing commands say what they will do, and do it only when told twice.

use super::Fail;
use clap::Args;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;

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

/// Who runs this process: `user@host`, with who became root by sudo. A claim: nobody checks it.
pub fn who() -> String {
    let uid = std::fs::metadata("/proc/self").map(|m| m.uid());
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = uid.as_ref().ok().and_then(|uid| {
        users.lines().find_map(|l| {
            let mut fields = l.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
        })
    });
    let name = name.unwrap_or_else(|| uid.map_or_else(|_| "unknown".into(), |uid| format!("uid-{uid}")));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let sudo =
        std::env::var("SUDO_USER").ok().filter(|s| !s.is_empty()).map_or(String::new(), |s| format!(" (sudo by {s})"));
    // It goes into a header: what does not fit there becomes a question mark.
    let text = format!("{name}@{}{sudo}", host.trim());
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_runs_this_and_it_fits_a_header() {
        let who = who();
        assert!(who.contains('@') && who.is_ascii(), "{who}");
    }
}
