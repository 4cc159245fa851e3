//! What a page of docs tells a reader to do, in order, and when a real answer is the one on the page.

use regex::Regex;
use std::collections::BTreeMap;
use std::ops::Range;

/// One thing that a reader does.
#[derive(Debug)]
pub enum Step {
    /// Write this file: a block behind a line that begins with its name in backquotes.
    File { name: String, text: String },
    /// A piece of a file: a block of TOML without a name.
    Fragment { text: String, line: usize },
    /// Type this. `answer` is where the page shows what is printed; a block of `sh` shows nothing.
    Command { text: String, line: usize, answer: Option<Range<usize>> },
}

impl Step {
    pub fn text(&self) -> &str {
        match self {
            Step::File { text, .. } | Step::Fragment { text, .. } | Step::Command { text, .. } => text,
        }
    }
}

/// The steps of a page.
pub fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    // The language of the block that is read, where it begins, and the name that stands before it.
    let mut block: Option<(&str, usize, usize)> = None;
    let (mut at, mut named) = (0, None);
    for (n, line) in page.lines().enumerate() {
        let next = at + line.len() + 1;
        match (block, line.strip_prefix("```")) {
            (None, Some(language)) => block = Some((language, next, n + 2)),
            (None, None) if !line.is_empty() => named = name_of_a_file(line),
            (None, None) => {}
            (Some((language, from, first)), Some(_)) => {
                let text = &page[from..at];
                match language {
                    "toml" => steps.push(match named.take() {
                        Some(name) => Step::File { name, text: text.to_owned() },
                        None => Step::Fragment { text: text.to_owned(), line: first },
                    }),
                    "python" => steps.extend(program(text, first)),
                    "sh" => steps.extend(commands(text, first)),
                    "text" => steps.extend(session(text, from, first)),
                    _ => {}
                }
                (block, named) = (None, None);
            }
            (Some(_), None) => {}
        }
        at = next;
    }
    steps
}

/// A program is written to a file and started.
fn program(text: &str, line: usize) -> [Step; 2] {
    let file = Step::File { name: "app.py".to_owned(), text: text.to_owned() };
    [file, Step::Command { text: "python3 -u app.py".to_owned(), line, answer: None }]
}

fn name_of_a_file(line: &str) -> Option<String> {
    let name = line.strip_prefix('`')?.split('`').next()?;
    (name.ends_with(".toml") && !name.contains(' ')).then(|| name.to_owned())
}

/// A script's commands: lines, but what a here-document or a `\` holds together is one.
fn commands(script: &str, first: usize) -> Vec<Step> {
    let mut all = Vec::new();
    let (mut text, mut end, mut line) = (String::new(), None, first);
    for (n, l) in script.lines().enumerate() {
        if text.is_empty() {
            line = first + n;
        }
        text.push_str(l);
        text.push('\n');
        end = end.or_else(|| Some(l.split_once(" <<")?.1.trim_matches('\'').to_owned()));
        let goes_on = end.as_deref().is_some_and(|end| end != l) || l.ends_with('\\');
        if !goes_on {
            let is_command = !text.trim().is_empty() && !text.starts_with('#');
            if is_command {
                all.push(Step::Command { text: text.trim_end().to_owned(), line, answer: None });
            }
            (text, end) = (String::new(), None);
        }
    }
    all
}

/// Commands behind `$ `, each with the lines below it.
fn session(block: &str, from: usize, first: usize) -> Vec<Step> {
    let mut all: Vec<Step> = Vec::new();
    let mut at = from;
    for (n, l) in block.lines().enumerate() {
        let next = at + l.len() + 1;
        if let Some(text) = l.strip_prefix("$ ") {
            all.push(Step::Command { text: text.to_owned(), line: first + n, answer: Some(next..next) });
        } else if let Some(Step::Command { answer: Some(answer), .. }) = all.last_mut() {
            answer.end = next;
        }
        at = next;
    }
    all
}

