//! Wishes whose letters, or answers, are lost, or that nobody answers for days.

use super::*;

const DAY_US: i64 = 86_400_000_000;
const OWNER: &str = "c/s/a/n";
const BESIDE: &str = "c/s/b";

/// A case of the owner that the node beside has given it.
fn given_by_the_one_beside() -> Net {
    let mut net = Net::new();
    net.open_with_phone(BESIDE, CASE, "L");
    assert!(net.ask(BESIDE, CASE, Verb::Accept, &by("w", Role::Worker)));
    assert!(net.give(BESIDE, OWNER));
    net.settle();
    assert_eq!(net.owners(CASE), [OWNER]);
    net
}

impl Net {
    fn pass_us(&mut self, us: i64) {
        self.now += us;
        self.settle();
    }

    /// What is asked for there is on its way to the owner, and lost with the box before that.
    fn lose_on_the_way(&mut self, at: &str, verb: Verb, ask: &Ask) {
        self.cut(OWNER);
        assert!(self.ask(at, CASE, verb, ask), "{verb} at {at}");
        self.settle();
        self.replace("c/s/a", 0);
        self.cut.clear();
        self.settle();
    }

    /// What became of each wish of that node; `None` is no answer.
    fn answers(&self, at: &str) -> Vec<Option<String>> {
        self.held(at).wishes.iter().map(|w| w.refused.clone()).collect()
    }

    fn done(&self, verb: Verb) -> usize {
        self.held(OWNER).history.iter().filter(|e| e.step == verb.done()).count()
    }

    /// Letters that were ever written for that line, of which the text says so.
    fn written(&self, from: &str, to: &str, text: &str) -> usize {
        let line = &self.lines[&(from.to_owned(), to.to_owned())];
        line.sent.iter().filter(|r| String::from_utf8_lossy(r.draft.parts().1).contains(text)).count()
    }
}

#[test]
fn a_wish_from_beside_that_is_lost_with_a_box_on_its_way_is_said_to_be_and_done_once_when_asked_for_again() {
    for is_owner_new in [false, true] {
        let mut net = given_by_the_one_beside();
        assert!(net.ask(OWNER, CASE, Verb::Dispatch, &by("w", Role::Worker)));
        if is_owner_new {
            net.settle();
            net.replace(OWNER, 0);
            net.settle();
        }
        let ask = Ask { contacted: true, ..by("w", Role::Worker) };
        net.lose_on_the_way(BESIDE, Verb::Start, &ask);
        assert_eq!((net.answers(BESIDE), net.done(Verb::Start)), (vec![None], 0));
        net.restart(BESIDE);
        net.pass_us(on_its_way_us(&net));
        let why = net.answers(BESIDE)[0].clone().unwrap_or_default();
        let says = match is_owner_new {
            true => format!("no answer to it has come, and {OWNER} does not know whether it was done"),
            false => format!("it has not come to {OWNER}, and was not done"),
        };
        assert!(why.starts_with(&says), "{why}");
        assert!(net.ask(BESIDE, CASE, Verb::Start, &ask));
        net.settle();
        assert_eq!((net.answers(BESIDE), net.done(Verb::Start)), (vec![], 1));
    }
}

#[test]
fn a_comment_from_beside_that_is_lost_with_a_box_on_its_way_is_sent_again_and_stands_once() {
    for is_asked_again in [false, true] {
        let mut net = given_by_the_one_beside();
        let said = Ask { text: Some("钥匙在门卫".into()), ..by("w", Role::Worker) };
        net.lose_on_the_way(BESIDE, Verb::Comment, &said);
        assert_eq!((net.answers(BESIDE), net.done(Verb::Comment)), (vec![None], 0));
        net.restart(BESIDE);
        if is_asked_again {
            assert!(net.ask(BESIDE, CASE, Verb::Comment, &said));
        }
        net.pass_us(on_its_way_us(&net));
        assert_eq!((net.answers(BESIDE), net.done(Verb::Comment)), (vec![], 1), "asked again: {is_asked_again}");
        assert_eq!(net.held(OWNER).history.last().map(|e| e.text.as_str()), Some("钥匙在门卫"));
    }
}

