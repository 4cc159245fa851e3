use super::*;
use crate::brain::rules::expression::NODE_FIELDS;
use citybrain_shared::config::{all_keys, rule_keys};

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, address: &str, ports: (u16, u16), more: &str) -> PathBuf {
        let path = self.0.path().join(name);
        let text = format!(
            "[node]\naddress = \"{address}\"\ndata = \"data/{name}\"\n[broker]\nlisten = \"127.0.0.1:{}\"\n[api]\nlisten = \"127.0.0.1:{}\"\n{more}",
            ports.0, ports.1
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    fn problems(&self, paths: &[PathBuf]) -> Vec<String> {
        let checked = check(paths, &Variables::new());
        let folder = format!("{}/", self.0.path().display());
        let show = |f: &File, p: &Problem| {
            let name = f.path.file_name().unwrap().to_string_lossy();
            let help = p.help.clone().unwrap_or_default();
            let line = p.line_column(&f.text).map_or(0, |l| l.0);
            format!("{name}:{line} {} ({help})", p.message).replace(&folder, "")
        };
        checked.files.iter().flat_map(|f| f.problems.iter().map(move |p| show(f, p))).collect()
    }
}

fn parent(port: u16) -> String {
    format!("[parent]\nurl = \"mqtt://127.0.0.1:{port}\"\n")
}

#[test]
fn a_good_tree_is_good() {
    let dir = Dir::new();
    let files = [
        dir.file("city", "c", (41001, 41002), ""),
        dir.file("street", "c/s", (41003, 41004), &parent(41001)),
        dir.file("community", "c/s/m", (41005, 41006), &parent(41003)),
    ];
    assert_eq!(dir.problems(&files), Vec::<String>::new());
    let view = check(&files, &Variables::new()).view();
    assert!(view.ok);
    assert_eq!(view.files[2].parent, "c/s");
}

#[test]
fn what_two_nodes_share_is_found() {
    let dir = Dir::new();
    let a = dir.file("a", "c", (41011, 41012), "");
    let b = dir.file("b", "c", (41012, 41013), "");
    let text = std::fs::read_to_string(&b).unwrap().replace("data/b", "data/a/inner");
    std::fs::write(&b, text).unwrap();
    assert_eq!(
        dir.problems(&[a, b]),
        [
            "b:2 `c` is the address in a already (an address belongs to one node)",
            "b:3 `data/a/inner` is not apart from `data/a` of a (each node needs a folder of its own)",
            "b:5 `127.0.0.1:41012` is `api.listen` in a already (nodes on one machine need different ports; check nodes of other machines apart)",
        ]
    );
}

#[test]
fn a_rule_that_looks_at_an_alarm_that_nobody_raises_is_told() {
    let dir = Dir::new();
    let rule = |name: &str, more: &str| {
        let then = "then = [{ raise = { title = \"t\" } }]";
        format!("[[rule]]\nname = \"{name}\"\non = [\"a.b\"]\nwhen = \"true\"\n{more}\n{then}\n")
    };
    let rules = [rule("power", ""), rule("pump", "unless_alarm = \"powr/*\""), rule("fan", "while_alarm = \"power\"")];
    let file = dir.file("a", "c", (41071, 41072), &rules.concat());
    let checked = check(&[file], &Variables::new());
    assert!(checked.is_good());
    let told: Vec<&String> = checked.notes.iter().filter(|n| n.contains("looks at")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let said = "rule `pump` looks at alarm `powr`, which no rule here raises; did you mean `power`?";
    assert!(told[0].ends_with(said), "{told:?}");
}

#[test]
fn what_a_service_or_a_scene_names_is_looked_for_in_the_files_above_too() {
    let dir = Dir::new();
    let city = "[[category]]\ncode = \"litter\"\nname = \"c\"\n[[service]]\ncode = \"haircut\"\nname = \"h\"\n";
    let offer = |category: &str, service: &str| {
        let service = format!("[[scene]]\ncode = \"x\"\nname = \"x\"\nservices = [\"own\", \"{service}\"]\n");
        format!("[[service]]\ncode = \"own\"\nname = \"o\"\ncategory = \"{category}\"\n{service}{}", parent(41081))
    };
    let city = dir.file("city", "c", (41081, 41082), city);
    let good = dir.file("good", "c/s", (41083, 41084), &offer("litter", "haircut"));
    assert_eq!(dir.problems(&[city.clone(), good.clone()]), Vec::<String>::new());
    let bad = dir.file("bad", "c/t", (41085, 41086), &offer("liter", "hair-cut"));
    assert_eq!(
        dir.problems(&[city, bad.clone()]),
        [
            "bad:11 `liter` is no category of this file, nor of those above it (did you mean `litter`?)",
            "bad:15 `hair-cut` is no service of this file, nor of those above it (did you mean `haircut`?)",
        ]
    );
    // One file alone cannot tell, and a node starts from it.
    let alone = check(&[bad], &Variables::new());
    assert!(alone.is_good());
    let told = alone.notes.iter().filter(|n| n.contains("nor of those above it; c may have it")).count();
    assert_eq!(told, 2, "{:?}", alone.notes);
}

#[test]
fn a_parent_that_is_not_where_it_should_be_is_found() {
    let dir = Dir::new();
    let files = [
        dir.file("city", "c", (41021, 41022), ""),
        dir.file("street", "c/s", (41023, 41024), &parent(41099)),
        dir.file("community", "c/s/m", (41025, 41026), &parent(41021)),
        dir.file("lonely", "c/t/m", (41027, 41028), &parent(41098)),
    ];
    assert_eq!(
        dir.problems(&files),
        [
            "street:9 c does not listen there (city) (it is at `mqtt://127.0.0.1:41021`)",
            "community:9 this is the broker of c (city) (c/s is at `mqtt://127.0.0.1:41023`)",
            "lonely:9 nobody in these files listens at `mqtt://127.0.0.1:41098` (give c/t's file too, or check this one alone)",
        ]
    );
    // Alone, its parent is simply elsewhere.
    let alone = check(&files[3..], &Variables::new());
    assert!(alone.is_good() && alone.notes.iter().any(|n| n.contains("c/t at mqtt://127.0.0.1:41098 is not among")));
}

#[test]
fn a_child_without_an_account_is_found() {
    let dir = Dir::new();
    std::fs::write(
        dir.0.path().join("users"),
        "s:c/other:$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n",
    )
    .unwrap();
    let access = "[access]\nanonymous = false\nusers_file = \"users\"\n";
    let named = format!("{}username = \"s\"\n", parent(41031));
    let files = [
        dir.file("city", "c", (41031, 41032), access),
        dir.file("street", "c/s", (41033, 41034), &named),
        dir.file("other", "c/t", (41035, 41036), &parent(41031)),
    ];
    assert_eq!(
        dir.problems(&files),
        [
            "street:10 `s` may not speak as c/s at the parent (its line must be `s:c/s:HASH`)",
            "other:9 c lets nobody in without a user (add `username` and `password_file`, and the user to the parent's users file (city))",
        ]
    );
}

#[test]
fn tls_that_cannot_work_is_found() {
    let dir = Dir::new();
    let made = |name: &str, cn: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, cn);
        let write = |file: String, pem: String| std::fs::write(dir.0.path().join(file), pem).unwrap();
        write(format!("{name}.pem"), params.self_signed(&key).unwrap().pem());
        write(format!("{name}-key.pem"), key.serialize_pem());
    };
    made("city", "city");
    made("s", "somebody");
    let hash = "$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    std::fs::write(dir.0.path().join("users"), format!("s:c/s:{hash}\n")).unwrap();
    let door = |protocol: &str, port: u16, more: &str| {
        let listen = format!("[[listener]]\nlisten = \"127.0.0.1:{port}\"\nprotocol = \"{protocol}\"\n");
        format!("{listen}cert_file = \"city.pem\"\nkey_file = \"city-key.pem\"\n{more}")
    };
    let access = "[access]\nanonymous = false\nusers_file = \"users\"\n";
    let asks = "client_ca_file = \"city.pem\"\nclient_required = true\n";
    let city = format!("{access}{}{}", door("mqtts", 41053, asks), door("wss", 41054, ""));
    let up =
        |port: u16, more: &str| format!("[parent]\nurl = \"mqtts://127.0.0.1:{port}\"\nca_file = \"city.pem\"\n{more}");
    let pair = "cert_file = \"s.pem\"\nkey_file = \"s-key.pem\"\n";
    let files = [
        dir.file("city", "c", (41051, 41052), &city),
        dir.file("s", "c/s", (41055, 41056), &up(41053, pair)),
        dir.file("t", "c/t", (41057, 41058), &up(41053, "")),
        dir.file("u", "c/u", (41059, 41060), &up(41054, "")),
        dir.file("v", "c/v", (41061, 41062), &up(41053, &pair.replace("s-key", "city-key"))),
        dir.file("w", "c/w", (41063, 41064), "[parent]\nurl = \"mqtts://127.0.0.1:41053\"\n"),
    ];
    assert_eq!(
        dir.problems(&files),
        [
            "s:11 the parent's users file has no `somebody` (`citybrain user add somebody --certificate --address c/s --file FILE` adds it)",
            "t:9 c lets nobody in without a certificate (add `cert_file` and `key_file`, signed by the parent's `client_ca_file` (city))",
            "u:9 c's listener there speaks `wss`, not `mqtts` (it is at `mqtt://127.0.0.1:41051`)",
            "v:11 the certificate in `s.pem` and the key in `city-key.pem` do not belong together (PEM files: certificates, and the key of the first)",
            "v:11 the parent's users file has no `somebody` (`citybrain user add somebody --certificate --address c/v --file FILE` adds it)",
            "w:9 TLS needs to know whom to trust (add `ca_file`, such as /etc/ssl/certs/ca-certificates.crt for a public one)",
            "w:9 c lets nobody in without a certificate (add `cert_file` and `key_file`, signed by the parent's `client_ca_file` (city))",
        ]
    );
}

