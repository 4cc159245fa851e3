//! One case at one node: the machine alone.

use super::*;
use crate::brain::cases::machine::Asker;
use citybrain_shared::case::CALL_BACK;
use citybrain_shared::config::cases::{Limit, Missed};

/// One node's machine, without records: `act` until refused.
struct Desk {
    cases: Cases,
    case: Case,
    now: DateTime<Utc>,
}

impl Desk {
    fn new(category: &str) -> Desk {
        let cases = node("c/s/m");
        let now = view::time_of(START);
        let case = cases.book().open(opening("1", category), now).case;
        Desk { cases, case, now }
    }

    /// Of a call for help.
    fn pressed(category: &str) -> Desk {
        let mut desk = Desk::new(category);
        desk.case = desk.cases.book().open(Opening { sos: true, ..opening("1", category) }, desk.now).case;
        desk
    }

    fn until_closed(&mut self) -> &mut Desk {
        self.until_resolved().act(Verb::Evaluate, by("r", Role::Resident));
        self.act(Verb::Close, by("boss", Role::Supervisor))
    }

    /// Of a response: counted, kept, whose limit still runs.
    fn response(&self) -> [u64; 3] {
        let c = count(&self.case, self.now);
        [c.response_of, c.response_kept, c.response_open]
    }

    fn wait_h(&mut self, hours: i64) -> &mut Desk {
        self.now += chrono::TimeDelta::hours(hours);
        self
    }

    fn act(&mut self, verb: Verb, ask: Ask) -> &mut Desk {
        let all = self.try_act(verb, &ask).unwrap_or_else(|e| panic!("{verb}: {e:?}"));
        self.case = all[0].case.clone();
        self
    }

    fn try_act(&self, verb: Verb, ask: &Ask) -> Result<Vec<Stepped>, Refusal> {
        let asker = Asker { at: &a("c/s/m"), opened_it: ask.by == "opener", takes_back: false };
        self.cases.book().act(&self.case, verb, ask, asker, &|_| None, self.now)
    }

    fn error(&self, verb: Verb, ask: Ask) -> &'static str {
        self.try_act(verb, &ask).unwrap_err().error
    }

    fn until_resolved(&mut self) -> &mut Desk {
        self.act(Verb::Accept, by("w", Role::Worker));
        self.act(Verb::Dispatch, by("w", Role::Worker));
        self.act(Verb::Start, by("h", Role::Worker));
        self.act(Verb::Resolve, by("h", Role::Worker))
    }

    fn due(&self, clock: &str) -> String {
        let due = self.case.clock(clock).unwrap().due.unwrap() + chrono::TimeDelta::hours(8);
        due.format("%a %H:%M").to_string()
    }
}

#[test]
fn the_whole_way_has_its_order_and_a_refusal_names_what_is_allowed() {
    let mut d = Desk::new("L");
    let refusal = d.try_act(Verb::Start, &by("h", Role::Worker)).unwrap_err();
    assert_eq!(refusal.error, "not-now");
    assert_eq!(refusal.hint, "it takes accept, reject, contact, escalate, merge, comment", "what is for him");
    let refusal = d.try_act(Verb::Start, &by("boss", Role::Supervisor)).unwrap_err();
    assert!(refusal.hint.ends_with("escalate, withdraw, merge, comment, forget, exclude"), "{}", refusal.hint);
    d.until_resolved();
    assert_eq!(d.error(Verb::Close, by("boss", Role::Supervisor)), "not-now");
    d.act(Verb::Verify, Ask { passed: Some(true), ..by("boss", Role::Supervisor) });
    d.act(Verb::Close, by("boss", Role::Supervisor));
    assert_eq!((d.case.status, d.case.closed_reason), (Status::Closed, Some(ClosedReason::Solved)));
    assert_eq!((d.case.version, d.case.term), (7, 1));
    // The resident may still say otherwise, and only he decides the rate.
    d.act(Verb::Evaluate, Ask { solved: Some(Solved::Unsolved), ..by("r", Role::Resident) });
    assert_eq!((d.case.status, count(&d.case, d.now).unsolved), (Status::Closed, 1));
    assert_eq!(d.case.outcome.as_ref().unwrap().solved, Solved::Solved);
}

#[test]
fn who_handles_may_not_verify_evaluate_or_close() {
    let mut d = Desk::new("L");
    d.until_resolved();
    for (verb, ask) in [
        (Verb::Verify, Ask { passed: Some(true), ..by("h", Role::Supervisor) }),
        (Verb::Evaluate, by("h", Role::Supervisor)),
    ] {
        assert_eq!(d.error(verb, ask), "handler");
    }
    d.act(Verb::Evaluate, by("r", Role::Resident));
    assert_eq!(d.error(Verb::Close, by("h", Role::Supervisor)), "handler");
    assert_eq!(d.error(Verb::Close, by(" h ", Role::Supervisor)), "handler", "blanks make no other person");
    let long = "名".repeat(200);
    assert_eq!(d.error(Verb::Close, by("boss", Role::Worker)), "not-your-role");
    d.act(Verb::Close, by("boss", Role::Supervisor));
    d.act(Verb::Reopen, by("r", Role::Resident)).act(Verb::Dispatch, by("w", Role::Worker));
    d.act(Verb::Start, by(&long, Role::Worker)).act(Verb::Resolve, by(&long, Role::Worker));
    assert_eq!(d.error(Verb::Evaluate, by(&long, Role::Supervisor)), "handler");
}

#[test]
fn where_a_case_stands_is_told_in_others_words_through_rework_and_reopening() {
    let mut d = Desk::new("G");
    let words = |d: &Desk| {
        let w = d.case.words();
        (w.step, w.urban, w.hotline, w.open311, w.update)
    };
    let is = |d: &Desk, step: u8, urban: &str, hotline: &str, update: &str| {
        let open = if step == 7 { "closed" } else { "open" };
        assert_eq!(words(d), (step, urban.into(), hotline.into(), open.into(), update.into()));
    };
    is(&d, 1, "信息收集", "受理", "open");
    d.act(Verb::Accept, by("w", Role::Worker));
    is(&d, 2, "案卷建立", "登记", "investigating");
    d.act(Verb::Dispatch, by("w", Role::Worker)).act(Verb::Return, by("h", Role::Worker));
    is(&d, 2, "案卷建立（退回）", "退单", "for_triage");
    d.act(Verb::Dispatch, by("w", Role::Worker));
    is(&d, 3, "任务派遣", "派单", "in_progress");
    d.act(Verb::Start, by("h", Role::Worker));
    is(&d, 4, "任务处理", "办理", "in_progress");
    d.act(Verb::Assist, Ask { unit: Some("消防".into()), ..by("w", Role::Worker) });
    is(&d, 4, "任务处理", "办理（协办）", "in_progress");
    d.act(Verb::Report, by("x", Role::Worker));
    is(&d, 4, "任务处理", "办理", "in_progress");
    d.act(Verb::Resolve, by("h", Role::Worker));
    is(&d, 5, "处理反馈", "答复", "fixed");
    d.act(Verb::Verify, Ask { passed: Some(false), ..by("boss", Role::Supervisor) });
    is(&d, 4, "任务处理（返工）", "重办", "reopen");
    d.act(Verb::Resolve, by("h", Role::Worker)).act(Verb::Evaluate, by("r", Role::Resident));
    is(&d, 6, "核实结案", "回访", "fixed");
    d.act(Verb::Close, by("boss", Role::Supervisor));
    is(&d, 7, "综合评价", "办结", "fixed");
    d.act(Verb::Reopen, by("r", Role::Resident));
    is(&d, 2, "案卷建立", "重办", "reopen");
}

#[test]
fn who_has_watched_a_case_that_was_reopened_or_taken_over_watches_it_no_more() {
    let mut d = Desk::new("L");
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Escalate, by("w", Role::Worker));
    let words = |d: &Desk| (d.case.words().hotline, d.case.words().update);
    assert_eq!(words(&d), ("督办".into(), "internal_referral".into()));
    // The tier above takes it: nobody above that watches.
    let above = node("c/s");
    let mut taken = above.book().take(&d.case, d.now).case;
    taken.owner = a("c/s");
    assert_eq!((taken.words().hotline.as_str(), taken.standing().as_str()), ("登记", "accepted"));
    d.act(Verb::Dispatch, by("w", Role::Worker));
    assert_eq!(words(&d), ("督办".into(), "internal_referral".into()));
    d.act(Verb::Start, by("h", Role::Worker)).act(Verb::Resolve, by("h", Role::Worker));
    d.act(Verb::Evaluate, by("r", Role::Resident)).act(Verb::Close, by("boss", Role::Supervisor));
    d.act(Verb::Reopen, by("r", Role::Resident)).act(Verb::Dispatch, by("w", Role::Worker));
    assert_eq!(words(&d), ("派单".into(), "in_progress".into()));
}

