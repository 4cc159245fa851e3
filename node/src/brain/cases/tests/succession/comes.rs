//! Wishes and presses over anything that happens to boxes and links: each wish is done once, what its maker hears of
//! it is true, and a press to which nobody comes has called everybody.

use super::*;

const PRESS: &str = "20261120-0";
const WORK: &str = "20261120-1";
/// The box of the button.
const BOX: &str = "c/s/a/n";
/// Those who have the other case in turn.
const WORKERS: [&str; 2] = ["c/s/a", "c/s/b"];

#[derive(Clone, Debug)]
enum Does {
    /// At one of those above the box.
    Accept(usize),
    TakeBack(usize, bool),
    /// Something is said of a case; while there is no answer, the same once more.
    Say(usize, bool),
    /// What is said at the box is its newest word.
    SayThere,
    Give(usize),
    Recall(usize),
    Carry(usize, bool),
    /// All that is under way on that line.
    CarryAll(usize),
    Due(usize),
    Wait(u32),
    Restart(usize),
    Replace(usize),
}

fn all() -> impl Strategy<Value = Vec<Does>> {
    let one = prop_oneof![
        4 => (0usize..3).prop_map(Does::Accept),
        4 => (0usize..3, any::<bool>()).prop_map(|(n, boss)| Does::TakeBack(n, boss)),
        8 => (0usize..6, any::<bool>()).prop_map(|(n, press)| Does::Say(n, press)),
        1 => Just(Does::SayThere),
        6 => (0usize..2).prop_map(Does::Give),
        6 => (0usize..6).prop_map(Does::Recall),
        20 => (0usize..10, any::<bool>()).prop_map(|(l, urgent)| Does::Carry(l, urgent)),
        20 => (0usize..10).prop_map(Does::CarryAll),
        10 => (0usize..6).prop_map(Does::Due),
        5 => (1u32..40).prop_map(Does::Wait),
        1 => (0usize..6).prop_map(Does::Restart),
        1 => (1usize..5).prop_map(Does::Replace),
    ];
    prop::collection::vec(one, 20..120)
}

/// What there is to compare with in the end.
#[derive(Default)]
struct Seen {
    /// How often each node had been called for the press when somebody came to it last, as it knew then.
    stood_down: BTreeMap<String, usize>,
    replaced: BTreeSet<String>,
    said: u32,
    /// What was said last at a node of a case, if nothing else was asked for there since: the wish's name and its text.
    last: BTreeMap<(&'static str, &'static str), (String, String)>,
}

impl Net {
    fn of(&self, at: &str, id: &str) -> Option<&Held> {
        self.places[at].cases.get(id)
    }

    /// Does nobody know there yet whether that was done?
    fn is_unanswered(&self, at: &str, id: &str, wish: &str) -> bool {
        let is_open = |w: &Wish| w.id == wish && (w.refused.is_none() || w.is_lost);
        self.of(at, id).is_some_and(|held| held.wishes.iter().any(is_open))
    }

    fn look(&self, seen: &mut Seen) {
        for n in ABOVE {
            let Some(held) = self.of(n, PRESS) else { continue };
            if !held.is_unanswered() {
                seen.stood_down.insert(n.to_owned(), self.calls(n));
            }
        }
    }

    fn calls(&self, at: &str) -> usize {
        self.places[at].called.len()
    }

    fn pass(&mut self, seconds: i64, seen: &mut Seen) {
        self.now += seconds * 1_000_000;
        self.settle_seeing(seen);
    }

    fn settle_seeing(&mut self, seen: &mut Seen) {
        for _ in 0..20_000 {
            let busy = TREE.into_iter().any(|n| self.due(n));
            let is_open = |(k, l): &(&(String, String), &Line)| !l.waits.is_empty() && !self.cut.contains(*k);
            let key = self.lines.iter().find(is_open).map(|(k, _)| k.clone());
            if let Some(key) = &key {
                let _ = self.carry(key, Lane::Urgent) || self.carry(key, Lane::Routine);
            }
            self.look(seen);
            if key.is_none() && !busy {
                return;
            }
        }
        panic!("it never settles");
    }

    fn line(&self, line: usize) -> Option<(String, String)> {
        let keys: Vec<_> = self.lines.iter().filter(|(_, l)| !l.waits.is_empty()).map(|(k, _)| k).collect();
        keys.get(line % keys.len().max(1)).map(|key| (*key).clone())
    }