#[test]
fn a_folder_that_cannot_be_and_a_file_that_is_not_there_are_found() {
    let dir = Dir::new();
    std::fs::write(dir.0.path().join("data"), "a file").unwrap();
    let file = dir.file("city", "c", (41041, 41042), "[access]\nusers_file = \"nobody\"\n[log]\nlevel = \"inof\"\n");
    let found = dir.problems(&[file]);
    assert_eq!(
        found,
        [
            "city:3 cannot keep data in `data/city`: `data` is no folder (name a folder that the node's user may write to)",
            "city:9 cannot read `nobody`: No such file or directory (os error 2) (paths are relative to the config file's folder)",
            "city:11 `inof` is no log level (did you mean `info`?)",
        ]
    );
}

#[test]
fn a_webhook_in_the_name_of_a_token_that_is_none_or_reads_nothing_is_told() {
    let dir = Dir::new();
    let hook = "[[webhook]]\nname = \"app\"\nurl = \"http://h/\"\ntoken = \"citizens\"\n";
    let without = dir.file("without", "c", (41041, 41042), hook);
    let found = dir.problems(std::slice::from_ref(&without));
    assert!(found.len() == 1 && found[0].contains("there is no `api.tokens_file`"), "{found:?}");
    let file = dir.file("with", "c", (41041, 41042), &format!("tokens_file = \"tokens\"\n{hook}"));
    let noted = |lines: &str| {
        std::fs::write(dir.0.path().join("tokens"), lines).unwrap();
        let view = check(std::slice::from_ref(&file), &Variables::new()).view();
        assert!(view.ok, "a node starts all the same: {view:?}");
        view.notes.into_iter().find(|note| note.contains("webhook `app`"))
    };
    let line = |role: &str| format!("citizens {role} {}\n", crate::tokens::hash("x"));
    assert!(noted("").is_some_and(|note| note.contains("has no `citizens`")));
    assert!(noted(&line("gateway")).is_some_and(|note| note.contains("reads no events")));
    // The role is what the receiver may be told.
    assert!(noted("").is_some_and(|note| note.contains("`citybrain token add citizens --role app ")));
    assert_eq!(noted(&line("app")), None);
    // An app is sent one type of events, and that its webhook may leave out.
    for (types, is_told) in
        [("\"city.lamp\", \"city.case.changed\"", false), ("\"city.case.\"", false), ("\"city.lamp\"", true)]
    {
        let hook = format!("tokens_file = \"tokens\"\n{hook}types = [{types}]\n");
        let file = dir.file("typed", "c", (41041, 41042), &hook);
        let notes = check(std::slice::from_ref(&file), &Variables::new()).view().notes;
        let told = notes.iter().any(|note| note.contains("`types` leaves that out: nothing is sent"));
        assert_eq!(told, is_told, "{types}: {notes:?}");
    }
}

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    ["city", "street", "community", "neighbourhood"].map(|t| folder.join(format!("{t}.toml"))).to_vec()
}