#[test]
fn what_open311_does_not_show_has_no_word_there() {
    let words = Desk::pressed("L").case.words();
    assert_eq!((words.hotline.as_str(), words.open311.as_str(), words.update.as_str()), ("受理", "", ""));
    let told = serde_json::to_value(&words).unwrap();
    assert_eq!((told.get("open311"), told.get("update")), (None, None), "{told}");
    assert_eq!(Desk::new("L").case.words().open311, "open");
}

#[test]
fn what_belongs_to_110_119_or_120_is_rejected_as_passed_on() {
    let mut d = Desk::new("L");
    let ask = Ask { reason: Some(ClosedReason::Emergency), ..by("w", Role::Worker) };
    d.act(Verb::Reject, ask);
    let words = d.case.words();
    assert_eq!((words.step, words.hotline.as_str(), words.open311.as_str()), (0, "转紧急", "closed"));
    assert_eq!(words.update, "not_councils_responsibility");
    let mut d = Desk::new("L");
    d.until_resolved().act(Verb::Evaluate, by("r", Role::Resident));
    let ask = Ask { reason: Some(ClosedReason::Emergency), ..by("boss", Role::Supervisor) };
    assert_eq!(d.error(Verb::Close, ask), "bad-request", "it was dealt with here");
}

#[test]
fn whoever_could_not_be_remembered_as_a_handler_does_not_handle() {
    let mut d = Desk::new("L");
    d.act(Verb::Accept, by("w", Role::Worker));
    for i in 0..64 {
        d.act(Verb::Dispatch, by("w", Role::Worker)).act(Verb::Start, by(&format!("h{i}"), Role::Worker));
    }
    d.act(Verb::Dispatch, by("w", Role::Worker));
    assert_eq!(d.error(Verb::Start, by("one more", Role::Worker)), "too-many");
    d.act(Verb::Start, by("h7", Role::Worker));
}

#[test]
fn a_form_that_an_appeal_left_open_opens_the_case_and_is_told() {
    let mut cases = node("c/s/m");
    let text = "[node]\naddress = \"c/s/m\"\ndata = \"d\"\n[[category]]\ncode = \"T\"\nname = \"树\"\n\
        form = [{ name = \"size\", label = \"多大\", required = true, choices = [\"大\", \"小\"] }, { name = \"id\", personal = true }, \
        { name = \"n\", kind = \"number\" }]\n";
    let parsed = parse(text, &Variables::new());
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    cases.own_categories = parsed.config.unwrap().category.into();
    cases.inherit();
    let appeal = |form: serde_json::Value| {
        let event = serde_json::json!({"specversion": "1.0", "id": "1", "source": "/x", "type": "city.appeal",
            "data": {"category": "树", "title": "t", "form": form}});
        let drafts = with_origin(
            &Draft::new(
                &Header::local(citybrain_shared::record::Kind::Event, "city.appeal"),
                event.to_string().as_bytes(),
            )
            .unwrap(),
            None,
            |h, p| cases.decide(&State::default(), START, h, p),
        );
        let step = letter::data::<Step>(drafts[0].parts().1).unwrap();
        let told = drafts.iter().map(|d| String::from_utf8_lossy(d.parts().1).into_owned()).collect::<String>();
        (step.case, step.entry.text, told)
    };
    let (case, note, told) = appeal(serde_json::json!({"size": "大", "id": "510", "n": 3}));
    assert_eq!((case.form["size"].as_str(), case.form["n"].as_str(), note.as_str()), ("大", "3", ""));
    assert!(case.has_contact && !case.form.contains_key("id") && told.contains("510"));
    let (case, note, _) = appeal(serde_json::json!({"n": "viele", "x": "秘密", "id": "510"}));
    assert!(case.form.is_empty());
    assert_eq!(note, "the answer to `n` is none; `x` is not asked; `多大` was not answered");
    assert_eq!(appeal(serde_json::json!("none")).1, "`多大` was not answered");
}

#[test]
fn clocks_start_stop_pause_and_are_extended_in_working_time() {
    let mut d = Desk::new("G");
    // 10:00 on a Friday: handed up at once is not the case here, the node is the tier itself.
    assert_eq!(d.due("response"), "Fri 12:00");
    d.act(Verb::Accept, by("w", Role::Worker));
    assert_eq!(d.due("dispatch"), "Fri 11:00");
    d.act(Verb::Dispatch, by("w", Role::Worker));
    assert_eq!(d.due("solution"), "Fri 15:00");
    d.act(Verb::Start, by("h", Role::Worker));
    assert!(d.case.clock("response").unwrap().is_kept());
    let approved =
        |by_: &str| Ask { approved_by: Some(by_.into()), limit: Some("1wd".into()), ..by("h", Role::Worker) };
    assert_eq!(d.error(Verb::Suspend, approved("h")), "own-approval");
    d.wait_h(1).act(Verb::Suspend, approved("boss"));
    assert_eq!(d.error(Verb::Resolve, by("h", Role::Worker)), "not-now");
    // Three working hours are left; on Monday at 11:00 they begin to run again.
    d.wait_h(3 * 24).act(Verb::Resume, by("h", Role::Worker));
    assert_eq!(d.due("solution"), "Mon 15:00");
    assert_eq!(d.error(Verb::Suspend, approved("boss")), "not-now");
    d.act(Verb::Extend, approved("boss"));
    assert_eq!(d.due("solution"), "Tue 15:00");
    assert_eq!(d.case.clock("solution").unwrap().limit, "4wh+1wd");
    assert_eq!(d.error(Verb::Extend, approved("boss")), "not-now");
    d.wait_h(2 * 24).act(Verb::Resolve, by("h", Role::Worker));
    let clock = d.case.clock("solution").unwrap();
    assert!(!clock.is_kept() && clock.stopped.is_some());
}

#[test]
fn a_response_needs_a_signature_and_a_call_where_there_is_somebody_to_call() {
    let mut d = Desk::new("G");
    d.case.has_contact = true;
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, by("w", Role::Worker));
    d.act(Verb::Start, by("h", Role::Worker));
    assert!(d.case.clock("response").unwrap().runs());
    d.wait_h(3).act(Verb::Contact, by("h", Role::Worker));
    let counts = count(&d.case, d.now);
    assert_eq!((counts.response_of, counts.response_kept), (1, 0), "called an hour too late");
}

#[test]
fn whoever_closes_without_a_word_to_the_resident_has_not_responded() {
    let mut d = Desk::new("G");
    d.case.has_contact = true;
    d.until_resolved();
    d.act(Verb::Verify, Ask { passed: Some(true), ..by("boss", Role::Supervisor) });
    d.act(Verb::Close, by("boss", Role::Supervisor));
    let counts = count(&d.case, d.now);
    assert_eq!((counts.closed, counts.response_of, counts.response_kept, counts.response_open), (1, 1, 0, 0));
}

#[test]
fn nobody_takes_a_case_out_of_the_rates_alone() {
    let mut d = Desk::new("L");
    let reason = |reason| Ask { reason: Some(reason), ..by("boss", Role::Supervisor) };
    for wrong in [ClosedReason::Solved, ClosedReason::Duplicate, ClosedReason::Withdrawn] {
        assert_eq!(d.error(Verb::Reject, reason(wrong)), "bad-request", "{wrong}");
    }
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, by("w", Role::Worker));
    d.act(Verb::Start, by("h", Role::Worker)).act(Verb::Return, by("h", Role::Worker));
    assert_eq!(d.error(Verb::Reject, by("h", Role::Worker)), "handler");
    let into = Ask { into: Some("2".into()), ..by("h", Role::Worker) };
    assert_eq!(d.error(Verb::Merge, into), "handler");
    d.act(Verb::Dispatch, by("w", Role::Worker)).act(Verb::Start, by("h", Role::Worker));
    d.act(Verb::Resolve, by("h", Role::Worker)).act(Verb::Evaluate, by("r", Role::Resident));
    for wrong in [ClosedReason::Duplicate, ClosedReason::Withdrawn] {
        assert_eq!(d.error(Verb::Close, reason(wrong)), "bad-request", "{wrong}");
    }
    d.act(Verb::Close, reason(ClosedReason::Refused));
    assert_eq!(count(&d.case, d.now).closed, 1);
    assert!(allowed(&d.case).contains(&Verb::Evaluate) && allowed(&d.case).contains(&Verb::Reopen));
}