#[test]
fn a_press_that_is_reopened_above_its_dead_box_is_opened_again_though_that_is_lost_with_a_box_on_its_way() {
    let mut net = Net::pressed_and_closed(OWNER, "王队");
    net.lose_on_the_way("c/s", Verb::Reopen, &by("王大妈", Role::Resident));
    net.pass_us(on_its_way_us(&net));
    assert_eq!((net.answers("c/s"), net.done(Verb::Reopen)), (vec![], 1));
    for n in ["c", "c/s", "c/s/a", OWNER] {
        let held = net.held(n);
        assert_eq!((held.case.status, held.not_over(), held.case.reopened), (Status::Submitted, None, 1), "{n}");
    }
}

#[test]
fn what_somebody_has_said_is_not_kept_to_be_sent_again_once_he_is_forgotten() {
    for role in [Some(Role::Resident), None] {
        for verb in [Verb::Comment, Verb::Evaluate, Verb::Withdraw, Verb::Reopen] {
            let mut net = given_by_the_one_beside();
            net.cut(OWNER);
            assert!(net.ask(BESIDE, CASE, verb, &Ask { role, ..by("王大妈", Role::Resident) }), "{verb}");
            let knows_him = |net: &Net| serde_json::to_string(net.held(BESIDE)).unwrap().contains("王大妈");
            assert_eq!(knows_him(&net), verb == Verb::Comment, "{verb} by {role:?}: it may have to be sent again");
            assert!(net.ask(BESIDE, CASE, Verb::Forget, &by("boss", Role::Supervisor)));
            assert!(!knows_him(&net), "{verb} by {role:?}");
        }
    }
}

#[test]
fn who_says_without_a_role_that_a_press_is_not_over_is_sent_again_by_his_name_until_he_is_forgotten() {
    for is_forgotten in [false, true] {
        let mut net = Net::pressed_and_closed(OWNER, "王队");
        // Whom the case knows for something else: the box will say that it is his word.
        net.cut(OWNER);
        assert!(net.ask("c/s", CASE, Verb::Reopen, &Ask { role: None, ..by("boss", Role::Resident) }));
        if is_forgotten {
            assert!(net.ask("c/s", CASE, Verb::Forget, &by("站长", Role::Supervisor)));
        }
        net.settle();
        net.replace("c/s/a", 0);
        net.cut.clear();
        net.settle();
        net.pass_us(on_its_way_us(&net));
        let line = net.held(OWNER).history.iter().rfind(|e| e.step == Verb::Reopen.done()).unwrap();
        let said = if is_forgotten { ("resident", Some(Role::Resident)) } else { ("boss", Some(Role::Supervisor)) };
        assert_eq!((line.by.as_str(), line.role), said, "forgotten: {is_forgotten}");
    }
}

fn on_its_way_us(net: &Net) -> i64 {
    i64::from(net.places[BESIDE].cases.settings.on_its_way_s) * 1_000_000
}

