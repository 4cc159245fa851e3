//! Directives that rules send.

use super::*;

#[test]
fn a_command_names_the_device_that_it_is_for() {
    let rule = |subject: &str| {
        format!(
            "[[rule]]\nname = \"r\"\non = [\"city.air\"]\nwhen = \"event.data.pm > 75.0\"\n\
             [[rule.then]]\ncommand = {{ target = \"c/s/**\", {subject}type = \"city.fan\", data = {{ on = true }} }}\n"
        )
    };
    let sent = |subject: &str| {
        let mut node = Node::new(&rule(subject));
        node.hear("city.air", "hall", &json!({"pm": 80.0}));
        let mut all = node.events("city.fan");
        assert_eq!(all.len(), 1);
        all.remove(0)
    };
    let named = sent("subject = \"fan-${event.subject}\", ");
    assert_eq!(
        (&named["subject"], &named["data"]["on"], &named["directive"]),
        (&json!("fan-hall"), &json!(true), &json!("command"))
    );
    assert_eq!(sent("").get("subject"), None);
}