#[test]
fn whoever_opened_a_case_for_somebody_takes_it_back_until_it_is_dispatched_and_no_other_worker_does() {
    let withdraw = |by_whom| by(by_whom, Role::Worker);
    let mut d = Desk::new("L");
    assert_eq!(d.error(Verb::Withdraw, withdraw("w")), "not-your-role");
    d.act(Verb::Accept, by("w", Role::Worker));
    assert!(d.try_act(Verb::Withdraw, &withdraw("opener")).is_ok(), "accepted, and nobody works on it");
    // No other step for residents is his.
    for verb in [Verb::Evaluate, Verb::Reopen, Verb::Close, Verb::Verify] {
        assert!(d.try_act(verb, &by("opener", Role::Worker)).is_err(), "{verb}");
    }
    let mut begun = Desk { cases: node("c/s/m"), case: d.case.clone(), now: d.now };
    d.act(Verb::Withdraw, withdraw("opener"));
    assert_eq!((d.case.status, d.case.closed_reason), (Status::Withdrawn, Some(ClosedReason::Withdrawn)));
    begun.act(Verb::Dispatch, by("w", Role::Worker));
    assert_eq!(begun.error(Verb::Withdraw, withdraw("opener")), "not-your-role");
    // Returned it is counted all the same.
    begun.act(Verb::Return, by("h", Role::Worker));
    assert_eq!(
        (begun.case.status, begun.error(Verb::Withdraw, withdraw("opener"))),
        (Status::Accepted, "not-your-role")
    );
    begun.act(Verb::Withdraw, by("r", Role::Resident));
}

#[test]
fn an_evaluation_says_something_and_a_refusal_names_no_resident() {
    let mut d = Desk::new("L");
    let refusal = d.try_act(Verb::Accept, &by("王大妈", Role::Resident)).unwrap_err();
    assert!(!refusal.detail.contains("王大妈"), "{}", refusal.detail);
    d.until_resolved();
    let not_yet = count(&d.case, d.now);
    assert_eq!((not_yet.unanswered, not_yet.asked_in_vain), (1, 0));
    assert_eq!(d.error(Verb::Evaluate, Ask { text: None, ..by("boss", Role::Supervisor) }), "missing");
    d.act(Verb::Evaluate, Ask { text: Some("三次无人接听".into()), ..by("boss", Role::Supervisor) });
    let asked = count(&d.case, d.now);
    assert_eq!((d.case.status, asked.unanswered, asked.asked_in_vain), (Status::Evaluated, 1, 1));
}

#[test]
fn a_clock_that_was_extended_in_another_kind_of_time_keeps_what_was_left() {
    let mut d = Desk::new("G");
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, by("w", Role::Worker));
    let more = Ask { limit: Some("24h".into()), approved_by: Some("boss".into()), ..by("h", Role::Worker) };
    // 4 working hours from Friday 10:00 are over at 15:00, and with 24 hours more on Saturday at 15:00.
    d.act(Verb::Extend, more);
    assert_eq!(d.due("solution"), "Sat 15:00");
    d.wait_h(23);
    d.act(Verb::Suspend, Ask { approved_by: Some("boss".into()), ..by("h", Role::Worker) });
    d.wait_h(10).act(Verb::Resume, by("h", Role::Worker));
    assert_eq!(d.due("solution"), "Sun 01:00", "six hours were left");
}

#[test]
fn what_the_resident_has_said_stays_where_nothing_else_is_said() {
    let mut d = Desk::new("L");
    d.until_resolved();
    let said = Ask { solved: Some(Solved::Unsolved), satisfied: Some(Satisfied::No), ..by("r", Role::Resident) };
    d.act(Verb::Evaluate, said);
    assert_eq!(d.error(Verb::Evaluate, Ask { text: None, ..by("boss", Role::Supervisor) }), "missing");
    d.act(Verb::Evaluate, Ask { solved: Some(Solved::Solved), text: None, ..by("r", Role::Resident) });
    let verdict = d.case.verdict.clone().unwrap();
    assert_eq!((verdict.solved, verdict.satisfied), (Some(Solved::Solved), Some(Satisfied::No)));
    assert_eq!((verdict.by.as_str(), verdict.text.as_str()), ("resident", ""), "`t` was said of the other answer");
}

#[test]
fn of_a_round_the_residents_last_word_counts_beside_what_others_have_noted_since() {
    let says = |solved, who: Ask| Ask { solved: Some(solved), ..who };
    let (resident, boss) = (|| by("r", Role::Resident), || by("boss", Role::Supervisor));
    for (last, counted) in [(Solved::Unsolved, (1, 1)), (Solved::Solved, (1, 0))] {
        let mut d = Desk::new("L");
        d.until_resolved();
        // However often the two take turns, it is one round.
        for _ in 0..3 {
            d.act(Verb::Evaluate, says(Solved::Unsolved, resident()));
            d.act(Verb::Evaluate, says(Solved::Solved, boss()));
        }
        d.act(Verb::Evaluate, says(last, resident()));
        let said = |d: &Desk| (count(&d.case, d.now).solved, count(&d.case, d.now).unsolved);
        assert_eq!(said(&d), counted);
        d.act(Verb::Close, boss()).act(Verb::Reopen, resident());
        assert_eq!(said(&d), counted, "both stay counted with their round");
    }
}

#[test]
fn what_somebody_adds_to_a_residents_word_is_no_word_of_the_residents() {
    let mut d = Desk::new("L");
    d.until_resolved();
    d.act(Verb::Evaluate, Ask { solved: Some(Solved::Solved), ..by("r", Role::Resident) });
    d.act(Verb::Evaluate, Ask { satisfied: Some(Satisfied::Yes), ..by("boss", Role::Supervisor) });
    let noted = d.case.verdict.clone().unwrap();
    assert_eq!((noted.satisfied, noted.is_residents), (Some(Satisfied::Yes), false));
    let said = |d: &Desk| {
        let c = count(&d.case, d.now);
        [c.solved, c.unanswered, c.satisfied, c.dissatisfied]
    };
    assert_eq!(said(&d), [1, 0, 1, 0]);
    d.act(Verb::Evaluate, Ask { satisfied: Some(Satisfied::No), ..by("r", Role::Resident) });
    assert_eq!(said(&d), [1, 0, 1, 1], "where they differ both count");
    d.act(Verb::Close, by("boss", Role::Supervisor));
    assert_eq!(d.case.closed_reason, Some(ClosedReason::Solved));
}

#[test]
fn a_residents_first_word_takes_the_place_of_what_others_noted_before_it() {
    let mut d = Desk::new("L");
    d.until_resolved();
    let noted = Ask { solved: Some(Solved::Solved), satisfied: Some(Satisfied::Yes), ..by("boss", Role::Supervisor) };
    d.act(Verb::Evaluate, noted);
    d.act(Verb::Evaluate, Ask { solved: Some(Solved::Unsolved), ..by("r", Role::Resident) });
    let c = count(&d.case, d.now);
    assert_eq!([c.solved, c.unsolved, c.satisfied], [0, 1, 1], "what he was not asked stays as it was noted");
    // Also where he spoke of the other question in between.
    let mut d = Desk::new("L");
    d.until_resolved();
    d.act(Verb::Evaluate, Ask { solved: Some(Solved::Solved), ..by("boss", Role::Supervisor) });
    d.wait_h(1).act(Verb::Evaluate, Ask { satisfied: Some(Satisfied::No), ..by("r", Role::Resident) });
    d.wait_h(1).act(Verb::Evaluate, Ask { solved: Some(Solved::Unsolved), ..by("r", Role::Resident) });
    let c = count(&d.case, d.now);
    assert_eq!([c.solved, c.unsolved, c.dissatisfied], [0, 1, 1]);
}

#[test]
fn a_failed_check_is_rework_and_a_return_starts_the_dispatch_clock_again() {
    let mut d = Desk::new("G");
    d.until_resolved().wait_h(1);
    d.act(Verb::Verify, Ask { passed: Some(false), ..by("boss", Role::Supervisor) });
    assert_eq!((d.case.status, d.case.reworks), (Status::Handling, 1));
    assert!(d.case.clock("solution").unwrap().runs());
    d.act(Verb::Return, by("h", Role::Worker));
    assert_eq!((d.case.status, d.case.returns), (Status::Accepted, 1));
    assert!(d.case.clock("dispatch").unwrap().runs() && d.case.clock("solution").unwrap().stopped.is_some());
    let empty = Ask { text: None, ..by("h", Role::Worker) };
    assert_eq!(d.error(Verb::Escalate, empty), "missing");
}

