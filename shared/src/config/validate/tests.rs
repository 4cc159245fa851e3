use crate::config::{Problem, Variables, parse};
use crate::limits;

fn problems(rest: &str) -> Vec<String> {
    let text = format!("[node]\naddress = \"chengdu/liucheng\"\ndata = \"d\"\n{rest}");
    let show = |p: Problem| format!("{}{}", p.message, p.help.map_or(String::new(), |h| format!(" ({h})")));
    parse(&text, &Variables::new()).problems.into_iter().map(show).collect()
}

#[test]
fn a_webhook_s_url_is_one_that_can_be_asked() {
    let of = |url: &str| problems(&format!("[[webhook]]\nname = \"w\"\nurl = \"{url}\"\n"));
    for good in ["https://app.example/hook?a=b", "http://127.0.0.1:8080/x", "http://[::1]:1/", "https://h"] {
        assert!(of(good).is_empty(), "{good}: {:?}", of(good));
    }
    for bad in
        ["https://host:99999/", "http://h:x/", "https://h:0/", "https://应用.example/", "http://[::1/", "http://h/<x>"]
    {
        assert!(of(bad).iter().any(|p| p.contains("no place to POST to")), "{bad}: {:?}", of(bad));
    }
}

#[test]
fn a_tier_that_does_not_fit_the_address_is_refused() {
    assert_eq!(
        problems("tier = \"city\""),
        [
            "`city` does not fit the address: chengdu/liucheng of depth 2 is a street (write `tier = \"street\"` or leave it out; or give an address of depth 1)"
        ]
    );
}

#[test]
fn a_listener_that_cannot_be_is_refused() {
    let found = problems(
        r#"
[[listener]]
listen = "127.0.0.1:1883"
protocol = "mqtts"
cert_file = "c"
client_required = true
[[listener]]
listen = "127.0.0.1:8880"
protocol = "ws"
key_file = "k"
client_crl_file = "r"
origins = ["app.example"]
[[listener]]
listen = "0.0.0.0:8880"
protocol = "mqtt"
origins = ["*"]
"#,
    );
    assert_eq!(
        found,
        [
            "TLS needs `key_file` (add `key_file = \"…\"`, a PEM file)",
            "`127.0.0.1:1883` is `broker.listen` already (give each a port of its own)",
            "no client's certificate could be verified (add `client_ca_file`, the certificates that sign clients')",
            "there is no TLS here (`protocol = \"mqtts\"` or `\"wss\"` has it)",
            "no client shows a certificate here that could be revoked (add `client_ca_file`, the certificates that sign clients' and the list)",
            "`app.example` is no web origin (write `https://HOST` or `https://HOST:PORT`, or `*`)",
            "`0.0.0.0:8880` is another `[[listener]]` already (give each a port of its own)",
            "0.0.0.0:8880 is not on loopback, and no `[access]` says who may come in (in `[access]` write `anonymous = false` and a `users_file` (`citybrain user add` makes one); or `anonymous = true`, if whoever reaches it may publish and read everything)",
            "there is no WebSocket here (`protocol = \"ws\"` or `\"wss\"` has it)",
        ]
    );
}

#[test]
fn tls_on_a_link_has_all_that_it_needs_or_nothing() {
    let with = |more: &str| problems(&format!("[parent]\n{more}"));
    assert_eq!(with("url = \"mqtts://h\"\nca_file = \"ca\"\ncert_file = \"c\"\nkey_file = \"k\""), [""; 0]);
    assert_eq!(
        with("url = \"mqtts://h\"\nkey_file = \"k\""),
        [
            "TLS needs to know whom to trust (add `ca_file`, such as /etc/ssl/certs/ca-certificates.crt for a public one)",
            "a certificate and its key come together (give `cert_file` and `key_file`)",
        ]
    );
    assert_eq!(
        with("url = \"mqtt://h\"\nca_file = \"ca\""),
        ["there is no TLS on this link (write `mqtts://` in `url`)"]
    );
}

#[test]
fn a_door_to_a_network_must_say_who_may_come_in() {
    let open = "0.0.0.0:1883 is not on loopback, and no `[access]` says who may come in";
    let is_open = |text: &str| problems(text).iter().any(|p| p.contains(open));
    assert!(is_open("[broker]\nlisten = \"0.0.0.0:1883\"\n"));
    assert!(is_open("[[listener]]\nlisten = \"0.0.0.0:1883\"\nprotocol = \"ws\"\n[access]\npublish = [\"#\"]\n"));
    assert!(!is_open("[broker]\nlisten = \"0.0.0.0:1883\"\n[access]\nanonymous = true\n"));
    assert!(!is_open(
        "[broker]\nlisten = \"127.0.0.1:1883\"\n[[listener]]\nlisten = \"[::1]:1884\"\nprotocol = \"mqtt\"\n"
    ));
    let access = |text: &str| {
        let text = format!(
            "[node]\naddress = \"c\"\ndata = \"/x\"\n[broker]\nlisten = \"{text}:1883\"\n[access]\nusers_file = \"u\"\n"
        );
        parse(&text, &Variables::new()).config.expect("a config").access.anonymous
    };
    assert!(access("127.0.0.1") && !access("10.0.0.1"));
}

