//! A picture onto a screen: the tree on the left; rates, links, alarms and the newest events on the right.
//!
//! Made for 80 by 24, and for whatever else there is: what does not fit is cut, and a screen too
//! small for anything says so.

use super::picture::{Answers, Picture};
use crate::cli::render::Zone;
use citybrain_shared::config::rules::Severity;
use citybrain_shared::view::{Alarm, LinkRole};
use citybrain_shared::words::{clean, counted, span};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Sparkline};

const KEYS: &str = " q quit   ↑↓ tree   p pause ";

/// Draws all of it.
pub fn draw(p: &Picture, frame: &mut Frame) {
    let area = frame.area();
    if area.width < 40 || area.height < 10 {
        frame.render_widget(Paragraph::new("the screen is too small; q quits"), area);
        return;
    }
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)]).areas(area);
    frame.render_widget(title(p), head);
    frame.render_widget(footer(p), foot);
    let Some(answers) = &p.answers else {
        let why = p.trouble.as_deref().unwrap_or("asking the node …");
        frame.render_widget(Paragraph::new(clean(why)).wrap(ratatui::widgets::Wrap { trim: true }), body);
        return;
    };
    let [left, right] = Layout::horizontal([Constraint::Percentage(45), Constraint::Min(0)]).areas(body);
    tree(p, answers, frame, left);
    let links = answers.status.links.len().clamp(1, 5) as u16;
    let alarms = answers.alarms.alarms.len() as u16;
    let heights =
        [Constraint::Length(7), Constraint::Length(links + 1), Constraint::Length(alarms + 1), Constraint::Min(0)];
    let [rates_area, links_area, alarms_area, tail_area] = Layout::vertical(heights).areas(right);
    rates(p, answers, frame, rates_area);
    draw_links(answers, frame, links_area);
    draw_alarms(answers, p.zone, frame, alarms_area);
    tail(answers, p.zone, frame, tail_area);
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn block(name: &str) -> Block<'_> {
    Block::new().borders(Borders::TOP | Borders::LEFT).border_style(dim()).title(name)
}

fn title(p: &Picture) -> Line<'_> {
    let Some(a) = &p.answers else { return Line::from(" citybrain top") };
    let s = &a.status;
    let (word, color) = if s.ready.ready { ("ready", Color::Green) } else { ("NOT READY", Color::Red) };
    let why =
        if s.ready.reasons.is_empty() { String::new() } else { format!(" {}", clean(&s.ready.reasons.join("; "))) };
    Line::from(vec![
        Span::styled(format!(" {} ", a.node), Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(clean(&s.name)),
        Span::styled(format!("  {word}"), Style::new().fg(color)),
        Span::raw(format!("{why}  up {}  position {}", span(s.uptime_s * 1000), s.log.last_pos.0)),
    ])
}

fn footer(p: &Picture) -> Line<'_> {
    let mut spans = vec![Span::styled(KEYS, Style::new().add_modifier(Modifier::REVERSED))];
    if p.paused {
        spans.push(Span::styled(" paused", Style::new().fg(Color::Yellow)));
    }
    let old = p.now.saturating_sub(p.answered_at).as_secs();
    match &p.trouble {
        Some(why) => spans.push(Span::styled(format!(" {old} s old: {}", clean(why)), Style::new().fg(Color::Red))),
        None if old > 2 && p.answers.is_some() => spans.push(Span::raw(format!(" {old} s old"))),
        None => {}
    }
    Line::from(spans)
}