#[test]
fn a_case_is_reopened_in_time_and_only_in_time() {
    let mut d = Desk::new("L");
    d.until_resolved();
    d.act(Verb::Evaluate, Ask { solved: Some(Solved::Solved), ..by("r", Role::Resident) });
    d.act(Verb::Close, by("boss", Role::Supervisor));
    let closed = d.case.clone();
    d.wait_h(14 * 24).act(Verb::Reopen, by("r", Role::Resident));
    assert_eq!((d.case.status, d.case.reopened, &d.case.verdict), (Status::Accepted, 1, &None));
    let counts = count(&d.case, d.now);
    assert_eq!((counts.solved, counts.unanswered), (1, 1), "it stays counted with its round, and another begins");
    d.case = closed;
    d.wait_h(2 * 24);
    assert_eq!(d.error(Verb::Reopen, by("r", Role::Resident)), "too-late");
}

#[test]
fn summons_have_clocks_and_ratings_of_their_own() {
    let mut d = Desk::new("L");
    d.act(Verb::Accept, by("w", Role::Worker));
    let assist = |unit: &str| Ask { unit: Some(unit.into()), limit: Some("2h".into()), ..by("w", Role::Worker) };
    d.act(Verb::Assist, assist("消防")).act(Verb::Assist, assist("燃气"));
    assert_eq!(d.error(Verb::Report, by("x", Role::Worker)), "which-assist");
    d.wait_h(1).act(Verb::Report, Ask { assist: Some("a2".into()), ..by("x", Role::Worker) });
    assert!(d.case.clock("assist:a2").unwrap().is_kept() && d.case.clock("assist:a1").unwrap().runs());
    assert_eq!(
        d.error(Verb::Rate, Ask { assist: Some("a2".into()), rating: Some(9), ..by("w", Role::Worker) }),
        "bad-request"
    );
    let rate = |who: &str, role| Ask { assist: Some("a2".into()), rating: Some(4), ..by(who, role) };
    for (who, role) in [("x", Role::Worker), ("somebody", Role::Worker), ("x", Role::Supervisor)] {
        assert_eq!(d.error(Verb::Rate, rate(who, role)), "not-the-caller", "{who} did not summon it");
    }
    d.act(Verb::Rate, rate("boss", Role::Supervisor));
    assert_eq!(d.case.assists[1].rating, Some(4));
}

#[test]
fn the_only_summons_that_can_be_meant_need_not_be_named() {
    let mut d = Desk::new("L");
    d.act(Verb::Accept, by("w", Role::Worker));
    for (unit, to) in [("消防", "c/s/a"), ("燃气", "c/s/b"), ("电工", "c/s/b")] {
        d.act(Verb::Assist, Ask { unit: Some(unit.into()), to: Some(a(to)), ..by("w", Role::Worker) });
    }
    let report = |d: &Desk, at: &str, assist: Option<&str>| {
        let asker = Asker { at: &a(at), opened_it: false, takes_back: false };
        let ask = Ask { assist: assist.map(str::to_owned), ..by("x", Role::Worker) };
        d.cases.book().act(&d.case, Verb::Report, &ask, asker, &|_| None, d.now)
    };
    let rate =
        |assist: Option<&str>| Ask { assist: assist.map(str::to_owned), rating: Some(4), ..by("w", Role::Worker) };
    let meant = |stepped: Vec<Stepped>| (stepped[0].case.clone(), stepped[0].entry.to.clone().unwrap());
    // At its node the one that was summoned there; the unit's name says which of two.
    let (case, id) = meant(report(&d, "c/s/a", None).unwrap());
    assert_eq!(id, "a1");
    let several = report(&d, "c/s/b", None).unwrap_err();
    assert_eq!(
        (several.error, several.hint.as_str()),
        ("which-assist", r#"`"assist":"ID"`: one of a2 (燃气), a3 (电工)"#)
    );
    assert_eq!(report(&d, "c/s/b", Some("消防")).unwrap_err().error, "not-summoned", "it is another node's");
    d.case = case;
    // One has reported, and is the only one to rate.
    let (case, id) = meant(d.try_act(Verb::Rate, &rate(None)).unwrap());
    assert_eq!(id, "a1: 4 of 5");
    d.case = case;
    let (case, id) = meant(report(&d, "c/s/b", Some("燃气")).unwrap());
    assert_eq!(id, "a2");
    d.case = case;
    let (case, id) = meant(report(&d, "c/s/m", None).unwrap());
    assert_eq!(id, "a3", "it is the only one left");
    d.case = case;
    assert_eq!(d.error(Verb::Rate, rate(None)), "which-assist", "two are to be rated");
    // Whoever has reported for all of its own is told nothing of others' that wait.
    d.act(Verb::Assist, Ask { unit: Some("车队".into()), to: Some(a("c/s/x")), ..by("w", Role::Worker) });
    let over = |at: &str| report(&d, at, None).unwrap_err();
    assert_eq!((over("c/s/a").error, over("c/s/a").detail.as_str()), ("not-now", "a1 (消防) has reported already"));
    assert_eq!(over("c/s/b").detail, "a2 (燃气), a3 (电工) have reported already");
    assert_eq!(over("c/s/y").error, "not-summoned");
    assert_eq!(meant(d.try_act(Verb::Rate, &rate(Some("电工"))).unwrap()).1, "a3: 4 of 5");
    assert_eq!(d.error(Verb::Rate, rate(Some("环卫"))), "which-assist", "nobody of that name was summoned");
}

#[test]
fn a_handler_does_not_take_his_case_out_of_the_rates_by_withdrawing_it() {
    let mut d = Desk::new("L");
    d.until_resolved();
    assert_eq!(d.error(Verb::Withdraw, by("h", Role::Supervisor)), "handler");
    d.act(Verb::Withdraw, by("r", Role::Resident));
    assert_eq!(d.case.status, Status::Withdrawn);
}

#[test]
fn a_word_to_the_resident_after_a_case_was_reopened_is_no_response_in_time() {
    let mut d = Desk::new("G");
    d.case.has_contact = true;
    d.until_resolved().act(Verb::Verify, Ask { passed: Some(true), ..by("boss", Role::Supervisor) });
    d.act(Verb::Close, by("boss", Role::Supervisor));
    assert_eq!(count(&d.case, d.now).response_kept, 0);
    d.wait_h(72).act(Verb::Reopen, Ask { text: Some("still dark".into()), ..by("r", Role::Resident) });
    d.act(Verb::Contact, by("w", Role::Worker));
    assert_eq!((count(&d.case, d.now).response_of, count(&d.case, d.now).response_kept), (1, 0));
}

#[test]
fn a_call_for_help_that_calls_again_is_due_anew_and_its_first_answer_stays_what_counts() {
    let returned = |d: &mut Desk| {
        d.act(Verb::Dispatch, by("w", Role::Worker)).act(Verb::Return, by("h", Role::Worker));
    };
    let reopened = |d: &mut Desk| {
        d.until_closed().act(Verb::Reopen, by("r", Role::Resident));
    };
    for (late_h, kept) in [(0, 1), (3, 0)] {
        for is_reopened in [false, true] {
            let told = format!("answered after {late_h} h, reopened: {is_reopened}");
            let mut d = Desk::pressed("G");
            d.wait_h(late_h);
            if is_reopened {
                reopened(&mut d);
            } else {
                d.act(Verb::Accept, by("w", Role::Worker));
                returned(&mut d);
            }
            assert_eq!((d.case.status, &d.case.accepted_by), (Status::Submitted, &None), "{told}");
            let (clock, at) = d.case.due().unwrap();
            assert_eq!((clock.name.as_str(), at), ("response", d.now + chrono::TimeDelta::hours(2)), "{told}");
            assert_eq!(d.response(), [1, kept, 0], "{told}");
            d.wait_h(3);
            assert!(d.case.is_overdue(d.now), "{told}");
            let missed = d.cases.book().timer(&d.case, "response", d.now);
            assert_eq!(missed.entry.calls, [a("c/s")], "{told}");
            d.case = missed.case;
            assert_eq!(d.response(), [1, kept, 0], "{told}");
            // Whoever has accepted it then is no answer if he does not come.
            d.act(Verb::Accept, by("x", Role::Worker));
            assert!(!d.case.is_overdue(d.now), "{told}");
            let asker = Asker { at: &a("c/s/m"), opened_it: false, takes_back: true };
            let ask = by("x", Role::Worker);
            d.case =
                d.cases.book().act(&d.case, Verb::Escalate, &ask, asker, &|_| None, d.now).unwrap()[0].case.clone();
            assert!(d.case.is_overdue(d.now), "{told}");
            d.act(Verb::Accept, by("w", Role::Worker));
            returned(&mut d);
            d.wait_h(1).act(Verb::Accept, by("w", Role::Worker));
            assert_eq!(d.response(), [1, kept, 0], "in time, and not the first time: {told}");
        }
    }
}

#[test]
fn a_call_for_help_that_nobody_has_answered_is_due_as_it_was_though_it_is_returned() {
    let mut d = Desk::pressed("G");
    d.case.has_contact = true;
    let due = d.case.clock("response").unwrap().due;
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, by("w", Role::Worker));
    d.wait_h(1).act(Verb::Return, by("h", Role::Worker));
    assert_eq!((d.case.clock("response").unwrap().due, d.response()), (due, [1, 0, 1]));
    d.act(Verb::Contact, by("w", Role::Worker));
    assert!(d.case.clock("response").unwrap().runs(), "nobody comes");
    d.act(Verb::Accept, by("w", Role::Worker));
    assert_eq!(d.response(), [1, 1, 0]);
}