#[test]
fn the_examples_are_one_good_tree() {
    let checked = check(&examples(), &Variables::new());
    let found: Vec<&Problem> = checked.files.iter().flat_map(|f| &f.problems).collect();
    assert!(found.is_empty(), "{found:?}");
    let parents: Vec<String> = checked.view().files.into_iter().map(|f| f.parent).collect();
    assert_eq!(parents, ["", "chengdu", "chengdu/liucheng", "chengdu/liucheng/guanghua"]);
}

#[test]
fn rules_of_the_examples_open_cases_of_categories_that_there_are() {
    for path in examples() {
        let notes = check(&[path], &Variables::new()).notes;
        let of_categories: Vec<&String> = notes.iter().filter(|note| note.contains("[[category]]")).collect();
        assert!(of_categories.is_empty(), "{of_categories:?}");
    }
}

#[test]
fn a_category_that_no_file_has_is_told_where_none_above_may_have_it() {
    let dir = Dir::new();
    let rule = "[[rule]]\nname = \"r\"\non = [\"t\"]\nthen = [{ case = { category = \"none\", title = \"x\" } }]\n";
    let city = dir.file("city", "c", (41051, 41052), "");
    let street = dir.file("street", "c/s", (41053, 41054), &format!("{}{rule}", parent(41051)));
    let told = |files: &[PathBuf]| {
        let notes = check(files, &Variables::new()).notes;
        notes.iter().any(|note| note.contains("opens cases of `none`, which no `[[category]]` here is"))
    };
    assert!(told(&[city, street.clone()]), "all above are here");
    assert!(!told(&[street]), "the city may have it");
}

