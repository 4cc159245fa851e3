//! `--watch`: the same question again and again, on a screen of its own; elsewhere answer after
//! answer.

use super::render::Screen;
use super::{
    Cli, Command, Fail, alarm, cap, case, config, context, dlq, enrol, parsed, rule, service, store, token, user,
};
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Faster would be load for nobody's eyes.
const EVERY_MIN: Duration = Duration::from_millis(200);

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let every = text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    every
        .filter(|e| *e >= EVERY_MIN)
        .ok_or_else(|| format!("a number of seconds, at least {}", EVERY_MIN.as_secs_f64()))
}

/// What may be asked again without a second thought.
pub(super) fn only_reads(command: &Command) -> bool {
    match command {
        Command::Status(_)
        | Command::Tree(_)
        | Command::Links(_)
        | Command::Show(_)
        | Command::Why(_)
        | Command::Audit(_)
        | Command::Rates(_)
        | Command::Supervision(_)
        | Command::Preset(_)
        | Command::Check(_)
        | Command::Directives(_)
        | Command::Scene(_)
        | Command::Version(_) => true,
        Command::Events(e) => !e.follow,
        Command::Trace(t) => !t.probe,
        Command::Doctor(d) => d.verb.is_none(),
        Command::LogLevel(l) => l.level.is_none(),
        Command::Rule(r) => matches!(r, rule::Rule::List { .. } | rule::Rule::Test { .. }),
        Command::Alarm(a) => matches!(a, alarm::Alarm::List(_) | alarm::Alarm::Show { .. }),
        Command::Cap(c) => matches!(c, cap::Cap::List { .. } | cap::Cap::Show { .. } | cap::Cap::Alarm { .. }),
        Command::Case(c) => matches!(**c, case::Case::List(_) | case::Case::Show { .. } | case::Case::Stats(_)),
        Command::Service(s) => matches!(**s, service::Service::List { .. } | service::Service::Show { .. }),
        Command::Dlq(d) => matches!(d, dlq::Dlq::List { .. } | dlq::Dlq::Show { .. }),
        Command::Enrol(e) => matches!(e, enrol::Enrol::List { .. }),
        Command::Config(c) => matches!(c, config::Config::Show { .. } | config::Config::Diff { .. }),
        Command::Store(s) => matches!(s, store::Store::Stats { .. } | store::Store::Verify { .. }),
        Command::Context(c) => matches!(c, context::Context::List),
        Command::Token(t) => matches!(t, token::Token::List { .. }),
        Command::User(u) => matches!(u, user::User::List { .. }),
        _ => false,
    }
}

/// Until ctrl-c, or until nobody reads any more. `first` is what `args` mean.
pub(super) fn watch(args: &[OsString], first: Cli, screen: Screen, every: Duration) -> ExitCode {
    if !only_reads(&first.command) {
        let hint = "`events --follow` shows events as they come; `top` is a live screen";
        let fail = Fail::usage("only commands that read and come to an end are watched", hint);
        screen.fail(&fail);
        return ExitCode::from(fail.code);
    }
    let typed: Vec<_> = args.iter().skip(1).map(|a| a.to_string_lossy()).collect();
    let typed = typed.join(" ");
    let is_screen = io::stdout().is_terminal() && !screen.json;
    let mut next = Some(first);
    loop {
        // A command is used up by what it does.
        let Some(cli) = next.take().or_else(|| parsed(args).ok()) else { return ExitCode::from(2) };
        let done = cli.command.act();
        if is_screen {
            // Home, and all below is empty: no flicker. A closed terminal ends this by a signal.
            let head = format!("\u{1b}[H\u{1b}[2Jevery {} s: citybrain {typed}\n\n", every.as_secs_f64());
            let _ = io::stdout().lock().write_all(head.as_bytes());
        }
        match done.and_then(|output| screen.show_if_read(output)) {
            Ok(None) => return ExitCode::SUCCESS,
            Ok(Some(_)) => {}
            // It may answer the next time.
            Err(fail) => screen.fail(&fail),
        }
        std::thread::sleep(every);
    }
}