#[test]
fn a_call_for_help_that_was_closed_without_a_word_to_the_resident_was_not_answered_in_time_whatever_comes_then() {
    let mut d = Desk::pressed("G");
    d.case.has_contact = true;
    d.until_closed();
    d.wait_h(3).act(Verb::Reopen, by("r", Role::Resident));
    d.act(Verb::Accept, Ask { contacted: true, ..by("w", Role::Worker) });
    assert!(d.case.clock("response").unwrap().is_kept(), "by the new limit");
    assert_eq!(d.response(), [1, 0, 0]);
}

#[test]
fn a_limit_that_was_missed_is_known_though_its_clock_began_anew() {
    let mut d = Desk::new("G");
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, by("w", Role::Worker));
    d.wait_h(24 * 30);
    d.case = d.cases.book().timer(&d.case, "solution", d.now).case;
    d.act(Verb::Return, by("h", Role::Worker)).act(Verb::Dispatch, by("w", Role::Worker));
    assert!(d.case.clock("solution").unwrap().missed.is_none() && d.case.was_late());
}

#[test]
fn a_line_of_history_keeps_what_shows_it_and_no_more_than_it_has_room_for() {
    let mut d = Desk::new("G");
    let photo = || vec!["photo=https://e.example/1.jpg".to_owned()];
    let stepped = d.try_act(Verb::Comment, &Ask { evidence: photo(), ..by("w", Role::Worker) }).unwrap();
    assert_eq!(stepped[0].entry.evidence, photo());
    assert_eq!(
        d.error(Verb::Comment, Ask { evidence: vec![photo()[0].clone(); 9], ..by("w", Role::Worker) }),
        "too-many"
    );
    d.until_resolved();
}

#[test]
fn a_missed_limit_calls_whoever_watches_above_the_owner_and_the_top_again() {
    let cases = node("c/s/m");
    let book = cases.book();
    let mut case = book.open(opening("1", "G"), view::time_of(START)).case;
    let missed = |case: &Case| book.timer(case, "response", view::time_of(START)).entry;
    assert_eq!(missed(&case).calls, [a("c/s")]);
    case.escalated_to = Some(a("c"));
    assert_eq!((missed(&case).calls, missed(&case).step), (vec![a("c")], "escalated".into()));
    case.escalated_to = Some(a("c/x"));
    assert_eq!(missed(&case).calls, [a("c/s")], "it came from another branch");
}

#[test]
fn a_clock_that_was_far_ahead_leaves_no_limits_of_its_own() {
    let mut d = Desk::new("G");
    let right = d.now;
    d.wait_h(24 * 365).act(Verb::Comment, by("w", Role::Worker));
    d.now = right;
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, by("w", Role::Worker));
    assert!(d.case.clock("solution").unwrap().due.unwrap() < right + chrono::TimeDelta::days(60));
    d.now -= chrono::TimeDelta::minutes(5);
    let before = d.case.changed;
    d.act(Verb::Start, by("h", Role::Worker));
    assert_eq!(d.case.changed, before, "an adjustment makes no history that runs backwards");
}

#[test]
fn no_step_of_one_person_takes_a_residents_word_out_of_the_rates() {
    let no = Ask { solved: Some(Solved::Unsolved), satisfied: Some(Satisfied::No), ..by("r", Role::Resident) };
    let mut d = Desk::new("L");
    d.until_resolved().act(Verb::Evaluate, no);
    d.act(Verb::Close, by("boss", Role::Supervisor)).act(Verb::Reopen, by("boss", Role::Supervisor));
    let said = |d: &Desk| {
        let c = count(&d.case, d.now);
        (c.solved, c.unsolved, c.satisfied, c.dissatisfied, c.unanswered)
    };
    assert_eq!(said(&d), (0, 1, 0, 1, 1));
    let reopened = d.case.clone();
    for (verb, ask) in [(Verb::Withdraw, by("boss", Role::Supervisor)), (Verb::Reject, by("boss", Role::Supervisor))] {
        d.act(verb, ask);
        assert_eq!(said(&d), (0, 1, 0, 1, 0), "{verb}");
        d.case = reopened.clone();
    }
    // Done again and nobody asked: closed by a check.
    d.act(Verb::Dispatch, by("w", Role::Worker)).act(Verb::Start, by("h", Role::Worker));
    d.act(Verb::Resolve, by("h", Role::Worker));
    d.act(Verb::Verify, Ask { passed: Some(true), ..by("boss", Role::Supervisor) });
    d.act(Verb::Close, by("boss", Role::Supervisor));
    assert_eq!(said(&d), (0, 1, 0, 1, 1));
    // What is said of the second round counts beside it, and the last word of a round is that round's.
    for solved in [Solved::Partly, Solved::Solved] {
        let yes = Ask { solved: Some(solved), satisfied: Some(Satisfied::Yes), ..by("r", Role::Resident) };
        d.act(Verb::Evaluate, yes);
    }
    assert_eq!(said(&d), (1, 1, 1, 1, 0));
    d.act(Verb::Exclude, Ask { approved_by: Some("two".into()), ..by("boss", Role::Supervisor) });
    assert_eq!((said(&d), count(&d.case, d.now).excluded), ((0, 0, 0, 0, 0), 1), "that needs two");
}

#[test]
fn a_name_written_otherwise_is_no_other_person() {
    let mut d = Desk::new("L");
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, by("w", Role::Worker));
    d.act(Verb::Start, by("Bob Li", Role::Worker)).act(Verb::Resolve, by("bob li", Role::Worker));
    assert_eq!(d.case.handlers, ["Bob Li"]);
    for same in ["bob li", " BOB  LI ", "ＢｏｂLi"] {
        assert_eq!(
            d.error(Verb::Verify, Ask { passed: Some(true), ..by(same, Role::Supervisor) }),
            "handler",
            "{same}"
        );
        let own = Ask { approved_by: Some(same.into()), ..by("Bob Li", Role::Supervisor) };
        assert_eq!(d.error(Verb::Exclude, own), "own-approval", "{same}");
    }
}

#[test]
fn that_the_resident_was_called_is_a_line_and_no_response_is_told_as_none() {
    let mut d = Desk::new("G");
    d.case.has_contact = true;
    let line = d.try_act(Verb::Accept, &Ask { contacted: true, ..by("w", Role::Worker) }).unwrap();
    assert_eq!(line[0].entry.to.as_deref(), Some("the resident was called"));
    d.act(Verb::Withdraw, by("boss", Role::Supervisor));
    assert!(d.case.clock("response").unwrap().stopped.is_some() && d.case.responded().is_none());
}

#[test]
fn what_must_be_shown_is_something_that_can_be_looked_at() {
    let mut cases = node("c/s/m");
    let text =
        "[node]\naddress = \"c/s/m\"\ndata = \"d\"\n[[category]]\ncode = \"G\"\nname = \"g\"\nevidence = [\"photo\"]\n";
    cases.own_categories = parse(text, &Variables::new()).config.unwrap().category.into();
    cases.inherit();
    let mut d = Desk {
        case: cases.book().open(opening("1", "G"), view::time_of(START)).case,
        now: view::time_of(START),
        cases,
    };
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, by("w", Role::Worker));
    d.act(Verb::Start, by("h", Role::Worker));
    let with = |e: &str| Ask { evidence: vec![e.into()], ..by("h", Role::Worker) };
    for none in ["photo=notaurl", "photo=https://", "photo=https://a b", "other=https://p.example/1.jpg"] {
        assert_eq!(d.error(Verb::Resolve, with(none)), "no-evidence", "{none}");
    }
    d.act(Verb::Resolve, with("photo=https://p.example/1.jpg"));
}

