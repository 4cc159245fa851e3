//! What touches the terminal. The node is asked in a thread of its own, so that keys are heard while it does
//! not answer. The terminal is put back as it was on any way out, a panic among them.

use super::draw;
use super::picture::{Answers, Picture};
use crate::cli::render::Zone;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

const POLL_EVERY: Duration = Duration::from_secs(1);
const KEYS_EVERY: Duration = Duration::from_millis(100);

/// Shows the node until somebody quits. `ask` is called about once a second, in a thread of its own;
/// its error is shown, and it is asked again.
///
/// # Errors
/// When the terminal cannot be used.
pub fn run(ask: impl FnMut() -> Result<Answers, String> + Send + 'static) -> io::Result<()> {
    let (to_screen, answers) = mpsc::sync_channel(1);
    let (quit, asker) = mpsc::channel::<()>();
    std::thread::spawn(move || poll(ask, &to_screen, &asker));
    // Also puts a hook before a panic's message, so that it is readable.
    let mut terminal = ratatui::try_init()?;
    let done = watch(&mut terminal, &answers);
    ratatui::restore();
    drop(quit);
    done
}

fn poll(
    mut ask: impl FnMut() -> Result<Answers, String>,
    to_screen: &mpsc::SyncSender<(Instant, Result<Answers, String>)>,
    quit: &mpsc::Receiver<()>,
) {
    loop {
        let answer = ask();
        if to_screen.send((Instant::now(), answer)).is_err() {
            return;
        }
        match quit.recv_timeout(POLL_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return,
        }
    }
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    answers: &mpsc::Receiver<(Instant, Result<Answers, String>)>,
) -> io::Result<()> {
    let mut picture = Picture { zone: Zone::machine(), ..Picture::default() };
    let started = Instant::now();
    loop {
        while let Ok((at, answer)) = answers.try_recv() {
            picture.take(at.duration_since(started), answer);
        }
        picture.now = started.elapsed();
        terminal.draw(|frame| draw::draw(&picture, frame))?;
        if !event::poll(KEYS_EVERY)? {
            continue;
        }
        // A resize only needs the next turn's drawing.
        if let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                KeyCode::Char('p') | KeyCode::Char(' ') => picture.paused = !picture.paused,
                KeyCode::Up | KeyCode::Char('k') => picture.scroll = picture.scroll.saturating_sub(1),
                KeyCode::Down | KeyCode::Char('j') => picture.scroll = picture.scroll.saturating_add(1),
                _ => {}
            }
        }
    }
}
