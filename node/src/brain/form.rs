//! What a category or a service asks, and whether the answers are some.

use chrono::DateTime;
use citybrain_shared::config::services::{Answer, Field};
use citybrain_shared::config::{Places, Problem};
use citybrain_shared::words;
use std::collections::BTreeMap;

/// Characters of one answer; of a text.
const ANSWER_MAX: usize = 500;
const TEXT_MAX: usize = 4_000;
/// Bytes of all answers of one form: they travel with their case.
const ANSWERS_BYTES_MAX: usize = 32 * 1024;
/// Questions of one form.
const FIELDS_MAX: usize = 50;

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The question's.
    pub name: String,
    /// It was not answered.
    pub is_missing: bool,
    pub detail: String,
    pub hint: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Those that are nobody's secret.
    pub open: BTreeMap<String, String>,
    /// Those that are kept like a telephone number.
    pub personal: BTreeMap<String, String>,
}

/// The answers to `form`, which is `title`'s; of several choices with commas between them.
///
/// # Errors
/// Everything that is wrong with them.
pub fn answers(title: &str, form: &[Field], given: &BTreeMap<String, String>) -> Result<Answers, Vec<Fault>> {
    let (all, faults) = sorted(title, form, given);
    if faults.is_empty() { Ok(all) } else { Err(faults) }
}

/// The answers to `form` that are some, and everything that is wrong with the others.
pub fn sorted(title: &str, form: &[Field], given: &BTreeMap<String, String>) -> (Answers, Vec<Fault>) {
    let mut all = Answers::default();
    let mut bytes = 0;
    let mut faults = Vec::new();
    let mut fault = |name: &str, is_missing: bool, detail: String, hint: String| {
        faults.push(Fault { name: name.to_owned(), is_missing, detail, hint });
    };
    for (name, answer) in given {
        let answer = answer.trim();
        let Some(field) = form.iter().find(|f| f.name == *name) else {
            let known: Vec<&str> = form.iter().map(|f| f.name.as_str()).collect();
            let hint =
                if known.is_empty() { "it asks nothing".into() } else { format!("it asks {}", known.join(", ")) };
            fault(name, false, format!("{title} does not ask `{name}`"), hint);
            continue;
        };
        if answer.is_empty() {
            continue;
        }
        match value(field, answer) {
            Ok(answer) if bytes + answer.len() > ANSWERS_BYTES_MAX => {
                let detail = format!("the answers are more than {ANSWERS_BYTES_MAX} bytes together");
                fault(name, false, detail, "say it shorter".into());
            }
            Ok(answer) => {
                bytes += answer.len();
                let place = if field.personal { &mut all.personal } else { &mut all.open };
                place.insert(name.clone(), answer);
            }
            Err((detail, hint)) => fault(name, false, detail, hint),
        }
    }
    let is_given = |name: &str| given.get(name).is_some_and(|a| !a.trim().is_empty());
    for field in form.iter().filter(|f| f.required && !is_given(&f.name)) {
        let choices = if field.choices.is_empty() { "…".into() } else { field.choices.join("|") };
        let hint = format!("`\"form\":{{\"{}\":\"{choices}\"}}`", field.name);
        fault(&field.name, true, format!("{title} asks `{}`", field.label()), hint);
    }
    (all, faults)
}

/// What of a form came without good answers, in words that repeat none: they may be personal.
pub fn lacking(form: &[Field], faults: &[Fault]) -> String {
    let label = |f: &Fault| form.iter().find(|field| field.name == f.name).map(Field::label);
    let one = |f: &Fault| match label(f) {
        Some(label) if f.is_missing => format!("`{label}` was not answered"),
        Some(label) => format!("the answer to `{label}` is none"),
        None => format!("`{}` is not asked", words::short(&f.name)),
    };
    faults.iter().take(FIELDS_MAX).map(one).collect::<Vec<_>>().join("; ")
}

fn value(field: &Field, answer: &str) -> Result<String, (String, String)> {
    let none = |hint: String| {
        let shown = words::short(answer);
        Err((format!("`{shown}` is no answer to `{}`", field.label()), hint))
    };
    if !field.choices.is_empty() {
        let mut chosen: Vec<&str> = Vec::new();
        for choice in if field.multiple { answer.split(',').map(str::trim).collect() } else { vec![answer] } {
            if !chosen.contains(&choice) && chosen.len() <= field.choices.len() {
                chosen.push(choice);
            }
        }
        if !chosen.iter().all(|c| field.choices.iter().any(|known| known == c)) {
            let of = if field.multiple { "some of" } else { "one of" };
            return none(format!("{of} {}", field.choices.join(", ")));
        }
        return Ok(chosen.join(","));
    }
    let max = if field.kind == Answer::Text { TEXT_MAX } else { ANSWER_MAX };
    if answer.chars().count() > max {
        return none(format!("at most {max} characters"));
    }
    match field.kind {
        Answer::Number if !answer.parse::<f64>().is_ok_and(f64::is_finite) => none("a number, such as 2 or 1.5".into()),
        // A `+` that was not escaped in a form arrives as a blank.
        Answer::Datetime if DateTime::parse_from_rfc3339(&answer.replace(' ', "+")).is_err() => {
            none("a date and time with its zone: 2026-11-24T08:00:00+08:00".into())
        }
        Answer::Datetime => Ok(answer.replace(' ', "+")),
        _ => Ok(answer.to_owned()),
    }
}