#[test]
fn nobody_elses_word_takes_a_residents_place_and_what_adds_to_it_is_no_second_one() {
    let said = |solved, satisfied, who: &str, role| Ask { solved, satisfied, ..by(who, role) };
    let counts = |d: &Desk| {
        let c = count(&d.case, d.now);
        (c.solved, c.unsolved, c.satisfied, c.dissatisfied, c.unanswered)
    };
    let mut d = Desk::new("L");
    d.until_resolved();
    d.act(Verb::Evaluate, said(Some(Solved::Unsolved), None, "open311:app", Role::Resident));
    // On the telephone she says the same, and how she was treated.
    d.act(Verb::Evaluate, said(Some(Solved::Unsolved), Some(Satisfied::No), "boss", Role::Supervisor));
    assert_eq!(counts(&d), (0, 1, 0, 1, 0));
    for _ in 0..3 {
        d.act(Verb::Evaluate, said(Some(Solved::Solved), Some(Satisfied::Yes), "boss", Role::Supervisor));
        assert_eq!(counts(&d), (1, 1, 1, 0, 0), "both count, and each once; what he noted himself gives way");
    }
    // She herself may say otherwise, in place of her own word.
    let mut d = Desk::new("L");
    d.until_resolved();
    d.act(Verb::Evaluate, said(Some(Solved::Unsolved), None, "r", Role::Resident));
    d.act(Verb::Evaluate, said(Some(Solved::Solved), None, "r", Role::Resident));
    assert_eq!(counts(&d), (1, 0, 0, 0, 0));
}

#[test]
fn neither_the_unit_that_handles_nor_a_summoned_one_that_reported_may_verify_or_close() {
    let mut d = Desk::new("L");
    let unit = |name: &str| Ask { unit: Some(name.into()), ..by("w", Role::Worker) };
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, unit("绿化所"));
    d.act(Verb::Start, by("老钱", Role::Worker)).act(Verb::Dispatch, unit("环卫所"));
    d.act(Verb::Assist, unit("消防")).act(Verb::Report, by("消防队长", Role::Worker));
    d.act(Verb::Start, by("老赵", Role::Worker)).act(Verb::Resolve, by("老赵", Role::Worker));
    for who in ["环卫所", "绿化所", "消防队长", "老钱", "老赵"] {
        let ask = Ask { passed: Some(true), ..by(who, Role::Supervisor) };
        assert_eq!(d.try_act(Verb::Verify, &ask).err().map(|e| e.error), Some("handler"), "{who}");
    }
    d.act(Verb::Verify, Ask { passed: Some(true), ..by("boss", Role::Supervisor) });
    assert_eq!(d.error(Verb::Close, by("环卫所", Role::Supervisor)), "handler");
}

#[test]
fn a_limit_that_is_missed_where_nobody_is_above_calls_those_of_the_node_itself() {
    let cases = node("c");
    let book = cases.book();
    let case = book.open(opening("1", "L"), view::time_of(START)).case;
    let missed = book.timer(&case, "solution", view::time_of(START)).entry;
    assert_eq!((missed.step.as_str(), missed.calls), ("missed", vec![a("c")]));
}

#[test]
fn fixed_is_told_only_where_neither_handler_nor_resident_says_that_it_is_not() {
    let mut d = Desk::new("L");
    let word = |d: &Desk| d.case.words().update;
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, by("w", Role::Worker));
    d.act(Verb::Start, by("h", Role::Worker));
    d.act(Verb::Resolve, Ask { solved: Some(Solved::Unsolved), ..by("h", Role::Worker) });
    assert_eq!(word(&d), "in_progress");
    let mut d = Desk::new("L");
    d.until_resolved();
    assert_eq!((word(&d), d.case.words().step), ("fixed".into(), 5));
    d.act(Verb::Verify, Ask { passed: Some(true), ..by("boss", Role::Supervisor) });
    assert_eq!((word(&d), d.case.words().step, d.case.words().urban), ("fixed".into(), 6, "核实结案".into()));
    d.act(Verb::Evaluate, Ask { solved: Some(Solved::Unsolved), ..by("r", Role::Resident) });
    assert_eq!((d.case.status, word(&d).as_str()), (Status::Evaluated, "in_progress"));
    // What somebody else notes is no word of the resident's.
    let mut d = Desk::new("L");
    d.until_resolved();
    d.act(Verb::Evaluate, Ask { solved: Some(Solved::Unsolved), ..by("boss", Role::Supervisor) });
    assert_eq!(word(&d), "fixed");
}

#[test]
fn what_was_said_of_an_answer_that_did_not_stand_is_counted_and_is_no_word_on_the_next_one() {
    let mut d = Desk::new("L");
    let word = |d: &Desk| d.case.words().update;
    let checked = |passed| Ask { passed: Some(passed), ..by("boss", Role::Supervisor) };
    d.until_resolved().act(Verb::Evaluate, Ask { solved: Some(Solved::Unsolved), ..by("r", Role::Resident) });
    d.act(Verb::Verify, checked(false));
    assert_eq!((d.case.said_solved(), d.case.judged().unsolved), (None, 1));
    d.act(Verb::Resolve, by("h", Role::Worker));
    assert_eq!(word(&d), "fixed");
    d.act(Verb::Verify, checked(true)).act(Verb::Close, by("boss", Role::Supervisor));
    assert_eq!((d.case.closed_reason, word(&d).as_str()), (Some(ClosedReason::Solved), "fixed"));
    assert_eq!(count(&d.case, d.now).unsolved, 1);
    // He may say of the new answer what he likes, and both count.
    d.act(Verb::Evaluate, Ask { solved: Some(Solved::Solved), ..by("r", Role::Resident) });
    assert_eq!((d.case.judged().solved, d.case.judged().unsolved), (1, 1));
}

#[test]
fn a_case_is_fixed_by_the_residents_word_or_else_the_handlers_whatever_it_was_closed_as() {
    let says = |solved| Ask { solved: Some(solved), ..by("r", Role::Resident) };
    let close = || Ask { reason: Some(ClosedReason::Solved), ..by("boss", Role::Supervisor) };
    let checked = || Ask { passed: Some(true), ..by("boss", Role::Supervisor) };
    let words = |d: &Desk| (d.case.words().open311, d.case.words().update);
    let closed = |word: &str| ("closed".to_owned(), word.to_owned());
    let mut d = Desk::new("L");
    d.until_resolved().act(Verb::Evaluate, says(Solved::Unsolved)).act(Verb::Close, close());
    assert_eq!(words(&d), closed("no_further_action"), "he said so before it was closed");
    let mut d = Desk::new("L");
    d.until_resolved().act(Verb::Verify, checked()).act(Verb::Close, close());
    assert_eq!(words(&d), closed("fixed"));
    d.act(Verb::Evaluate, says(Solved::Unsolved));
    assert_eq!(words(&d), closed("no_further_action"), "or afterwards");
    // The handler himself says that it is not.
    let mut d = Desk::new("L");
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, by("w", Role::Worker));
    d.act(Verb::Start, by("h", Role::Worker));
    d.act(Verb::Resolve, Ask { solved: Some(Solved::Unsolved), ..by("h", Role::Worker) });
    d.act(Verb::Verify, checked()).act(Verb::Close, close());
    assert_eq!(words(&d), closed("no_further_action"));
    d.act(Verb::Evaluate, says(Solved::Solved));
    assert_eq!(words(&d), closed("fixed"), "and the resident that it is, who knows best");
    // Closed as unsolved it is fixed by the resident's own word, and by no handler's.
    let unsolved = || Ask { reason: Some(ClosedReason::Unsolved), ..by("boss", Role::Supervisor) };
    let mut d = Desk::new("L");
    d.until_resolved().act(Verb::Verify, checked()).act(Verb::Close, unsolved());
    assert_eq!(words(&d), closed("no_further_action"));
    d.act(Verb::Evaluate, says(Solved::Solved));
    assert_eq!(words(&d), closed("fixed"));
    // Partly is not fixed, whoever says it.
    let mut d = Desk::new("L");
    d.until_resolved().act(Verb::Evaluate, says(Solved::Partly));
    assert_eq!(words(&d), ("open".to_owned(), "in_progress".to_owned()));
    d.act(Verb::Close, close());
    assert_eq!(words(&d), closed("no_further_action"));
}

