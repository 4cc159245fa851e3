//! What is too large for the log, or would be: refused before it is there.

use super::*;
use citybrain_shared::limits::RECORD_BYTES_MAX;
use std::any::Any;

/// Makes of every event one that has no place in the log.
struct Boaster;

impl crate::policy::Policy for Boaster {
    fn decide(&self, _: &State, _: i64, header: &Header<'_>, _: &[u8]) -> Vec<Draft> {
        let made = |kind| Draft::new(&Header::local(kind, "boast"), &vec![b'x'; RECORD_BYTES_MAX]).unwrap();
        if header.name == "city.test" { vec![made(Kind::Event)] } else { Vec::new() }
    }
    fn next_due_us(&self) -> Option<i64> {
        None
    }
    fn on_due(&self, _: &State, _: i64) -> Vec<Draft> {
        Vec::new()
    }
    fn apply(&mut self, _: Pos, _: &Header<'_>, _: &[u8]) {}
    fn take_rows(&mut self) -> Vec<crate::policy::Row> {
        Vec::new()
    }
    fn load_row(&mut self, _: &[u8], _: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[test]
fn a_record_that_has_no_place_in_the_log_is_refused_and_the_node_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path(), "c");
    let last = node.hub.reader().last();
    let large = "x".repeat(RECORD_BYTES_MAX);
    let refused = |tried: Result<(), Error>| match tried {
        Err(Error::TooLarge(bytes)) => assert!(bytes > RECORD_BYTES_MAX),
        other => panic!("{other:?}"),
    };
    let note = Note::RetainedExpired { topics: vec![(large.clone(), Pos(1))] };
    refused(run(async { wait(node.hub.note(vec![note.clone()], Haste::Lazy).await?).await }));
    let draft = Draft::new(&Header::local(Kind::Message, ""), large.as_bytes()).unwrap();
    let small = Draft::new(&Header::local(Kind::Message, ""), b"1").unwrap();
    refused(run(async { wait(node.hub.offer(vec![small.clone(), draft.clone()]).await?).await.map(drop) }));
    let with = Offered { draft: small.clone(), with: Some(note.draft()) };
    refused(run(async { wait(node.hub.offer_groups(vec![with]).await?).await.map(drop) }));
    refused(run(async { wait(node.hub.settle(Pos(1), Some(draft.clone()), Vec::new()).await?).await.map(drop) }));
    let decide: Decide = Box::new(move |_, _| vec![small, draft]);
    refused(run(async { wait(node.hub.decide(Lane::Routine, decide).await?).await.map(drop) }));
    assert_eq!(node.hub.reader().last(), last);
    assert!(matches!(node.offer(&event("after", "")), Outcome::Committed(_)));
    node.close();
}

#[test]
fn what_rules_make_too_large_for_the_log_is_a_dead_letter_and_what_they_made_it_of_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("[node]\naddress = \"c\"\ndata = \"{}\"\n", dir.path().display());
    let config: Config = toml::from_str(&text).unwrap();
    let (hub, engine, _) = open(&config, Arc::new(|| Box::new(Boaster))).unwrap();
    let node = Node { hub, thread: Some(std::thread::spawn(|| engine.run())), config };
    assert!(matches!(node.offer(&event("1", "")), Outcome::Committed(_)));
    assert_eq!(node.hub.state(|s| s.dead_letters.values().cloned().collect::<Vec<_>>()), ["too-large"]);
    assert_eq!(node.events().len(), 1);
    node.close();
}