fn tree(p: &Picture, a: &Answers, frame: &mut Frame, area: Rect) {
    let top = a.tree.first().map_or(1, |n| n.address.depth());
    let rows = area.height.saturating_sub(1) as usize;
    // Scrolled too far, the last rows stay.
    let from = p.scroll.min(a.tree.len().saturating_sub(rows));
    let lines: Vec<Line> = a
        .tree
        .iter()
        .skip(from)
        .take(rows)
        .map(|n| {
            // Its own word first, and of whom nobody has asked yet what its parent sees.
            let (sign, color) = match (n.state.as_str(), n.health.as_deref()) {
                _ if n.silent => ("○", Color::Red),
                (_, Some(health)) if health != "well" => ("●", Color::Yellow),
                ("self" | "up", _) | (_, Some(_)) => ("●", Color::Green),
                ("known", None) => ("·", Color::DarkGray),
                _ => ("○", Color::Red),
            };
            let is_well = color == Color::Green;
            let depth = n.address.depth().saturating_sub(top);
            let name = if depth == 0 { n.address.as_str() } else { n.address.leaf() };
            let alarms = if n.alarms > 0 { format!(" !{}", n.alarms) } else { String::new() };
            let behind = n.behind.filter(|b| *b > 0).map_or(String::new(), |b| format!(" +{b}"));
            let heard = n
                .last_heard_ms_ago
                .filter(|_| n.state != "known" && !is_well)
                .map_or(String::new(), |ms| format!(" {}", span(ms)));
            Line::from(vec![
                Span::raw("  ".repeat(depth)),
                Span::styled(sign, Style::new().fg(color)),
                Span::raw(format!(" {name} ")),
                Span::styled(clean(&n.name), dim()),
                Span::styled(alarms, Style::new().fg(Color::Red)),
                Span::styled(behind, Style::new().fg(Color::Yellow)),
                Span::styled(heard, dim()),
            ])
        })
        .collect();
    let name = format!(" tree: {} ", counted(a.tree.len() as u64, "node"));
    frame.render_widget(
        Paragraph::new(lines).block(Block::new().borders(Borders::TOP).border_style(dim()).title(name)),
        area,
    );
}

fn rates(p: &Picture, a: &Answers, frame: &mut Frame, area: Rect) {
    let (r, s) = (&p.rates, &a.status);
    let row = |name: &str, rate: f64, total: u64| Line::from(format!(" {name:<11}{rate:>8.0}/s {total:>13}"));
    let lines = vec![
        row("began here", r.accepted, s.counters.accepted),
        row("from below", r.from_below, s.counters.received_up),
        row("from above", r.from_above, s.counters.received_down),
        row("delivered", r.delivered, s.door.delivered),
        row("refused", r.refused, s.counters.dead_letters),
    ];
    let block = block(" events ");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [text, curve] = Layout::vertical([Constraint::Length(5), Constraint::Min(0)]).areas(inner);
    frame.render_widget(Paragraph::new(lines), text);
    let from = p.history.len().saturating_sub(curve.width as usize);
    frame.render_widget(Sparkline::default().data(&p.history[from..]).style(Style::new().fg(Color::Cyan)), curve);
}

fn draw_links(a: &Answers, frame: &mut Frame, area: Rect) {
    let mut links: Vec<_> = a.status.links.iter().collect();
    // What does not work first.
    links.sort_by_key(|l| (l.state == "up", l.role == LinkRole::Down));
    let mut lines: Vec<Line> = links
        .iter()
        .map(|l| {
            let up = l.state == "up";
            let way = if l.role == LinkRole::Up { "↑" } else { "↓" };
            let behind = l.urgent.unsent + l.routine.unsent;
            let flying = l.urgent.in_flight + l.routine.in_flight;
            let peer = if l.role == LinkRole::Up { l.peer.as_str() } else { l.peer.leaf() };
            Line::from(vec![
                Span::raw(format!(" {way} ")),
                Span::styled(l.state.clone(), Style::new().fg(if up { Color::Green } else { Color::Red })),
                Span::raw(format!(" {peer} behind {behind}, {flying} on the way")),
            ])
        })
        .collect();
    if lines.is_empty() {
        lines.push(Line::from(" none: no parent, and no child yet"));
    }
    frame.render_widget(Paragraph::new(lines).block(block(" links ")), area);
}

fn draw_alarms(a: &Answers, zone: Zone, frame: &mut Frame, area: Rect) {
    let name = match (a.alarms.active, a.alarms.unacknowledged) {
        (0, _) => " alarms: none ".to_owned(),
        (active, 0) => format!(" alarms: {active}, all seen "),
        (active, unseen) => format!(" alarms: {active}, {unseen} not acknowledged "),
    };
    let row = |alarm: &Alarm| {
        let color = if alarm.severity <= Severity::Major { Color::Red } else { Color::Yellow };
        Line::from(vec![
            Span::styled(format!(" {} ", zone.time(alarm.raised_at)), dim()),
            Span::styled(alarm.severity.as_str(), Style::new().fg(color)),
            Span::raw(format!(" {} {}", alarm.origin.leaf(), clean(&alarm.title))),
        ])
    };
    let lines: Vec<Line> = a.alarms.alarms.iter().map(row).collect();
    frame.render_widget(Paragraph::new(lines).block(block(&name)), area);
}