    fn does(&mut self, one: &Does, seen: &mut Seen) {
        match one {
            Does::Accept(n) => {
                let who = by(&format!("p{n}"), Role::Worker);
                self.ask(ABOVE[*n], PRESS, Verb::Accept, &who);
                seen.last.remove(&(ABOVE[*n], PRESS));
            }
            Does::TakeBack(n, is_boss) => {
                let role = if *is_boss { Role::Supervisor } else { Role::Worker };
                self.ask(ABOVE[*n], PRESS, Verb::Escalate, &by(&format!("p{n}"), role));
                seen.last.remove(&(ABOVE[*n], PRESS));
            }
            Does::Say(n, of_press) => {
                let (at, id) = (TREE[*n], if *of_press { PRESS } else { WORK });
                let again = seen.last.get(&(at, id)).filter(|(wish, _)| self.is_unanswered(at, id, wish)).cloned();
                let (wish, text) = again.unwrap_or_else(|| {
                    seen.said += 1;
                    (format!("w{}", self.next + 1), format!("said {}", seen.said))
                });
                let ask = Ask { text: Some(text.clone()), ..by("w", Role::Worker) };
                if self.ask(at, id, Verb::Comment, &ask) {
                    seen.last.insert((at, id), (wish, text));
                }
            }
            Does::SayThere => {
                seen.said += 1;
                let ask = Ask { text: Some(format!("said {}", seen.said)), ..by("w", Role::Worker) };
                self.ask(BOX, PRESS, Verb::Comment, &ask);
            }
            Does::Give(n) => {
                let ask = Ask { to: Some(a(WORKERS[1 - n])), ..by("w", Role::Worker) };
                if self.places[WORKERS[*n]].cases.may_step(WORK) {
                    self.ask(WORKERS[*n], WORK, Verb::Dispatch, &ask);
                }
            }
            Does::Recall(n) => {
                self.ask(TREE[*n], WORK, Verb::Recall, &by("boss", Role::Supervisor));
                seen.last.remove(&(TREE[*n], WORK));
            }
            Does::Carry(line, urgent) => {
                let Some(key) = self.line(*line) else { return };
                let first = if *urgent { Lane::Urgent } else { Lane::Routine };
                let _ = self.carry(&key, first) || self.carry(&key, Lane::Urgent) || self.carry(&key, Lane::Routine);
            }
            Does::CarryAll(line) => {
                let Some(key) = self.line(*line) else { return };
                while self.carry(&key, Lane::Urgent) || self.carry(&key, Lane::Routine) {}
                while self.due(&key.1) {}
            }
            Does::Due(n) => drop(self.due(TREE[*n])),
            Does::Wait(s) => self.now += i64::from(*s) * 1_000_000,
            Does::Restart(n) => self.restart(TREE[*n]),
            Does::Replace(n) => {
                seen.replaced.insert(TREE[*n].to_owned());
                self.replace(TREE[*n], 0);
            }
        }
        self.look(seen);
    }
}

/// The lines of that text, as this node knows.
fn lines(held: &Held, text: &str) -> usize {
    held.history.iter().filter(|e| e.text == text).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_wish_is_done_once_and_a_press_to_which_nobody_comes_has_called_everybody(acts in all(), burns in any::<bool>()) {
        let mut net = Net::new();
        net.press(BOX, PRESS);
        net.open(WORKERS[0], WORK, "L");
        assert!(net.ask(WORKERS[0], WORK, Verb::Accept, &by("w", Role::Worker)));
        net.settle();
        let mut seen = Seen::default();
        for one in &acts {
            net.does(one, &mut seen);
        }
        // Its box is never heard of again, or is back.
        if burns {
            net.cut(BOX);
        }
        net.pass(0, &mut seen);
        for _ in 0..6 {
            net.pass(31, &mut seen);
        }
        // What had no answer has been asked after.
        for _ in 0..2 {
            net.pass(86_400, &mut seen);
        }
        for n in TREE.iter().filter(|n| !burns || **n != BOX) {
            for id in [PRESS, WORK] {
                let Some(held) = net.of(n, id) else { continue };
                for i in 1..=seen.said {
                    let said = lines(held, &format!("said {i}"));
                    prop_assert!(said <= 1, "{} has {} of `said {}`: {:#?}", n, said, i, held.history);
                }
                let is_known = |w: &&Wish| w.refused.is_some() && !w.is_lost;
                for wish in held.wishes.iter().filter(is_known) {
                    let was_done = held.history.iter().any(|e| e.wish.as_ref() == Some(&wish.id));
                    prop_assert!(!was_done, "{}: {:?} was done: {:#?}", n, wish, held.history);
                    // What has gone on is not back by the next line.
                    let gone_on = wish.refused.as_ref().is_some_and(|why| why.contains("(on its way to"));
                    prop_assert!(!gone_on, "{}: {:?}", n, wish);
                }
                // All that was asked has an answer, whatever was lost; but what waits for a box that burns.
                let open = held.wishes.iter().filter(|w| w.refused.is_none()).count();
                let is_cut = burns && (id == PRESS || !seen.replaced.is_empty());
                prop_assert!(open == 0 || is_cut, "{}: {:?}", n, held.wishes);
            }
        }
        if !burns {
            agree(&TREE, &|n| &net.places[n].cases)?;
        }
        for n in ABOVE.iter().filter(|n| !seen.replaced.contains(**n)) {
            let Some(held) = net.of(n, PRESS).filter(|held| held.is_unanswered()) else { continue };
            let before = seen.stood_down.get(*n).copied().unwrap_or_default();
            prop_assert!(net.calls(n) > before, "{} was called {} times, {} before: {:#?}", n, net.calls(n), before, held);
        }
    }
}