#[test]
fn what_does_not_go_together_is_refused() {
    let found = problems(
        r##"
[broker]
listen = "0.0.0.0:2000"
username = "x"
receive_maximum = 0
[api]
listen = "127.0.0.1:2000"
[parent]
url = "mqtt://127.0.0.1:2000"
[link]
root = "in/x"
[store]
segment_bytes = 1000000
log_bytes_max = 1500000
log_bytes_hard_max = 5
[access]
anonymous = false
publish = ["in/{user}/#", "a#"]
[[map]]
filter = "in/air/#"
format = "json"
[[map]]
filter = "in/air/one"
type = "t.{9}"
format = "text"
value = "/v"
[[map]]
filter = "in/x/+"
format = "json"
type = "t.{4}"
value = "a.b"
reach = "neighbourhood"
target = "chengdu"
[[reach]]
type = "a.*"
tier = "city"
[[reach]]
type = "a.b"
tier = "community"
"##,
    );
    assert_eq!(
        found,
        [
            "only an outside broker needs this (give `url` too, or leave this out)",
            "0 is out of bounds: at least 1",
            "`127.0.0.1:2000` is the broker's already (give the API and the broker different ports)",
            "this is the node's own broker (write the parent's `broker.listen`)",
            "devices and apps use these topics (the default is `citybrain/v1`)",
            "1500000 is out of bounds: at least 2000000 (at least two segments (`segment_bytes`))",
            "5 is out of bounds: at least 1500000 (at least `log_bytes_max`; 0 means that nothing needed is ever dropped)",
            "nobody could connect (give `users_file`, a listener with `client_ca_file`, or `anonymous = true`)",
            "`a#` is no topic filter: `#` must be the last level and stand alone (such as `in/air/+` or `in/#`)",
            "a message that is no CloudEvents object needs a type (add `type = \"…\"`)",
            "never used: `in/air/#` (entry 1) comes first (the first filter that matches wins: put the narrower one first)",
            "`{9}` is no level of `in/air/one` (`{1}` is the topic's first level)",
            "plain text has no members to point at (leave it out, or `format = \"json\"`)",
            "the node itself publishes there; nothing from outside is mapped (map a topic of devices, such as `in/#`)",
            "`{4}` is no level of `in/x/+` (`{1}` is the topic's first level)",
            "`a.b` is no JSON pointer (write `/a/b`)",
            "neighbourhood is below this street node: events travel upward (write `street` to keep them here, or a tier above)",
            "chengdu is not below this node (a node sends only to `chengdu/liucheng` and below)",
            "never used: `a.*` (entry 1) comes first (the first pattern that matches wins: put the narrower one first)",
            "community is below this street node: events travel upward (write `street` to keep them here, or a tier above)",
        ]
    );
}

#[test]
fn a_danger_that_is_looked_for_nowhere_is_refused() {
    let map = |smoke: &str| {
        let more = "format = \"json\"\ntype = \"a.b\"\n";
        problems(&format!("[[map]]\nfilter = \"dev/+\"\n{more}dangers = {{ gas = [\"/gas\"], smoke = [{smoke}] }}\n"))
    };
    assert_eq!(map("\"/smoke\""), [""; 0]);
    let found = map("");
    assert!(
        matches!(found.as_slice(), [one] if one.starts_with("nothing says where the payload tells of smoke")),
        "{found:?}"
    );
}

#[test]
fn behind_an_outside_broker_nothing_is_called_by_who_sent_it() {
    let outside = |preset: &str, map: &str| {
        let head = format!("preset = \"{preset}\"\n[node]\naddress = \"c\"\ndata = \"/x\"\n");
        let text = format!("{head}[broker]\nurl = \"mqtt://127.0.0.1:1\"\n{map}");
        let found = parse(&text, &Variables::new()).problems;
        let line =
            |p: &Problem| text[p.span.clone().unwrap_or_default()].split('\n').next().unwrap_or_default().to_owned();
        found.iter().map(|p| (line(p), p.message.clone())).collect::<Vec<_>>()
    };
    let message = "an outside broker does not say which client a message is of: `{client}` would be one for all";
    assert!(outside("zigbee2mqtt", "").is_empty());
    assert_eq!(outside("thingsboard", ""), [("\"mqtt://127.0.0.1:1\"".to_owned(), message.to_owned())]);
    let map = |key: &str| format!("[[map]]\nfilter = \"in/a\"\nformat = \"json\"\ntype = \"t.a\"\n{key}\n");
    for key in ["subject = \"{client}\"", "source = \"/d/{client}\"", "data = { who = \"{client}\" }"] {
        assert_eq!(outside("zigbee2mqtt", &map(key)), [("\"in/a\"".to_owned(), message.to_owned())], "{key}");
    }
}