#[test]
fn what_is_rejected_is_not_ours_only_where_that_is_why() {
    let by_reason = [
        (ClosedReason::NotOurs, "不予受理", "not_councils_responsibility"),
        (ClosedReason::Emergency, "转紧急", "not_councils_responsibility"),
        (ClosedReason::Refused, "不予受理", "no_further_action"),
    ];
    for (reason, hotline, update) in by_reason {
        let mut d = Desk::new("L");
        d.act(Verb::Reject, Ask { reason: Some(reason), ..by("w", Role::Worker) });
        let words = d.case.words();
        assert_eq!((words.hotline.as_str(), words.update.as_str()), (hotline, update), "{reason}");
    }
}

#[test]
fn what_waits_or_is_watched_is_told_so_wherever_it_stands() {
    let mut d = Desk::new("L");
    let approved = Ask { approved_by: Some("chief".into()), ..by("w", Role::Worker) };
    d.act(Verb::Escalate, by("w", Role::Worker));
    let watched = d.case.escalated_to.clone();
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, by("w", Role::Worker));
    let suspended = d.act(Verb::Suspend, approved).case.suspended.clone();
    for (status, is_watched, is_suspended, urban, hotline, update) in [
        (Status::Submitted, false, false, "信息收集", "受理", "open"),
        (Status::Submitted, true, false, "信息收集（督办）", "督办", "internal_referral"),
        (Status::Accepted, false, false, "案卷建立", "登记", "investigating"),
        (Status::Accepted, true, false, "案卷建立（督办）", "督办", "internal_referral"),
        (Status::Dispatched, false, false, "任务派遣", "派单", "in_progress"),
        (Status::Dispatched, true, false, "任务派遣（督办）", "督办", "internal_referral"),
        (Status::Dispatched, false, true, "任务派遣（挂账）", "挂账", "planned"),
        (Status::Dispatched, true, true, "任务派遣（挂账）", "挂账", "planned"),
        (Status::Handling, false, false, "任务处理", "办理", "in_progress"),
        (Status::Handling, true, false, "任务处理（督办）", "督办", "in_progress"),
        (Status::Handling, false, true, "任务处理（挂账）", "挂账", "planned"),
        (Status::Handling, true, true, "任务处理（挂账）", "挂账", "planned"),
    ] {
        d.case.status = status;
        d.case.escalated_to = watched.clone().filter(|_| is_watched);
        d.case.suspended = suspended.clone().filter(|_| is_suspended);
        let words = d.case.words();
        let told = [&words.urban, &words.hotline, &words.update].map(String::as_str);
        assert_eq!(told, [urban, hotline, update], "{}", d.case.standing());
        // It is even offered to those who watch.
        d.case.offered_to = watched.clone();
        let hotline = if hotline == "督办" { "提级" } else { hotline };
        assert!(!is_watched || d.case.words().hotline == hotline, "{}", d.case.standing());
        d.case.offered_to = None;
    }
}

#[test]
fn a_case_whose_days_are_over_does_not_take_to_be_reopened_and_no_refusal_says_so() {
    let mut d = Desk::new("L");
    d.until_resolved().act(Verb::Evaluate, by("r", Role::Resident)).act(Verb::Close, by("boss", Role::Supervisor));
    let takes = |d: &Desk| d.cases.book().allowed(&d.case, d.now).contains(&Verb::Reopen);
    let advice = |d: &Desk| d.try_act(Verb::Start, &by("boss", Role::Supervisor)).unwrap_err().hint.contains("reopen");
    d.wait_h(15 * 24);
    assert!(takes(&d) && advice(&d));
    d.wait_h(1);
    assert!(!takes(&d) && !advice(&d));
    assert_eq!(d.error(Verb::Reopen, by("r", Role::Resident)), "too-late");
}

#[test]
fn what_a_handler_has_shown_stays_in_history_when_the_case_begins_again() {
    let mut d = Desk::new("L");
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, by("w", Role::Worker));
    d.act(Verb::Start, by("h", Role::Worker));
    let shown = vec!["photo-after=https://p.example/1".to_owned()];
    let done = d.try_act(Verb::Resolve, &Ask { evidence: shown.clone(), ..by("h", Role::Worker) }).unwrap();
    assert_eq!(done[0].entry.evidence, shown);
    // More than a line has room for is taken, and stays with the answer.
    let many: Vec<String> = (0..20).map(|i| format!("https://p.example/{i}")).collect();
    let done = d.try_act(Verb::Resolve, &Ask { evidence: many.clone(), ..by("h", Role::Worker) }).unwrap();
    assert_eq!((done[0].case.outcome.as_ref().unwrap().evidence.len(), &done[0].entry.evidence[..]), (20, &many[..8]));
}

#[test]
fn a_summoned_unit_is_rated_once_and_after_it_has_reported() {
    let mut d = Desk::new("L");
    d.act(Verb::Accept, by("w", Role::Worker));
    d.act(Verb::Assist, Ask { unit: Some("消防".into()), ..by("w", Role::Worker) });
    let rate = || Ask { rating: Some(4), ..by("w", Role::Worker) };
    assert_eq!(d.try_act(Verb::Rate, &rate()).err().map(|e| e.error), Some("not-now"), "nobody has reported");
    d.act(Verb::Report, by("x", Role::Worker)).act(Verb::Rate, rate());
    assert_eq!(d.try_act(Verb::Rate, &rate()).err().map(|e| e.error), Some("not-now"), "it is rated");
}

#[test]
fn nobody_reports_for_a_unit_from_a_node_that_was_not_summoned() {
    let mut d = Desk::new("L");
    d.act(Verb::Accept, by("w", Role::Worker));
    let assist = |unit: &str, to: Option<&str>| Ask { unit: Some(unit.into()), to: to.map(a), ..by("w", Role::Worker) };
    d.act(Verb::Assist, assist("消防", Some("c/s/n"))).act(Verb::Assist, assist("车队", None));
    let report = |at: &str, id: &str| {
        let ask = Ask { assist: Some(id.into()), ..by("x", Role::Worker) };
        let asker = Asker { at: &a(at), opened_it: false, takes_back: false };
        d.cases.book().act(&d.case, Verb::Report, &ask, asker, &|_| None, d.now).err().map(|e| e.error)
    };
    assert_eq!([report("c/s/n", "a1"), report("c/s/m", "a1"), report("c/s/m", "a2")], [None; 3]);
    for (at, id) in [("c/s/x", "a1"), ("c/s/x", "a2"), ("c/s/n", "a2")] {
        assert_eq!(report(at, id), Some("not-summoned"), "{at} for {id}");
    }
}

#[test]
fn the_resident_is_to_be_called_back_within_a_limit_that_nobody_takes_a_case_over_for() {
    let mut d = Desk::new("L");
    d.cases.settings.missed = Missed::HandOver;
    d.case.terms.as_mut().unwrap().call_back = Some(Limit::parse("3d").unwrap());
    assert!(d.until_resolved().case.clock(CALL_BACK).unwrap().runs());
    d.act(Verb::Verify, Ask { passed: Some(false), ..by("boss", Role::Supervisor) });
    assert!(!d.case.clock(CALL_BACK).unwrap().runs(), "there is nothing to ask about");
    d.act(Verb::Resolve, by("h", Role::Worker)).wait_h(73);

    let missed = d.cases.book().timer(&d.case, CALL_BACK, d.now);
    assert_eq!((missed.case.escalated_to, missed.case.offered_to), (Some(a("c/s")), None));
    assert!(missed.case.late && missed.entry.text == "the call_back limit has passed", "{:?}", missed.entry);

    let asked = d.act(Verb::Evaluate, Ask { text: Some("nobody answers".into()), ..by("boss", Role::Supervisor) });
    assert!(!asked.case.clock(CALL_BACK).unwrap().runs(), "nor does it run on where nobody could be asked");
    assert_eq!(asked.case.status, Status::Evaluated);
}

#[test]
fn a_call_back_that_nobody_made_was_not_in_time_whatever_becomes_of_the_case() {
    let called_back = |d: &Desk| d.case.clock(CALL_BACK).unwrap().is_kept();
    let begun = || {
        let mut d = Desk::new("L");
        d.case.terms.as_mut().unwrap().call_back = Some(Limit::parse("3d").unwrap());
        d.until_resolved();
        d
    };
    let passed = |passed| Ask { passed: Some(passed), ..by("boss", Role::Supervisor) };
    let says = || Ask { solved: Some(Solved::Solved), ..by("r", Role::Resident) };
    for is_asked in [true, false] {
        let mut d = begun();
        if is_asked {
            d.wait_h(1).act(Verb::Evaluate, says());
        } else {
            d.act(Verb::Verify, passed(true));
        }
        d.wait_h(1).act(Verb::Close, by("boss", Role::Supervisor));
        // What is said behind the end is a verdict, and no answer to a call.
        d.wait_h(1).act(Verb::Evaluate, says()).act(Verb::Reopen, by("r", Role::Resident));
        assert_eq!((called_back(&d), d.case.was_late()), (is_asked, false));
    }
    let mut d = begun();
    d.act(Verb::Verify, passed(false));
    assert!(!called_back(&d), "it was not solved, and nobody was called");
    // One that was missed stays so.
    let mut d = begun();
    d.wait_h(73).act(Verb::Verify, passed(true)).act(Verb::Close, by("boss", Role::Supervisor));
    assert!(d.act(Verb::Reopen, by("r", Role::Resident)).case.was_late());
}

