//! What is wrong with `[[category]]`, `[calendar]` and `[cases]` before a node starts.

use super::calendar::Calendar;
use crate::brain::form;
use citybrain_shared::config::cases::Cases as Settings;
use citybrain_shared::config::{Config, Places, Problem, closest};
use citybrain_shared::event::GOVERNANCE;
use std::collections::BTreeMap;

/// Things that a category's handlers must show: they go with each of its cases, which must travel.
const EVIDENCE_MAX: usize = 16;

/// They go down to every node below, with the category.
const DESCRIPTION_CHARS_MAX: usize = 1_000;
const KEYWORDS_MAX: usize = 32;

/// Open311 tells them with commas between them.
fn is_keyword(word: &str) -> bool {
    (1..=60).contains(&word.chars().count()) && word.trim() == word && !word.contains(',')
}

/// Can a handler name it, as in `--evidence NAME=URL`?
fn is_evidence(name: &str) -> bool {
    (1..=60).contains(&name.chars().count()) && name.trim() == name && !name.contains('=')
}

/// Every problem, with its place in the file.
pub fn problems(config: &Config, places: &Places) -> Vec<Problem> {
    let (mut found, mut forms) = (Vec::new(), Vec::new());
    let mut bad = |path: &str, message: String, help: &str| {
        found.push(Problem::new(message, places.value(path), help));
    };
    if let Some(Err((key, why))) = config.calendar.as_ref().map(Calendar::new) {
        bad(&format!("calendar.{key}"), why, "");
    }
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, category) in config.category.iter().enumerate() {
        let path = |key: &str| format!("category.{i}.{key}");
        for (key, word) in [("code", &category.code), ("name", &category.name)] {
            let first = *seen.entry(word).or_insert(i);
            if word.trim().is_empty() || word.chars().count() > 60 {
                bad(&path(key), format!("`{word}` is no {key}"), "1 to 60 characters");
            } else if first != i {
                let message = format!("`{word}` names category {} already", first + 1);
                bad(&path(key), message, "codes and names are unique: events name a category by either");
            }
        }
        if category.code.contains(['/', ',']) || category.code.trim() != category.code {
            let help = "without `/`, `,` and blanks around it: it stands in paths and in lists, as Open311 has them";
            bad(&path("code"), format!("`{}` is no code", category.code), help);
        }
        let chars = category.description.chars().count();
        if chars > DESCRIPTION_CHARS_MAX {
            let message = format!("the description has {chars} characters; at most {DESCRIPTION_CHARS_MAX} may be");
            bad(&path("description"), message, "it goes down to every node below with the category");
        }
        if category.keywords.len() > KEYWORDS_MAX {
            let message = format!("{} keywords; at most {KEYWORDS_MAX} may be", category.keywords.len());
            bad(&path("keywords"), message, "they go down to every node below with the category");
        }
        if let Some(word) = category.keywords.iter().find(|w| !is_keyword(w)) {
            bad(&path("keywords"), format!("`{word}` is no keyword"), "1 to 60 characters without a comma");
        }
        if let Some(word) = &category.governance
            && !GOVERNANCE.contains(&word.as_str())
        {
            let help = match closest(word, GOVERNANCE.into_iter()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("one of {}", GOVERNANCE.join(", ")),
            };
            bad(&path("governance"), format!("`{word}` is no kind of governance"), &help);
        }
        if category.evidence.len() > EVIDENCE_MAX {
            let message = format!("{} things must be shown; at most {EVIDENCE_MAX} may be", category.evidence.len());
            bad(&path("evidence"), message, "they go with each case of the category");
        }
        if let Some(name) = category.evidence.iter().find(|n| !is_evidence(n)) {
            bad(
                &path("evidence"),
                format!("`{name}` is no name of what must be shown"),
                "1 to 60 characters without `=`",
            );
        }
        forms.extend(form::problems(&category.form, &path("form"), places));
        if let Some(tier) = category.tier
            && category.reach > tier
        {
            let message = format!("the {tier} handles it and would not see it: `reach` is {}", category.reach);
            bad(&path("reach"), message, "reach at least as high as `tier`");
        }
    }
    let Settings {
        weight_response,
        weight_solution,
        weight_satisfaction,
        partly_solved,
        sos_climb_s,
        on_its_way_s,
        reopen_days,
        ..
    } = config.cases;
    let weights = [("response", weight_response), ("solution", weight_solution), ("satisfaction", weight_satisfaction)];
    for (word, weight) in weights {
        if !(0.0..=1000.0).contains(&weight) {
            bad(&format!("cases.weight_{word}"), format!("{weight} is no weight"), "0 to 1000");
        }
    }
    if weights.iter().all(|(_, weight)| *weight == 0.0) {
        bad("cases.weight_response", "every weight is 0: there would be no score".into(), "one above 0 is enough");
    }
    if !(0.0..=1.0).contains(&partly_solved) {
        bad("cases.partly_solved", format!("{partly_solved} is no part of one"), "0 to 1");
    }
    if !(1..=86_400 * 30).contains(&on_its_way_s) {
        bad("cases.on_its_way_s", format!("{on_its_way_s} s is out of bounds"), "1 s to 30 days");
    }
    if reopen_days > 36_500 {
        bad("cases.reopen_days", format!("{reopen_days} days are out of bounds"), "0 to 36500, a hundred years");
    }
    if !(1..=86_400).contains(&sos_climb_s) {
        bad("cases.sos_climb_s", format!("{sos_climb_s} s is out of bounds"), "1 to 86400 seconds");
    }
    found.append(&mut forms);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        crate::brain::found(problems, text)
    }

    #[test]
    fn a_calendar_that_does_not_read_is_refused() {
        assert_eq!(found("[calendar]\nhours = [\"9-12\"]"), ["`9-12` is no span: write it as 09:00-12:00"]);
        assert_eq!(found("[calendar]\nworkdays = []"), ["nobody would ever work"]);
        assert!(found("[calendar]\nholidays = [\"2026-10-07..2026-10-01\"]")[0].contains("is no day"));
    }

    #[test]
    fn categories_are_told_apart_and_seen_by_those_who_handle_them() {
        let two = "[[category]]\ncode = \"A\"\nname = \"a\"\n[[category]]\ncode = \"B\"\nname = \"A\"\n";
        assert_eq!(found(two), ["`A` names category 1 already"]);
        for code in ["路/灯", "A,B", " A"] {
            let one = format!("[[category]]\ncode = \"{code}\"\nname = \"a, b/c\"\n");
            assert_eq!(found(&one), [format!("`{code}` is no code")]);
        }
        let deep = "[[category]]\ncode = \"A\"\nname = \"a\"\ntier = \"city\"\nreach = \"street\"\n";
        assert_eq!(found(deep), ["the city handles it and would not see it: `reach` is street"]);
        let word = "[[category]]\ncode = \"A\"\nname = \"a\"\ngovernance = \"virtu\"\n";
        assert_eq!(found(word), ["`virtu` is no kind of governance"]);
    }

    #[test]
    fn what_must_be_shown_has_names_that_can_be_given() {
        let evidence =
            |names: &str| found(&format!("[[category]]\ncode = \"A\"\nname = \"a\"\nevidence = [{names}]\n"));
        assert_eq!(evidence("\"photo-after\", \"invoice\""), [""; 0]);
        assert_eq!(evidence("\"a=b\""), ["`a=b` is no name of what must be shown"]);
        assert_eq!(evidence("\" \""), ["` ` is no name of what must be shown"]);
        assert_eq!(evidence(&["\"p\""; 17].join(",")), ["17 things must be shown; at most 16 may be"]);
    }

    #[test]
    fn what_residents_are_told_of_a_category_is_bounded_and_its_keywords_can_be_told_apart() {
        let with = |line: &str| found(&format!("[[category]]\ncode = \"A\"\nname = \"a\"\n{line}\n"));
        assert_eq!(with("description = \"堆在外面的\"\nkeywords = [\"垃圾\", \"大件\"]"), [""; 0]);
        let long = format!("description = \"{}\"", "字".repeat(1001));
        assert_eq!(with(&long), ["the description has 1001 characters; at most 1000 may be"]);
        assert_eq!(with("keywords = [\"a,b\"]"), ["`a,b` is no keyword"]);
        assert_eq!(with("keywords = [\"\"]"), ["`` is no keyword"]);
        let many = format!("keywords = [{}]", ["\"k\""; 33].join(","));
        assert_eq!(with(&many), ["33 keywords; at most 32 may be"]);
    }

    #[test]
    fn a_form_that_nobody_could_answer_is_refused() {
        let form = |fields: &str| found(&format!("[[category]]\ncode = \"A\"\nname = \"a\"\nform = [{fields}]\n"));
        assert_eq!(form("{ name = \"x\" }, { name = \"x\" }"), ["`x` is question 1 already"]);
        assert_eq!(form("{ name = \"a[b\" }"), ["`a[b` is no question's name"]);
        assert_eq!(form("{ name = \"x\", multiple = true }"), ["`x` takes several of no choices"]);
        assert_eq!(
            form("{ name = \"x\", kind = \"number\", choices = [\"1\"] }"),
            ["`x` has choices, and a `kind` beside them"]
        );
        assert!(form("{ name = \"x\", choices = [\"1\", \"2\"], multiple = true }").is_empty());
    }

    #[test]
    fn times_that_no_calendar_has_are_refused() {
        assert_eq!(found("[cases]\nreopen_days = 99999999\n"), ["99999999 days are out of bounds"]);
        assert!(found("[cases]\nreopen_days = 36500\n").is_empty());
    }

    #[test]
    fn a_score_needs_a_weight() {
        let none = "[cases]\nweight_response = 0\nweight_solution = 0\nweight_satisfaction = 0\npartly_solved = 2\n";
        assert_eq!(found(none), ["every weight is 0: there would be no score", "2 is no part of one"]);
    }
}
