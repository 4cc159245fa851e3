//! What is wrong with `[cap]` before a node starts.

use super::{CATEGORIES, CERTAINTIES, RESPONSES, SEVERITIES, URGENCIES};
use citybrain_shared::config::{Config, Places, Problem, closest};

/// Every problem, with its place in the file.
pub fn problems(config: &Config, places: &Places) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut bad = |path: &str, message: String, help: String| {
        found.push(Problem::new(message, places.value(path), help));
    };
    let domain = &config.cap.domain;
    let is_bad = |c: char| c.is_whitespace() || [',', '<', '&', '@'].contains(&c);
    if domain.is_empty() || domain.len() > 120 || domain.contains(is_bad) {
        let help = "1 to 120 characters without space, comma, `<`, `&` and `@`: `brain.chengdu.example`";
        bad("cap.domain", format!("`{domain}` is no domain"), help.into());
    }
    for (i, alarm) in config.cap.alarm.iter().enumerate() {
        let mut word = |key: &str, given: &str, known: &[&str]| {
            if !known.contains(&given) {
                let help = match closest(given, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("one of {}", known.join(", ")),
                };
                bad(&format!("cap.alarm.{i}.{key}"), format!("CAP has no {key} `{given}`"), help);
            }
        };
        let words = [
            ("category", &alarm.category, CATEGORIES),
            ("urgency", &alarm.urgency, URGENCIES),
            ("severity", &alarm.severity, SEVERITIES),
            ("certainty", &alarm.certainty, CERTAINTIES),
        ];
        for (key, given, known) in words {
            given.iter().for_each(|g| word(key, g, known));
        }
        alarm.response.iter().for_each(|g| word("response", g, RESPONSES));
        let stars = alarm.name.trim_end_matches('*');
        if alarm.name.is_empty() || stars.contains('*') || alarm.name.len() > stars.len() + 1 {
            let message = format!("`{}` is no alarm's name", alarm.name);
            bad(&format!("cap.alarm.{i}.name"), message, "a name, or what it begins with and `*`".into());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_words_of_cap_are_taken() {
        let found = |text: &str| crate::brain::found(super::problems, text);
        assert_eq!(found("[cap]\ndomain = \"a b\""), ["`a b` is no domain"]);
        let alarm = |rest: &str| found(&format!("[[cap.alarm]]\nname = \"smoke*\"\n{rest}"));
        assert_eq!(alarm("category = \"fire\""), ["CAP has no category `fire`"]);
        assert_eq!(alarm("response = [\"Evacuate\", \"Run\"]"), ["CAP has no response `Run`"]);
        assert_eq!(found("[[cap.alarm]]\nname = \"a*b\""), ["`a*b` is no alarm's name"]);
        assert!(
            alarm("category = \"Fire\"\nurgency = \"Future\"\ncertainty = \"Likely\"\nseverity = \"Minor\"").is_empty()
        );
    }
}