/// What differs from run to run, and what stands in its place while two answers are compared: the pattern's
/// group, or all of it if it has none. In this order.
const MASKS: [(&str, &str); 11] = [
    // A time of commit, by its day and its second.
    (r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|\+08:00)", "TIME"),
    (r"[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z", "TIME"),
    (r"[0-9]{2}:[0-9]{2}:[0-9]{2}Z", "TIME"),
    // Appointments that are free, and how many more of those are left of today.
    (r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}", "SLOT"),
    (r"SLOT \(1\), and ([0-9]+) later$", "N"),
    // A position in the log: the first column of `events`.
    (r"^ *([0-9]+) +TIME", "POS"),
    // How long ago something was heard.
    (r"([0-9]+(?:\.[0-9]+)? (?:ms|s|min)) ago", "AGE"),
    // How long a replay took, and an import, at the end of their lines.
    (r" acknowledged, .*; ([0-9.]+ s)$", "TOOK"),
    (r"nodes that got some: [0-9]+; ([0-9.]+ s)$", "TOOK"),
    // How long the cases of a row of `case stats` took that were opened and closed within this run.
    (r" ((?: +(?:[0-9]+ m )?[0-9.]+ s){4})$", "TOOK"),
    // How long a limit of an old case has been over: `supervision`.
    (r" (?:response|solution) +([0-9]+ [dhm] [0-9]+ [hms]|[0-9.]+ s) ", "OVER"),
];

/// Names that a run makes up: a case's, an alarm's.
const MADE: &str = r"[0-9]{8}-[0-9a-z]{10}|\b[0-9a-f]{16}\b";

/// Compares answers with those on the page, and remembers which of the run's names stand for the page's.
pub struct Masks {
    patterns: Vec<(Regex, &'static str)>,
    made: Regex,
    /// The page's names, and the run's.
    pub run_by_page: BTreeMap<String, String>,
}

impl Default for Masks {
    fn default() -> Masks {
        let regex = |pattern: &str| {
            let pattern = pattern.replace(r"\b", r"(?-u:\b)");
            Regex::new(&pattern).expect("the patterns here are right")
        };
        let patterns = MASKS.iter().map(|(pattern, mask)| (regex(pattern), *mask)).collect();
        Masks { patterns, made: regex(MADE), run_by_page: BTreeMap::new() }
    }
}

impl Masks {
    /// Whether `real` is what the page shows, but for what [`MASKS`] names. A name that a run makes up must be
    /// the same wherever the page has the same; those that fit are remembered.
    pub fn fit(&mut self, page: &str, real: &str) -> bool {
        if self.plain(page) != self.plain(real) {
            return false;
        }
        let mut names = self.run_by_page.clone();
        let all = |text: &str| self.made.find_iter(text).map(|m| m.as_str().to_owned()).collect::<Vec<_>>();
        for (on_page, of_run) in all(page).into_iter().zip(all(real)) {
            let is_another_s = names.iter().any(|(p, r)| *r == of_run && *p != on_page);
            if is_another_s || *names.entry(on_page).or_insert_with(|| of_run.clone()) != of_run {
                return false;
            }
        }
        self.run_by_page = names;
        true
    }

    /// Remembers names of an answer that does not fit, line by line, as far as lines are alike.
    pub fn learn(&mut self, page: &str, real: &str) {
        for (page, real) in page.lines().zip(real.lines()) {
            self.fit(page, real);
        }
    }

    /// A text of the page with the run's names in it.
    pub fn of_run(&self, text: &str) -> String {
        let name = |c: &regex::Captures| self.run_by_page.get(&c[0]).cloned().unwrap_or_else(|| c[0].to_owned());
        self.made.replace_all(text, name).into_owned()
    }

    /// Names in this text of the page that no answer has brought yet.
    pub fn unknown(&self, text: &str) -> Vec<String> {
        let all = self.made.find_iter(text).map(|m| m.as_str().to_owned());
        all.filter(|name| !self.run_by_page.contains_key(name)).collect()
    }

    fn plain(&self, text: &str) -> String {
        let mut plain = String::new();
        for line in text.lines() {
            let mut line = self.made.replace_all(line, "ID").into_owned();
            for (pattern, mask) in &self.patterns {
                line = masked(pattern, mask, &line);
            }
            // Columns are as wide as what is in them.
            let columns = line.split("  ").map(str::trim).filter(|c| !c.is_empty());
            plain.push_str(&columns.collect::<Vec<_>>().join("  "));
            plain.push('\n');
        }
        plain
    }
}

fn masked(pattern: &Regex, mask: &str, line: &str) -> String {
    let mut out = String::new();
    let mut from = 0;
    for found in pattern.captures_iter(line) {
        let at = found.get(1).or_else(|| found.get(0)).expect("a match has a place").range();
        out.push_str(&line[from..at.start]);
        out.push_str(mask);
        from = at.end;
    }
    out + &line[from..]
}