fn tail(a: &Answers, zone: Zone, frame: &mut Frame, area: Rect) {
    let rows = area.height.saturating_sub(1) as usize;
    let from = a.tail.len().saturating_sub(rows);
    let lines: Vec<Line> = a.tail[from..]
        .iter()
        .map(|e| {
            #[derive(Default, serde::Deserialize)]
            #[serde(default)]
            struct Short {
                #[serde(rename = "type")]
                kind: String,
                subject: String,
            }
            let short: Short = serde_json::from_str(e.event.get()).unwrap_or_default();
            let style = if e.priority == "urgent" { Style::new().fg(Color::Red) } else { Style::new() };
            let origin = e.origin.rsplit('/').next().unwrap_or_default();
            Line::from(vec![
                Span::styled(format!(" {} ", zone.time(e.committed_at)), dim()),
                Span::styled(clean(&short.kind), style),
                Span::raw(format!(" {} {}", clean(origin), clean(&short.subject))),
            ])
        })
        .collect();
    frame.render_widget(Paragraph::new(lines).block(block(" newest events ")), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::view::{self, TreeNode, time_of};
    use citybrain_shared::{Address, Pos, Tier};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::Duration;

    fn link(role: LinkRole, peer: &str, state: &str, unsent: u64) -> view::Link {
        view::Link {
            role,
            peer: Address::parse(peer).unwrap(),
            state: state.into(),
            why: None,
            code: None,
            last_heard_ms_ago: Some(100),
            down_ms: None,
            urgent: Default::default(),
            routine: view::LinkLane { unsent, in_flight: 3, ..Default::default() },
            lease: 1,
            received: 0,
            dropped: 0,
            resent_frames: 0,
            expired_records: 0,
            round_trip_us: None,
            unheard: Vec::new(),
            unheard_more: 0,
        }
    }

    fn node(address: &str, name: &str, state: &str, heard: Option<u64>) -> TreeNode {
        let address = Address::parse(address).unwrap();
        TreeNode {
            tier: address.tier(),
            address,
            name: name.into(),
            code: None,
            labels: Default::default(),
            version: "0.1.0".into(),
            state: state.into(),
            last_heard_ms_ago: heard,
            behind: Default::default(),
            health: Default::default(),
            silent: false,
            alarms: u64::from(state == "known"),
        }
    }

    fn answers(accepted: u64) -> Answers {
        let event = |id: u32, kind: &str, priority: &str, subject: &str| view::Event {
            pos: Pos(id.into()),
            kind: "event".into(),
            priority: priority.into(),
            direction: "up".into(),
            origin: "chengdu/liucheng/guanghua/shili".into(),
            origin_pos: Pos(1),
            received_at: time_of(0),
            committed_at: time_of(1_782_902_467_000_000),
            reach: Tier::City,
            target: String::new(),
            topic: String::new(),
            ttl_ms: None,
            event: serde_json::value::to_raw_value(&serde_json::json!({"type": kind, "subject": subject})).unwrap(),
        };
        Answers {
            node: "chengdu/liucheng".into(),
            status: view::Status {
                name: "柳城街道".into(),
                tier: Tier::Street,
                code: None,
                labels: Default::default(),
                version: "0.1.0".into(),
                pid: 1,
                uptime_s: 3700,
                incarnation: "1".into(),
                boots: 1,
                data: "/d".into(),
                ready: view::Ready { ready: true, reasons: vec![] },
                log: view::Log { last_pos: Pos(1234), ..Default::default() },
                counters: view::Counters { accepted, received_up: 2 * accepted, ..Default::default() },
                door: view::Door::default(),
                links: vec![
                    link(LinkRole::Up, "chengdu", "up", 0),
                    link(LinkRole::Down, "chengdu/liucheng/guanghua", "away", 42),
                ],
                descendants: 2,
                dead_letters_open: 0,
                webhooks: Vec::new(),
            },
            tree: vec![
                node("chengdu/liucheng", "柳城街道", "self", None),
                node("chengdu/liucheng/guanghua", "光华社区", "away", Some(75_000)),
                node("chengdu/liucheng/guanghua/shili", "十里光华", "known", Some(80_000)),
            ],
            alarms: view::Alarms {
                active: 1,
                unacknowledged: 1,
                shelved: 0,
                unheard: Vec::new(),
                unheard_more: 0,
                awaits: None,
                cases: Vec::new(),
                alarms: vec![
                    serde_json::from_value(serde_json::json!({
                        "id": "1", "origin": "chengdu/liucheng/guanghua/shili", "name": "smoke", "key": "",
                        "severity": "critical", "title": "7栋有烟", "active": true, "acknowledged": false, "reach": "city",
                        "raised_at": "2026-07-01T10:41:06Z", "first_raised_at": "2026-07-01T10:41:06Z", "raises": 1,
                        "changed_at": [], "rule": "smoke", "rule_key": "", "rev": 1
                    }))
                    .unwrap(),
                ],
                next: None,
            },
            tail: vec![event(1, "city.air.reading", "routine", "pm25"), event(2, "city.sos", "urgent", "7栋\u{1b}[2J")],
        }
    }

    fn screen(p: &Picture, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(p, frame)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        (0..height)
            .map(|y| {
                let mut line = String::new();
                let mut skip = 0;
                for x in 0..width {
                    let symbol = buffer[(x, y)].symbol();
                    // A wide character covers the cell behind it.
                    if skip == 0 {
                        line.push_str(symbol);
                        skip = Line::from(symbol).width().saturating_sub(1);
                    } else {
                        skip -= 1;
                    }
                }
                line.trim_end().to_owned()
            })
            .collect()
    }

    fn filled() -> Picture {
        let mut p = Picture::default();
        p.take(Duration::from_secs(1), Ok(answers(100)));
        p.take(Duration::from_secs(3), Ok(answers(300)));
        p.now = Duration::from_secs(3);
        p
    }

    const GOLDEN: &str = include_str!("golden_80x24.txt");

    #[test]
    fn eighty_by_twenty_four_shows_all_with_wide_names_straight() {
        let got = screen(&filled(), 80, 24);
        assert_eq!(got.join("\n").trim_end(), GOLDEN.trim_end(), "\n{}\n", got.join("\n"));
        assert!(!got.iter().any(|l| l.contains('\u{1b}')));
    }

    #[test]
    fn a_node_says_by_its_sign_how_it_is_and_how_far_it_is_behind() {
        let mut p = filled();
        let tree = &mut p.answers.as_mut().unwrap().tree;
        tree[0].health = Some("cut off: its parent's link is connecting".into());
        tree[0].behind = Some(42);
        (tree[1].state, tree[1].health, tree[1].behind) = ("up".into(), Some("well".into()), Some(0));
        (tree[2].health, tree[2].silent) = (Some("no answer: no session".into()), true);
        let got = screen(&p, 80, 24);
        let row = |y: usize| got[y].split('│').next().unwrap().trim_end().to_owned();
        assert_eq!(
            [row(2), row(3), row(4)],
            ["● chengdu/liucheng 柳城街道 +42", "  ● guanghua 光华社区", "    ○ shili 十里光华 !1"]
        );
    }

    #[test]
    fn any_size_is_drawn() {
        let mut p = filled();
        p.scroll = 1000;
        for (width, height) in [(1, 1), (39, 24), (40, 10), (81, 11), (200, 60), (80, 24)] {
            let got = screen(&p, width, height);
            assert_eq!(got.len(), height as usize);
        }
        assert!(screen(&p, 40, 10).last().unwrap().contains("q quit"));
        assert!(screen(&p, 39, 9)[0].contains("too small"));
    }

    #[test]
    fn a_node_that_does_not_answer_keeps_its_last_picture_and_says_how_old_it_is() {
        let mut p = filled();
        p.take(Duration::from_secs(9), Err("cannot reach it".into()));
        p.now = Duration::from_secs(10);
        let got = screen(&p, 80, 24);
        assert!(got[23].contains("7 s old: cannot reach it"), "{}", got[23]);
        assert!(got[0].contains("柳城街道"));
        assert!(
            screen(&Picture { trouble: Some("nobody there".into()), ..Picture::default() }, 80, 24)[1]
                .contains("nobody")
        );
    }
}