#[test]
fn what_comes_in_fits_into_one_record_of_the_log() {
    let max = limits::RECORD_BYTES_MAX;
    let with = |bytes: usize| {
        problems(&format!("[broker]\npacket_bytes_max = {bytes}\n[link]\nmessage_bytes_max = {bytes}\n"))
    };
    assert_eq!(with(max - 1024 * 1024), Vec::<String>::new());
    for bytes in [max - 1024 * 1024 + 1, 200 * 1024 * 1024] {
        let found = with(bytes);
        assert!(found.len() == 2 && found.iter().all(|f| f.contains("at most 15728640")), "{found:?}");
    }
}

#[test]
fn what_would_be_refused_message_by_message_or_never_fit_is_refused_at_once() {
    let first = |rest: &str| problems(rest).first().cloned().unwrap_or_default();
    let map = |key: &str, value: &str| {
        let kind = if key == "type" { "" } else { "type = \"t\"\n" };
        first(&format!("[[map]]\nfilter = \"a/+\"\nformat = \"json\"\n{kind}{key} = \"{value}\"\n"))
    };
    let long = "a".repeat(256);
    for bad in ["a b", "a/b", "", "a#.{1}", &long] {
        assert!(map("type", bad).contains("can be no event's type"), "{bad}: {}", map("type", bad));
    }
    assert!(map("source", "has space").contains("can be no event's source"));
    for (key, good) in [("type", "a.{2}"), ("source", "/a/{1}/{2}"), ("source", "urn:x")] {
        assert_eq!(map(key, good), "", "{key} {good}");
    }
    for (config, said) in [
        ("[broker]\nclient_subscriptions_max = 0\n", "0 is out of bounds: at least 1"),
        ("[broker]\npacket_bytes_max = 262144\n", "262144 is out of bounds: at least 327680"),
        ("[access]\npublish = [\"$share/g/in/#\"]\n", "no topic matches `$share/g/in/#`"),
        ("[[map]]\nfilter = \"$share/x/in/#\"\nskip = true\n", "no topic matches `$share/x/in/#`"),
        ("[homeassistant]\nprefix = \"in\"\n", "the node's own topics"),
        ("[homeassistant]\nprefix = \"events/x\"\n", "the node's own topics"),
        ("[[reach]]\ntype = \"a b\"\ntier = \"city\"\n", "a type, or the beginning of one"),
        ("[node.labels]\nkind = \"a,b\"\n", "no selector can name the value `a,b`"),
        ("[node.labels]\npopulation = \"many\"\n", "`many` is no number of people"),
        ("[node.labels]\nkind = \" a\"\n", "no selector can name the value ` a`"),
    ] {
        assert!(first(config).contains(said), "{config}: {}", first(config));
    }
    let code = format!("code = \"{}\"\n", "1".repeat(5_000));
    assert!(first(&code).contains("name, code and labels have 50"), "{}", first(&code));
    let quotes = format!("name = '{}'\n", "\"".repeat(2_000));
    assert!(first(&quotes).contains("at most 2048 fit"), "{}", first(&quotes));
    assert_eq!(first("[[reach]]\ntype = \"a.*\"\ntier = \"city\"\n"), "");
}

#[test]
fn a_city_has_no_parent() {
    let text = "[node]\naddress = \"c\"\ndata = \"d\"\n[parent]\nurl = \"mqtt://h:1\"\n";
    let found = parse(text, &Variables::new()).problems;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].message, "c is a city: it has no parent");
    assert_eq!(found[0].line_column(text), Some((4, 2)));
}

#[test]
fn pages_of_other_origins_are_named_as_browsers_do_and_need_tokens() {
    let found = problems("[api]\norigins = [\"https://desk.example\", \"desk.example\", \"https://Desk/\", \"*\"]\n");
    assert_eq!(found.len(), 4, "{found:?}");
    for said in ["`desk.example` is no web origin", "`https://Desk/` is no", "`*` is no", "without tokens no page"] {
        assert!(found.iter().any(|f| f.starts_with(said)), "{said}: {found:?}");
    }
    assert!(problems("[api]\ntokens_file = \"t\"\norigins = [\"http://[::1]:3000\"]\n").is_empty());
}