#[test]
fn what_was_said_of_an_answer_goes_with_it_and_why_there_was_none_when_there_is_one() {
    let solved = |solved| Ask { solved: Some(solved), text: None, ..by("r", Role::Resident) };
    let satisfied = Ask { satisfied: Some(Satisfied::Yes), text: None, ..by("r", Role::Resident) };
    let text = |d: &Desk| d.case.verdict.as_ref().unwrap().text.clone();
    let why = Ask { text: Some("电话没人接".into()), ..by("r", Role::Resident) };
    let mut d = Desk::new("L");
    d.until_resolved().act(Verb::Evaluate, why).act(Verb::Evaluate, solved(Solved::Partly));
    assert_eq!(text(&d), "", "he was reached");
    let mut d = Desk::new("L");
    let of_it = Ask { text: Some("还在漏".into()), ..solved(Solved::Unsolved) };
    d.until_resolved().act(Verb::Evaluate, of_it).act(Verb::Evaluate, satisfied);
    assert_eq!(text(&d), "还在漏", "of that he says nothing else");
    d.act(Verb::Evaluate, solved(Solved::Solved));
    assert_eq!(text(&d), "", "it was said of the other answer");
}

#[test]
fn a_summoned_unit_that_has_reported_neither_rates_itself_nor_ends_the_case() {
    let mut d = Desk::new("L");
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, by("w", Role::Worker));
    d.act(Verb::Assist, Ask { unit: Some("消防".into()), ..by("w", Role::Worker) });
    d.act(Verb::Assist, Ask { unit: Some("燃气".into()), ..by("w", Role::Worker) });
    d.act(Verb::Report, Ask { assist: Some("a1".into()), ..by("消甲", Role::Worker) });
    let rate = |who: &str| Ask { assist: Some("a1".into()), rating: Some(5), ..by(who, Role::Supervisor) };
    let verify = |who: &str| Ask { passed: Some(true), ..by(who, Role::Supervisor) };
    assert_eq!(d.error(Verb::Rate, rate("消防")), "not-the-caller");
    d.act(Verb::Start, by("h", Role::Worker)).act(Verb::Resolve, by("h", Role::Worker));
    assert_eq!(d.error(Verb::Verify, verify("消防")), "handler");
    assert!(d.try_act(Verb::Verify, &verify("燃气")).is_ok(), "it has not come");
    d.act(Verb::Verify, verify("boss"));
    assert_eq!(d.error(Verb::Close, by(" 消防 ", Role::Supervisor)), "handler");
}

#[test]
fn whoever_had_not_reported_when_the_case_ended_is_awaited_again_when_it_is_reopened() {
    let summons = |unit: &str| Ask { unit: Some(unit.into()), limit: Some("4h".into()), ..by("w", Role::Worker) };
    let mut d = Desk::new("L");
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, by("w", Role::Worker));
    d.act(Verb::Assist, summons("消防")).act(Verb::Assist, summons("燃气"));
    d.act(Verb::Report, Ask { assist: Some("a2".into()), ..by("x", Role::Worker) });
    d.act(Verb::Start, by("h", Role::Worker)).act(Verb::Resolve, by("h", Role::Worker));
    d.act(Verb::Evaluate, by("r", Role::Resident)).act(Verb::Close, by("boss", Role::Supervisor));
    assert!(["assist:a1", "assist:a2"].iter().all(|clock| d.case.clock(clock).unwrap().stopped.is_some()));
    d.wait_h(24).act(Verb::Reopen, by("r", Role::Resident));
    assert_eq!(d.due("assist:a1"), "Sat 14:00", "it has as long as it had");
    assert!(d.case.clock("assist:a1").unwrap().runs() && !d.case.clock("assist:a2").unwrap().runs());
    let missed = d.cases.book().timer(&d.case, "assist:a1", d.now + chrono::TimeDelta::hours(4));
    assert_eq!((missed.entry.step.as_str(), missed.entry.calls.len()), ("missed", 1), "who summoned it is called");
}

#[test]
fn what_would_be_refused_whatever_is_said_with_it_is_not_among_what_a_case_takes() {
    let takes = |d: &Desk, verb: Verb| d.cases.book().allowed(&d.case, d.now).contains(&verb);
    let begin = |d: &mut Desk| {
        d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, by("w", Role::Worker));
        d.act(Verb::Start, by("h", Role::Worker));
    };
    let more = || Ask { limit: Some("1wd".into()), approved_by: Some("chief".into()), ..by("h", Role::Worker) };
    let mut d = Desk::new("L");
    begin(&mut d);
    assert!(takes(&d, Verb::Extend) && d.try_act(Verb::Extend, &more()).is_ok());
    let mut d = Desk::new("N");
    begin(&mut d);
    assert!(!takes(&d, Verb::Extend));
    assert_eq!(d.error(Verb::Extend, more()), "no-clock");
    // From a community it goes up tier by tier; then only to be taken over, once.
    let up = |hand_over| Ask { hand_over, ..by("w", Role::Worker) };
    assert!(takes(&d, Verb::Escalate));
    d.act(Verb::Escalate, up(false)).act(Verb::Escalate, up(false));
    assert!(takes(&d, Verb::Escalate) && d.error(Verb::Escalate, up(false)) == "nobody-above");
    assert!(d.try_act(Verb::Escalate, &up(false)).unwrap_err().hint.contains("hand_over"), "the way on");
    d.act(Verb::Escalate, up(true));
    assert_eq!(d.try_act(Verb::Escalate, &up(false)).unwrap_err().hint, "", "it is offered already");
    assert!(!takes(&d, Verb::Escalate));
    assert_eq!((d.error(Verb::Escalate, up(true)), d.case.escalations), ("not-now", 3));
    // The city's own has nobody above.
    let cases = node("c");
    let case = cases.book().open(opening("1", "L"), d.now).case;
    assert!(!cases.book().allowed(&case, d.now).contains(&Verb::Escalate));
}

#[test]
fn a_case_that_is_open_again_has_no_unit_before_it_is_dispatched() {
    let mut d = Desk::new("L");
    let to = |unit: &str| Ask { unit: Some(unit.into()), ..by("w", Role::Worker) };
    d.act(Verb::Accept, by("w", Role::Worker)).act(Verb::Dispatch, to("u"));
    assert_eq!(d.case.unit_at_work(), Some("u"));
    d.act(Verb::Start, by("h", Role::Worker)).act(Verb::Resolve, by("h", Role::Worker));
    d.act(Verb::Evaluate, by("r", Role::Resident)).act(Verb::Close, by("boss", Role::Supervisor));
    assert_eq!(d.case.unit_at_work(), Some("u"), "it has handled it");
    d.act(Verb::Reopen, by("r", Role::Resident));
    assert_eq!(d.case.unit_at_work(), None);
    d.act(Verb::Dispatch, to("v"));
    assert_eq!(d.case.unit_at_work(), Some("v"));
}

#[test]
fn who_must_do_otherwise_what_is_refused_is_told_how() {
    let mut d = Desk::new("L");
    d.until_resolved();
    let refusal = d.try_act(Verb::Evaluate, &by("h", Role::Resident)).unwrap_err();
    assert_eq!(refusal.error, "handler");
    assert!(refusal.hint.contains(r#"`"by":"NAME (resident)"`"#), "{refusal:?}");
    d.act(Verb::Evaluate, by("h (resident)", Role::Resident));
    let hint = d.try_act(Verb::Close, &by("h", Role::Supervisor)).unwrap_err().hint;
    assert!(!hint.contains("resident"), "{hint}");
    for (verb, who) in [(Verb::Reject, Role::Worker), (Verb::Withdraw, Role::Resident)] {
        let mut d = Desk::new("L");
        d.act(verb, by("w", who));
        let refusal = d.try_act(Verb::Reopen, &by("w", Role::Supervisor)).unwrap_err();
        assert_eq!(refusal.error, "not-now");
        assert!(refusal.detail.contains("`citybrain case new`"), "{verb}: {refusal:?}");
    }
}
