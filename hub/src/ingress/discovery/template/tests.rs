use super::*;
use std::time::{Duration, Instant};

/// What a template says of a payload; `~` before what it says without something that is not there.
fn says(template: &str, payload: &str) -> String {
    let way = Way::of(template).unwrap_or_else(|why| panic!("{template}: {why}"));
    match way.look(&Body::new(payload.as_bytes())) {
        Ok(Some(word)) => format!("{}{}", if word.is_certain { "" } else { "~" }, word.value),
        Ok(None) => "-".into(),
        Err(why) => format!("? {why}"),
    }
}

#[test]
fn what_leads_to_a_value_is_a_path() {
    for (template, path) in [
        ("{{ value_json.a['b'][0] | float(0) }}", Way::Path(vec!["a".into(), "b".into(), "0".into()])),
        ("{{- value_json[\"x y\"] -}}", Way::Path(vec!["x y".into()])),
        ("{{ value | trim }}", Way::Whole),
        ("", Way::Whole),
    ] {
        assert_eq!(Way::of(template).unwrap(), path, "{template}");
    }
    assert_eq!(says("{{ value_json.a['b'][0] | float(0) }}", r#"{"a":{"b":[7]}}"#), "7");
}

#[test]
fn a_template_says_what_it_says_in_home_assistant() {
    for (template, payload, said) in [
        ("{{ value_json.alarm | lower }}", r#"{"alarm":"ON"}"#, r#""on""#),
        ("{{ 'ON' if value_json.x else 'OFF' }}", r#"{"x":1}"#, r#""ON""#),
        ("{{ 'ON' if value_json.x else 'OFF' }}", r#"{"x":false}"#, r#""OFF""#),
        ("{% if value_json.p > 3 %}ON{% else %}OFF{% endif %}", r#"{"p":3.5}"#, r#""ON""#),
        ("{%- if value_json.p|float > 3 -%}\n ON\n{%- else -%} OFF {%- endif -%}", r#"{"p":"2"}"#, r#""OFF""#),
        ("{{ value | float / 10 }}", "215", "21.5"),
        ("{{ (value_json.t | float * 1.8 + 32) | round(1) }}", r#"{"t":21.55}"#, "70.8"),
        ("{{ value_json.t | is_defined | int + 1 }}", r#"{"t":"7"}"#, "8"),
        ("{{ value_json.x | iif('ON', 'OFF') }}", r#"{"x":true}"#, r#""ON""#),
        ("{{ iif(value_json.x == 2, 'ON', 'OFF') }}", r#"{"x":3}"#, r#""OFF""#),
        ("{{ value_json.x > 3 }}", r#"{"x":4}"#, "true"),
        ("{{ value_json.s | bitwise_and(4) > 0 }}", r#"{"s":6}"#, "true"),
        ("{{ value.split(',')[1].strip() }}", "a, wet", r#""wet""#),
        ("{{ value.upper() }}", "on", r#""ON""#),
        ("{{ value.startswith('al') }}", "alarm", "true"),
        ("{{ value_json.get('a') }}", r#"{"a":"x"}"#, r#""x""#),
        ("{{ value_json.keys | first }}", r#"{"keys":["sos"]}"#, r#""sos""#),
        ("{{ 'ON' if 'leak' in value_json.events else 'OFF' }}", r#"{"events":["leak"]}"#, r#""ON""#),
        ("{{ 'ON' if value_json.s in ['alarm', 'fire', 3] else 'OFF' }}", r#"{"s":"fire"}"#, r#""ON""#),
        ("{{ 'ON' if value_json.s not in ['ok', ''] else 'OFF' }}", r#"{"s":"ok"}"#, r#""OFF""#),
        ("{% if value_json.s in ['a', 'b'] %}ON{% else %}OFF{% endif %}", r#"{"s":"b"}"#, r#""ON""#),
        ("{{ value_json.a[-1] }}", r#"{"a":[1,2]}"#, "2"),
        ("{# a note #}{{ value | replace('x', '') | int }}", "x7", "7"),
        (r#"{"event_type": "{{ value_json.action }}"}"#, r#"{"action":"sos"}"#, r#"{"event_type":"sos"}"#),
        ("{{ value_json.a if value_json is defined else value }}", "x", r#""x""#),
        ("{{ value_json.x * 100 }}", r#"{"x":0.5}"#, "50.0"),
        ("{{ value_json.n + 0 }}", r#"{"n":12345678901234567890123}"#, r#"1.2345678901234568e+22"#),
    ] {
        assert_eq!(says(template, payload), said, "{template} {payload}");
    }
}

#[test]
fn what_is_not_there_says_nothing_and_may_be_no_yes_beside_one() {
    for (template, payload, said) in [
        ("{{ value_json.alarm | lower }}", r#"{"t":1}"#, "-"),
        ("{{ value_json.alarm | lower }}", r#"{"alarm":null}"#, "-"),
        ("{{ value_json.alarm | lower }}", "no json", "-"),
        ("{{ value_json.a.b | lower }}", "{}", "-"),
        ("{{ value_json.p | float(0) > 3 }}", "{}", "-"),
        ("{{ value_json.get('a') | lower }}", "{}", "-"),
        ("{{ 'ON' if value_json.x > 3 else 'OFF' }}", "{}", "-"),
        ("{{ 'ON' if value_json.x == 3 else 'OFF' }}", "{}", "-"),
        ("{% if value_json.x is defined and value_json.x > 3 %}ON{% endif %}", "{}", "-"),
        ("{{ 'ON' if value_json.x else 'OFF' }}", "{}", r#"~"OFF""#),
        ("{{ value_json.x | iif('ON', 'OFF') }}", "{}", r#"~"OFF""#),
        ("{{ 'ON' if value_json.smoke or value_json.heat else 'OFF' }}", r#"{"heat":true}"#, r#"~"ON""#),
        ("{{ 'ON' if value_json.x else 'OFF' }}", r#"{"x":null}"#, r#"~"OFF""#),
        ("{{ 'ON' if value_json.x == 'alarm' else 'OFF' }}", r#"{"x":null}"#, r#"~"OFF""#),
        ("{{ 'ON' if value_json.x in ['fire'] else 'OFF' }}", r#"{"x":null}"#, r#"~"OFF""#),
        ("{{ 'ON' if value_json.a.x | float > 3 else 'OFF' }}", r#"{"a":{"x":null}}"#, r#"~"OFF""#),
        ("{{ value_json.x | iif('ON', 'OFF') }}", r#"{"x":null}"#, r#"~"OFF""#),
        // One that is asked for by nobody takes nothing away.
        ("{{ 'ON' if value_json.x else 'OFF' }}", r#"{"x":false,"y":null}"#, r#""OFF""#),
        // Its maker says what it means if it is not there.
        ("{{ value_json.x | default('OFF') | lower }}", "{}", r#""off""#),
    ] {
        assert_eq!(says(template, payload), said, "{template} {payload}");
    }
}

#[test]
fn what_nobody_here_can_follow_is_known_as_it_is_announced() {
    let long = format!("{{{{ value ~ '{}' }}}}", "x".repeat(CHARS_MAX));
    for (template, why) in [
        ("{{ states('sensor.x') }}", "nothing here is called `states`"),
        ("{{ (now() - value) }}", "nothing here is called `now`"),
        ("{{ value_json.t | timestamp_custom('%H') }}", "timestamp_custom"),
        ("{{ value is match('a') }}", "match"),
        ("{{ value.encode() }}", "encode"),
        ("{{ value_json. }}", "unexpected"),
        ("{% if value %}ON", "unexpected end"),
        ("{% include 'x' %}", "`include` is none of"),
        ("{{ debug() }}", "nothing here is called `debug`"),
        ("{{ 7 in [1] * 99999999 }}", "makes more of a list"),
        ("{{ [1] * 9 }}", "makes a list"),
        ("{{ (1, 2) }}", "makes a list"),
        ("{{ value in (1, 2) }}", "makes a list"),
        ("{{ 1, 2 }}", "makes a list"),
        ("{{ iif(value[1, 2]) }}", "makes a list"),
        ("{{ {'a': 1} }}", "makes a list"),
        ("{{ value[1:9] }}", "makes a list"),
        ("{{ value in [[1]] }}", "is no constant"),
        ("{{ '\\\\' ~ [1] ~ '\\\\' }}", "makes a list"),
        ("{% for x in value %}{% endfor %}", "`for` is none of"),
        ("{%- set x = 1 %}{{ x }}", "`set` is none of"),
        ("{% raw %}{{ [1] }}{% endraw %}", "`raw` is none of"),
        (&long, "a template has at most 1000 characters"),
    ] {
        let told = Way::of(template).unwrap_err();
        assert!(told.contains(why) && told.len() < 300, "{template}: {told}");
    }
}

#[test]
fn a_stranger_s_template_costs_little_whatever_it_asks_for() {
    let nested = |open: &str, close: &str| {
        let n = CHARS_MAX / (open.len() + close.len() + 1);
        format!("{{{{ {}1{} }}}}", open.repeat(n), close.repeat(n))
    };
    let loops = format!("{}x{}", "{% for a in range(99) %}".repeat(12), "{% endfor %}".repeat(12));
    let ifs = format!("{}x{}", "{% if 1 %}".repeat(45), "{% endif %}".repeat(45));
    let doubled = format!("{{% set a = value ~ 'xxxxxxxx' %}}{}{{{{ a }}}}", "{% set a = a ~ a %}".repeat(40));
    let listed = format!("{{% set a = [1,1,1,1] %}}{}{{{{ a }}}}", "{% set a = a + a %}".repeat(40));
    let mut templates: Vec<String> = [
        "{{ value * 999999999 }}",
        "{{ value_json.a * 9999 }}",
        "{{ value_json * 9999 }}",
        "{{ value.split('1') * 9999 }}",
        "{{ 7 in value_json.a * 9999 }}",
        "{{ (value_json.a * 9999) | lower }}",
        "{{ (value_json.a + value_json.a) * 9999 }}",
        "{{ value_json.a == value_json.a + value_json.a }}",
        "{{ (value_json.a + value_json.a + value_json.a) | string | lower | upper }}",
        "{{ value_json ~ value_json ~ value_json ~ value_json }}",
        "{{ 'a' * 999999999 }}",
        "{{ ('a' * 9999) * 9999 }}",
        "{{ [1] * 999999999 }}",
        "{{ ([1] * 99999999) | length }}",
        "{{ ([1] * 99999999) | list | length }}",
        "{{ ([1] * 99999999) | join(value) }}",
        "{{ 7 in [1] * 99999999 }}",
        "{{ range(999999999) | list | length }}",
        "{{ range(0, 999999999) | sum }}",
        "{{ range(99999) | map('string') | join }}",
        "{{ 9 ** 99999999 }}",
        "{{ 9.5 ** 99999999 ** 99999 }}",
        "{{ (2 ** 127) * (2 ** 127) }}",
        "{{ -170141183460469231731687303715884105728 // -1 }}",
        "{{ 1 // 0 }}",
        "{{ 1 % 0 }}",
        "{{ value | int(base=99) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '%.999999999f' | format(1.5) }}",
        "{{ '%*d' | format(999999999, 1) }}",
        "{{ value | indent(999999999) }}",
        "{{ ('a\n' * 999) | indent(99999) }}",
        "{{ ('a' * 999) | replace('a', 'b' * 9999) }}",
        "{{ ('a' * 999) | replace('', 'b' * 9999) }}",
        "{{ [1] | batch(999999999, 1) | list }}",
        "{{ [1] | slice(999999999) | list }}",
        "{{ 1.5 | round(999999999) }}",
        "{{ 1.5 | round(-999999999) }}",
        "{{ 15 | round(-38) }}",
        "{{ 'ab'[::-1] ~ 'ab'[9999999999:] }}",
        "{{ range(1, 99999, 0) }}",
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% for a in range(9999) recursive %}{{ loop(range(9999)) }}{% endfor %}",
        "{% set n = namespace(a=[]) %}{% for i in range(99999) %}{% set n.a = n.a + [n.a] %}{% endfor %}{{ n.a }}",
        "{% set n = namespace(a=1) %}{% set n.b = n %}{{ n }}{{ n == n }}{{ [n] | sort }}",
        "{% set n = namespace(a=[]) %}{% for i in range(999) %}{% set n.a = [n.a] %}{% endfor %}{{ n.a }}{{ n.a == n.a }}",
        "{{ value_json | pprint }}",
        "{{ value_json | string | length }}",
        "{{ value | list | sort | unique | join(',') }}",
        "{{ value_json | dictsort }}",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect();
    templates.extend([loops, ifs, doubled, listed]);
    templates.extend([
        nested("(", ")"),
        nested("[", "]"),
        nested("-", ""),
        nested("- ", ""),
        nested("not ", ""),
        nested("1**", ""),
        nested("1+", ""),
        nested("1~", ""),
        nested("1 if 1 else ", ""),
        nested("{1:", "}"),
        nested("value[", "]"),
        nested("iif(", ")"),
        nested("1<", ""),
        nested("1 and ", ""),
        nested("", ".a"),
        nested("", "|abs"),
        nested("", "[0]"),
        nested("", "()"),
    ]);
    let deep = format!("{}1{}", "[".repeat(120), "]".repeat(120));
    let large = format!(r#"{{"a":[{}"x"]}}"#, "1,".repeat(30_000));
    for template in &templates {
        let began = Instant::now();
        if let Ok(way) = Way::of(template) {
            for payload in ["12", "{\"a\":1}", &deep, &large] {
                if let Ok(Some(word)) = way.look(&Body::new(payload.as_bytes())) {
                    assert!(word.text.len() <= payload.len().max(SAID_BYTES_MAX), "{template}");
                }
            }
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(1), "{template}: {took:?}");
    }
}

#[test]
fn any_text_is_a_template_or_none() {
    const PIECES: [&str; 24] = [
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "value",
        "value_json",
        ".a",
        "[0]",
        "|",
        "lower",
        "default(",
        ")",
        "if",
        "else",
        "endif",
        "for",
        "in",
        "set x = ",
        "'",
        "1",
        "==",
        "~",
        " ",
    ];
    let mut state = 0x9e37_79b9_u64;
    for _ in 0..5_000 {
        let mut text = String::new();
        for _ in 0..(state >> 60) + 3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(PIECES[(state >> 33) as usize % PIECES.len()]);
        }
        if let Ok(way) = Way::of(&text) {
            let _ = way.look(&Body::new(br#"{"a":[1,"x"]}"#));
        }
    }
}