/// Switched-off settings (`#key = …`) are switched on for this: they must be TOML too.
#[test]
fn every_key_stands_in_every_example() {
    for path in examples() {
        let text = std::fs::read_to_string(&path).unwrap();
        let on: Vec<&str> = text
            .lines()
            .map(|l| match l.strip_prefix('#') {
                Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest,
                _ => l,
            })
            .collect();
        let table: toml::Table = on.join("\n").parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for (section, keys) in all_keys() {
            let has = |key: &str| match table.get(section) {
                _ if section.is_empty() => table.contains_key(key),
                Some(toml::Value::Array(entries)) => entries.iter().any(|e| e.get(key).is_some()),
                Some(value) => value.get(key).is_some(),
                None => false,
            };
            for key in keys {
                assert!(has(key), "{}: [{section}] lacks `{key}`", path.display());
            }
        }
        let rules = || table["rule"].as_array().unwrap().iter();
        let actions = || rules().flat_map(|rule| rule["then"].as_array().unwrap());
        for (part, keys) in rule_keys() {
            let parts: Vec<&toml::Value> = rules().chain(actions()).filter_map(|of| of.get(part)).collect();
            // What is for nobody but a device is said once, where a device is commanded.
            for key in keys.iter().filter(|key| part != "notice" || !["subject", "ttl"].contains(key)) {
                assert!(parts.iter().any(|of| of.get(key).is_some()), "{}: `{part}` lacks `{key}`", path.display());
            }
        }
        for field in NODE_FIELDS {
            let of_rules = text.split_once("All keys of a rule:").unwrap().0.rsplit_once("\n\n").unwrap().1;
            assert!(of_rules.contains(&format!("`{field}`")), "{}: `node` lacks `{field}`", path.display());
        }
    }
}

#[test]
fn an_activity_that_has_been_is_told_and_one_that_is_to_come_is_not() {
    let dir = Dir::new();
    let service = |code: &str, starts: &str| {
        format!("[[service]]\ncode = \"{code}\"\nname = \"运动会\"\nstarts = \"{starts}\"\n")
    };
    let both = [service("fair", "2020-12-05 09:00"), service("sports", "2099-12-05 09:00")].concat();
    let file = dir.file("c.toml", "c", (41091, 41092), &both);
    let checked = check(&[file], &Variables::new());
    assert!(checked.is_good());
    let told: Vec<&String> = checked.notes.iter().filter(|note| note.contains("its time is past")).collect();
    assert!(told.len() == 1 && told[0].contains("service fair: its time is past, 2020-12-05 09:00"), "{told:?}");
}
