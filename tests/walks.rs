//! Pages for people, walked through as a reader would: every command typed, every answer compared.

use crate::clients::is_there;
use crate::harness::steps::Masks;
use crate::harness::walk::Walk;

#[test]
fn a_changed_word_count_row_state_name_or_exit_code_is_another_answer() {
    let page = "CASE                 STANDS     OWNER  DUE
20261129-aaaaaaaaaa  submitted  a/b    response 11-29 05:35:30Z
20261129-bbbbbbbbbb  handling   a/b    -
2 of 2 that fit; 2 are open, 0 of them overdue
a/b, its own record, as of 05:30:32Z
(exit code 1)
";
    let run = page
        .replace("11-29 05:35", "02-01 17:08")
        .replace("as of 05:30", "as of 17:03")
        .replace("20261129-aaaaaaaaaa", "20270201-cccccccccc")
        .replace("20261129-bbbbbbbbbb", "20270201-dddddddddd");
    assert!(Masks::default().fit(page, &run), "{run}");
    let row = run.lines().nth(1).expect("a row");
    for (from, to) in [
        ("submitted", "accepted"),
        ("CASE", "CASES"),
        ("2 of 2", "3 of 2"),
        ("0 of them overdue", "1 of them overdue"),
        ("response 02", "solution 02"),
        ("(exit code 1)", "(exit code 2)"),
        (row, ""),
        ("17:08:30Z", "-"),
    ] {
        assert!(!Masks::default().fit(page, &run.replacen(from, to, 1)), "{from} -> {to}");
    }
    assert!(!Masks::default().fit(page, &format!("{run}{row}\n")), "a row more");
    // Who stands for whom stays the same, on the page and in the run.
    let mut masks = Masks::default();
    assert!(masks.fit(page, &run));
    assert_eq!(masks.of_run("case show 20261129-bbbbbbbbbb"), "case show 20270201-dddddddddd");
    assert!(!masks.fit("20261129-aaaaaaaaaa", "20270201-dddddddddd"));
    assert!(!masks.fit("20261129-eeeeeeeeee", "20270201-dddddddddd"));
    assert_eq!(masks.unknown("20261129-eeeeeeeeee 20261129-aaaaaaaaaa"), ["20261129-eeeeeeeeee"]);
}

/// The README's tree.
const TREE: &str = "citybrain run --config config/city.toml &
citybrain run --config config/street.toml &
citybrain run --config config/community.toml &
citybrain run --config config/neighbourhood.toml &";

/// An event at the neighbourhood that climbs to the city, another one each time.
const LAMP: &str = r#"mosquitto_pub -p 1886 -q 1 -t in/lamp/7 -m '{"specversion":"1.0","id":"'$RANDOM'","source":"/lamp/7","type":"city.lamp.failed","data":{"lux":0}}'"#;

#[test]
fn from_an_empty_tree_to_a_closed_case_every_answer_is_the_page_s() {
    Walk::of("docs/brain.md").go();
}

#[test]
fn devices_from_a_shop_and_of_one_s_own_are_what_the_page_says() {
    Walk::of("docs/devices.md").in_a_clone().given(TREE).go();
}

#[test]
fn a_stranger_s_first_commands_do_what_the_readme_says() {
    Walk::of("README.md")
        .in_a_clone()
        .without(&[
            ("cargo", "builds, or runs the demo or the tests, which are run by themselves"),
            ("export PATH=", "the binary under test is on the path already"),
            ("citybrain top", "needs a terminal"),
            ("citybrain doctor", "what it finds is this machine's"),
        ])
        .before("citybrain trace ID", LAMP)
        .stands_for("ID", "citybrain events --type city.lamp.failed --json | grep -o '\"id\":\"[0-9]*\"' | grep -o '[0-9]*' | head -1")
        .during("citybrain events --follow", LAMP)
        .during("mosquitto_sub -p 1883", LAMP)
        .go();
}

#[test]
fn a_file_of_rows_is_played_from_where_it_stopped() {
    Walk::of("docs/replay.md").go();
}

#[test]
fn the_desk_hears_of_a_press_deals_with_it_and_hands_over_the_shift() {
    Walk::of("docs/duty.md")
        .after("docs/brain.md")
        .stands_for(
            "ID",
            "citybrain case list --kind incident --status open | grep btn-7 | grep -o '^[0-9]*-[0-9a-z]*' | tail -1",
        )
        .go();
}

#[test]
fn cases_services_and_rules_are_asked_for_as_their_page_says() {
    Walk::of("docs/cases.md")
        .in_a_clone()
        .given(TREE)
        // Of its tree it is the community that offers services.
        .given("export CITYBRAIN_NODE=http://127.0.0.1:8082")
        .without(&[("citybrain case import la311.csv", "a city's own file; `real_input` plays it")])
        .stands_for("ID", "citybrain case list | grep -o '^[0-9]*-[0-9a-z]*' | tail -1")
        .stands_for("DAY TIME", "citybrain service show haircut | grep -o '20..-..-.. ..:..' | head -1")
        .go();
}

#[test]
fn another_platform_comes_in_by_every_way_of_its_page() {
    if !is_there("python3", &["-c", "import paho.mqtt"], "pip install paho-mqtt") {
        return;
    }
    let smoke = r#"mosquitto_pub -p 1886 -q 1 -t in/smoke/7 -m '{"smoke":true}'"#;
    Walk::of("docs/platform.md")
        .in_a_clone()
        .given("touch tokens config/tokens")
        .given(r#"sed -i 's|^client_name|tokens_file = "./tokens"\n&|' config/community.toml"#)
        .given("echo whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw > citizens-app.secret")
        .given(TREE)
        .during("mosquitto_sub -p 1883 -q 1 -i my-app", LAMP)
        .during("python3", LAMP)
        .during("mosquitto_sub -p 1883 -q 1 -i worker-1", LAMP)
        .during("curl 'http://127.0.0.1:8080/v1/events?follow=true'", LAMP)
        .before("citybrain cap alarm", smoke)
        .stands_for("ID", r"citybrain alarm list | grep -oE '^[0-9a-f]{16}' | head -1")
        .go();
}

#[test]
fn accounts_tokens_and_tls_are_made_as_the_page_of_the_doors_says() {
    Walk::of("docs/door.md").go();
}
