//! The process's log output: its level can be changed while it runs, and its last lines are kept.
//!
//! One a process, like the subscriber that it configures: a second node in one process (tests)
//! shares the first one's.

use citybrain_shared::config::{LogFormat, LogOutput};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::OnceLock;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, reload};

/// Lines kept for `doctor bundle`, and bytes of each: 300 × 400 is at most 120 KB.
const LINES_MAX: usize = 300;
const LINE_BYTES_MAX: usize = 400;

type Reload = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

struct Output {
    reload: Reload,
    level: Mutex<String>,
    lines: Mutex<VecDeque<String>>,
}

static OUTPUT: OnceLock<Output> = OnceLock::new();

/// Begins logging to stderr. `RUST_LOG` goes before the config.
pub fn start(config: &LogOutput) {
    let asked = std::env::var("RUST_LOG").ok().filter(|v| EnvFilter::try_new(v).is_ok() && !v.is_empty());
    let level = asked.unwrap_or_else(|| config.level.clone());
    let filter = EnvFilter::try_new(&level).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let base = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(Tee);
    // A second node in one process keeps the first one's subscriber.
    let _ = match config.format {
        LogFormat::Text => base.with(layer.with_ansi(io::IsTerminal::is_terminal(&io::stderr()))).try_init(),
        LogFormat::Json => base.with(layer.json().flatten_event(true)).try_init(),
    };
    let reload: Reload = Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string()));
    let _ = OUTPUT.set(Output { reload, level: Mutex::new(level), lines: Mutex::default() });
}

/// What is logged now, as in `RUST_LOG`; empty before [`start`].
pub fn level() -> String {
    OUTPUT.get().map_or_else(String::new, |o| o.level.lock().clone())
}

/// Changes it, until the process ends. Returns what it was.
///
/// # Errors
/// When `level` is none, in a sentence.
pub fn set_level(level: &str) -> Result<String, String> {
    let filter = EnvFilter::try_new(level).map_err(|e| format!("`{level}` is no log level: {e}"))?;
    let output = OUTPUT.get().ok_or("this process does not log")?;
    let mut now = output.level.lock();
    (output.reload)(filter)?;
    Ok(std::mem::replace(&mut *now, level.to_owned()))
}

/// The last lines that were logged, oldest first.
pub fn lines() -> Vec<String> {
    OUTPUT.get().map_or_else(Vec::new, |o| o.lines.lock().iter().cloned().collect())
}

/// stderr, and the last lines.
#[derive(Clone, Copy)]
struct Tee;

impl<'a> MakeWriter<'a> for Tee {
    type Writer = Tee;

    fn make_writer(&'a self) -> Tee {
        Tee
    }
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(output) = OUTPUT.get() {
            let mut lines = output.lines.lock();
            for line in String::from_utf8_lossy(bytes).lines().filter(|l| !l.is_empty()) {
                if lines.len() == LINES_MAX {
                    lines.pop_front();
                }
                lines.push_back(plain(line));
            }
        }
        io::stderr().write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Without a terminal's colours, and not longer than the bound.
fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut in_escape = false;
    for c in line.chars() {
        match c {
            '\u{1b}' => in_escape = true,
            'm' if in_escape => in_escape = false,
            _ if in_escape => {}
            c if out.len() + c.len_utf8() > LINE_BYTES_MAX => break,
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_lines_have_no_colours_and_a_bound() {
        assert_eq!(plain("\u{1b}[2m2026\u{1b}[0m INFO 温江区"), "2026 INFO 温江区");
        assert!(plain(&"温".repeat(1000)).len() <= LINE_BYTES_MAX);
    }
}