#[test]
fn a_wish_for_a_node_that_is_away_for_days_is_asked_after_once_a_day_at_last_and_done_once() {
    let mut net = given_by_the_one_beside();
    assert!(net.ask(OWNER, CASE, Verb::Dispatch, &by("w", Role::Worker)));
    net.settle();
    net.cut(OWNER);
    assert!(net.ask(BESIDE, CASE, Verb::Start, &Ask { contacted: true, ..by("w", Role::Worker) }));
    let asked = |net: &Net| net.written(BESIDE, "c/s", "what-of");
    let mut by_day = Vec::new();
    for _ in 0..10 {
        for _ in 0..24 {
            net.pass_us(DAY_US / 24);
        }
        net.restart(BESIDE);
        by_day.push(asked(&net));
    }
    // After 1, 3, 7 and 15 hours, the next ones after 16 and 24 more.
    assert_eq!(by_day, [4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
    assert_eq!(net.answers(BESIDE), [None], "it waits");
    net.cut.clear();
    net.settle();
    assert_eq!((net.answers(BESIDE), net.done(Verb::Start)), (vec![], 1));
    net.pass_us(10 * DAY_US);
    assert_eq!(asked(&net), 13, "it has its answer");
    assert_eq!(net.written("c/s", BESIDE, "no answer to it has come"), 0);
}

#[test]
fn a_wish_that_was_refused_is_not_said_to_be_lost_though_it_was_asked_after_meanwhile() {
    let mut net = given_by_the_one_beside();
    net.cut(OWNER);
    assert!(net.ask(BESIDE, CASE, Verb::Close, &by("boss", Role::Supervisor)));
    net.pass_us(DAY_US);
    net.cut.clear();
    net.settle();
    let answers = net.answers(BESIDE);
    assert!(matches!(&answers[..], [Some(why)] if !why.contains("no answer")), "{answers:?}");
}

#[test]
fn a_wish_waits_for_its_answer_by_the_right_clock_though_that_was_ahead_when_it_was_asked_for() {
    let mut net = given_by_the_one_beside();
    net.now += 400 * DAY_US;
    net.lose_on_the_way(BESIDE, Verb::Start, &by("w", Role::Worker));
    net.now -= 400 * DAY_US;
    // Whatever comes next says that it is right again.
    assert!(net.ask(BESIDE, CASE, Verb::Accept, &by("w", Role::Worker)));
    net.pass_us(DAY_US);
    let answers = net.answers(BESIDE);
    assert_eq!(answers.iter().flatten().count(), 2, "{answers:?}");
}

#[test]
fn whoever_is_to_be_forgotten_is_though_that_word_was_lost_with_a_box_on_its_way() {
    for at in ["c", "c/s", BESIDE] {
        let mut net = given_by_the_one_beside();
        assert!(net.held(OWNER).contact.is_some());
        net.lose_on_the_way(at, Verb::Forget, &by("boss", Role::Supervisor));
        net.pass_us(if at == BESIDE { DAY_US } else { 0 });
        for n in ["c", "c/s", "c/s/a", OWNER, BESIDE] {
            let held = net.held(n);
            assert!(held.case.forgotten && held.contact.is_none() && held.to_forget.is_none(), "{at}: {n}");
            assert_eq!(held.wishes, [], "{at}: {n}");
        }
        assert_eq!(net.done(Verb::Forget), 1, "{at}");
        let refused = TREE.iter().filter_map(|n| a(n).parent().map(|p| net.written(p.as_str(), n, letter::LOST)));
        assert_eq!(refused.sum::<usize>(), 0, "{at}");
    }
}

#[test]
fn whoever_has_accepted_a_press_and_cannot_come_is_heard_though_that_word_was_lost_with_a_box_on_its_way() {
    for at in ["c", "c/s"] {
        let mut net = Net::new();
        net.press(OWNER, CASE);
        net.settle();
        assert!(net.ask(at, CASE, Verb::Accept, &by("街长", Role::Worker)));
        net.settle();
        let reason = Ask { text: Some("车坏了".into()), ..by("街长", Role::Worker) };
        net.lose_on_the_way(at, Verb::Escalate, &reason);
        for n in ABOVE.into_iter().chain([OWNER]) {
            let held = net.held(n);
            assert_eq!((held.case.status, held.wishes.len()), (Status::Submitted, 0), "{at}: {n}: {held:?}");
            let lines = held.history.iter().filter(|e| e.text == "车坏了").count();
            assert_eq!(lines, 1, "{at}: {n}: {:?}", held.history);
        }
        assert!(!net.places[OWNER].called.is_empty(), "{at}");
    }
}

#[test]
fn what_is_asked_for_again_by_itself_takes_back_nobody_who_has_accepted_since() {
    let mut net = Net::new();
    net.press(OWNER, CASE);
    assert!(net.ask(OWNER, CASE, Verb::Accept, &by("王", Role::Worker)));
    net.settle();
    net.cut(OWNER);
    let cannot = Ask { text: Some("车坏了".into()), ..by("王", Role::Worker) };
    assert!(net.ask(OWNER, CASE, Verb::Escalate, &cannot));
    assert!(net.ask(OWNER, CASE, Verb::Accept, &by("陈", Role::Worker)));
    net.lose_on_the_way("c/s", Verb::Escalate, &by("站", Role::Supervisor));
    net.pass_us(on_its_way_us(&net));
    let held = net.held(OWNER);
    assert_eq!((held.case.status, held.case.accepted_by.as_deref()), (Status::Accepted, Some("陈")));
    assert!(net.held("c/s").wishes.iter().all(|wish| wish.refused.is_some()), "{:?}", net.answers("c/s"));
    assert!(net.held("c/s").not_coming().is_none());
}

#[test]
fn nobody_above_is_called_for_a_press_to_which_somebody_comes_as_its_box_is_back() {
    let mut net = Net::new();
    net.press(OWNER, CASE);
    assert!(net.ask(OWNER, CASE, Verb::Accept, &by("王", Role::Worker)));
    net.settle();
    net.cut(OWNER);
    // It has said something that has not come up.
    assert!(net.ask(OWNER, CASE, Verb::Comment, &Ask { text: Some("灯亮着".into()), ..by("w", Role::Worker) }));
    assert!(net.ask("c/s", CASE, Verb::Escalate, &by("站", Role::Supervisor)));
    assert!(net.ask("c/s", CASE, Verb::Accept, &by("李", Role::Worker)));
    net.settle();
    net.pass_us(300_000_000);
    let called = |net: &Net| ["c", "c/s", "c/s/a"].map(|n| net.places[n].called.len());
    let before = called(&net);
    net.cut.clear();
    net.settle();
    net.pass_us(300_000_000);
    let held = net.held(OWNER);
    assert_eq!((held.case.status, held.case.accepted_by.as_deref()), (Status::Accepted, Some("李")));
    assert_eq!(called(&net), before);
}

#[test]
fn what_is_said_twice_without_an_answer_is_done_once_though_an_earlier_wish_is_asked_for_again_between() {
    let mut net = given_by_the_one_beside();
    net.cut(OWNER);
    assert!(net.ask(BESIDE, CASE, Verb::Forget, &by("boss", Role::Supervisor)));
    let said = by("w", Role::Worker);
    assert!(net.ask(BESIDE, CASE, Verb::Comment, &said));
    net.pass_us(DAY_US);
    assert!(net.held(BESIDE).wishes.iter().any(|w| w.verb == Verb::Forget && w.again > 0), "by itself");
    assert!(net.ask(BESIDE, CASE, Verb::Comment, &said));
    net.cut.clear();
    net.settle();
    assert_eq!((net.answers(BESIDE), net.done(Verb::Comment), net.done(Verb::Forget)), (vec![], 1, 1));
}

#[test]
fn what_is_said_twice_at_a_new_box_is_done_once_though_it_sends_on_who_comes_between() {
    let mut net = Net::pressed_and_accepted(OWNER, "c/s");
    let above = net.cut.clone();
    net.cut("c/s");
    net.replace("c/s", 0);
    net.settle();
    let said = by("w", Role::Worker);
    assert!(net.ask("c/s", CASE, Verb::Comment, &said));
    net.cut = above;
    net.settle();
    assert!(net.held("c/s").wishes.iter().any(|w| w.verb == Verb::Accept), "it is sent on");
    assert!(net.ask("c/s", CASE, Verb::Comment, &said));
    net.cut.clear();
    net.settle();
    assert_eq!((net.answers("c/s"), net.done(Verb::Comment), net.done(Verb::Accept)), (vec![], 1, 1));
}

#[test]
fn a_new_box_knows_whom_it_has_sent_on_however_much_was_asked_for_at_it_before() {
    let mut net = Net::pressed_and_accepted(OWNER, "c/s");
    let above = net.cut.clone();
    net.cut("c/s");
    net.replace("c/s", 0);
    net.settle();
    for i in 0..WISHES_MAX {
        let said = Ask { text: Some(format!("said {i}")), ..by("w", Role::Worker) };
        assert!(net.ask("c/s", CASE, Verb::Comment, &said));
    }
    net.cut = above;
    net.settle();
    let wishes = &net.held("c/s").wishes;
    assert_eq!((wishes.len(), wishes[0].verb), (WISHES_MAX, Verb::Accept), "{wishes:?}");
}

#[test]
fn a_box_that_lost_its_disk_says_so_also_when_its_empty_folder_begins_a_second_history() {
    let mut net = orders::accepted();
    net.cut("c/s/a");
    assert!(net.ask("c", CASE, Verb::Start, &by("w", Role::Worker)));
    net.settle();
    net.replace("c/s/a", 0);
    // What is below tells it of itself before it has heard from above.
    net.settle();
    net.begin_history("c/s/a");
    let unknown = net.places["c/s/a"].cases.awaited().unwrap();
    assert!(!unknown.knows_some, "{unknown:?}");
    net.cut.clear();
    net.settle();
    assert_eq!(net.held("c").history.last().unwrap().text, "the box that was here has lost its disk");
    let why = net.answers("c")[0].clone().unwrap_or_default();
    assert!(why.starts_with("c/s/a has lost its disk,"), "{why}");
    // One that had heard all, and comes with an older disk, has lost some of it.
    let backup = net.backup("c/s/a");
    assert!(net.ask("c/s/a", CASE, Verb::Comment, &by("w", Role::Worker)));
    net.settle();
    net.restore(&backup);
    assert!(net.places["c/s/a"].cases.awaited().unwrap().knows_some);
    net.settle();
    assert_eq!(net.held("c").history.last().unwrap().text, "this node had lost some of what it knew");
}