/// What is wrong with a form before a node starts; `path` is where it stands.
pub fn problems(form: &[Field], path: &str, places: &Places) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut bad = |message: String, help: &str| found.push(Problem::new(message, places.value(path), help));
    if form.len() > FIELDS_MAX {
        bad(format!("a form of {} questions", form.len()), "at most 50");
    }
    for (i, field) in form.iter().enumerate() {
        let name = &field.name;
        if name.trim() != name || name.is_empty() || name.chars().count() > 60 || name.contains(['[', ']', '=']) {
            bad(format!("`{name}` is no question's name"), "1 to 60 characters without `[`, `]` and `=`");
        } else if let Some(first) = form[..i].iter().position(|f| f.name == *name) {
            bad(format!("`{name}` is question {} already", first + 1), "");
        }
        if !field.choices.is_empty() && field.kind != Answer::String {
            bad(format!("`{name}` has choices, and a `kind` beside them"), "leave `kind` out");
        }
        if field.multiple && field.choices.is_empty() {
            bad(format!("`{name}` takes several of no choices"), "add `choices`, or leave `multiple` out");
        }
        if field.multiple && field.choices.iter().any(|c| c.contains(',')) {
            bad(format!("a choice of `{name}` has a comma"), "commas stand between several choices");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form() -> Vec<Field> {
        let fields = serde_json::json!([
            {"name": "size", "label": "多少", "required": true, "choices": ["小", "大"]},
            {"name": "smell", "choices": ["a", "b", "c"], "multiple": true},
            {"name": "since", "kind": "datetime"},
            {"name": "bags", "kind": "number"},
            {"name": "flat", "personal": true},
        ]);
        serde_json::from_value(fields).unwrap()
    }

    fn asked(given: &[(&str, &str)]) -> Result<Answers, Vec<String>> {
        let given = given.iter().map(|(n, a)| ((*n).to_owned(), (*a).to_owned())).collect();
        answers("垃圾", &form(), &given).map_err(|all| all.into_iter().map(|f| f.detail).collect())
    }

    #[test]
    fn good_answers_are_taken_and_personal_ones_kept_apart() {
        let all = asked(&[
            ("size", "大"),
            ("smell", "c, a"),
            ("since", "2026-11-24T08:00:00 08:00"),
            ("bags", "2"),
            ("flat", " 7-301 "),
        ])
        .unwrap();
        assert_eq!(all.open["smell"], "c,a");
        assert_eq!((all.open["since"].as_str(), all.open["bags"].as_str()), ("2026-11-24T08:00:00+08:00", "2"));
        assert_eq!((all.personal["flat"].as_str(), all.open.len()), ("7-301", 4));
    }

    #[test]
    fn answers_have_an_end_each_and_all_together() {
        let many = "a,b,".repeat(20_000) + "c";
        assert_eq!(asked(&[("size", "大"), ("smell", &many)]).unwrap().open["smell"], "a,b,c");
        let fields = (0..50).map(|i| serde_json::json!({"name": format!("q{i}"), "kind": "text"}));
        let form: Vec<Field> = serde_json::from_value(fields.collect()).unwrap();
        let given = (0..50).map(|i| (format!("q{i}"), "垃".repeat(TEXT_MAX))).collect();
        let (all, faults) = sorted("垃圾", &form, &given);
        let bytes: usize = all.open.values().map(String::len).sum();
        assert!(bytes <= ANSWERS_BYTES_MAX && all.open.len() == 2, "{bytes}");
        assert_eq!((faults.len(), faults[0].detail.as_str()), (48, "the answers are more than 32768 bytes together"));
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let wrong = asked(&[("smell", "a,x"), ("since", "today"), ("bags", "two"), ("colour", "red"), ("flat", "")]);
        assert_eq!(
            wrong.unwrap_err(),
            [
                "`two` is no answer to `bags`",
                "垃圾 does not ask `colour`",
                "`today` is no answer to `since`",
                "`a,x` is no answer to `smell`",
                "垃圾 asks `多少`",
            ]
        );
        assert_eq!(asked(&[("size", "big")]).unwrap_err(), ["`big` is no answer to `多少`"]);
        assert!(asked(&[("size", "大"), ("flat", &"x".repeat(501))]).is_err());
    }
}
