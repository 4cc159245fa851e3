//! `docs/operations.md`: what a real run answers must be what the page says.
//!
//! Numbers, times, ports and folders differ from run to run and are not compared; words are. With
//! `CITYBRAIN_WRITE_PAGE=1` the answers are written into the page instead.

use super::ran::{Ran, run};
use super::{Tree, wait_for};
use std::path::PathBuf;
use std::sync::Mutex;

/// The folder on the page that stands for the test's own.
const SHOWN_DIR: &str = "/var/lib/citybrain";
/// Tests run side by side, and share the page.
static PAGE: Mutex<()> = Mutex::new(());

pub fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md")
}

/// Asks the node at `at` until the answer has these words and is the one below the question's
/// heading on the page. `line` is the command as the page shows it; behind ` | grep ` stands what
/// its lines must have to be shown.
pub fn answers(tree: &Tree, at: &str, question: &str, line: &str, code: i32, words: &[&str]) {
    let (command, filter) = line.split_once(" | grep ").map_or((line, None), |(c, f)| (c, Some(f)));
    let real = command.replace(SHOWN_DIR, &tree.dir().display().to_string());
    let url = tree.node(at).url();
    let mut args: Vec<&str> = real.split(' ').skip(1).collect();
    let names_a_folder = ["--offline", "--config", "store", "check"].iter().any(|w| args.contains(w));
    if !names_a_folder {
        args.extend(["--node", &url]);
    }
    let is_written = std::env::var_os("CITYBRAIN_WRITE_PAGE").is_some();
    let mut last = String::new();
    let shown = wait_or_tell(question, &mut last, || {
        let ran = run(&args);
        let shown = format!("{} $ {line}\n{}", tree.node(at).address, told(tree, &ran, filter));
        let fits = ran.code == code && words.iter().all(|w| shown.contains(w));
        let done = (fits && (is_written || plain(&shown) == plain(&on_page(question)))).then(|| shown.clone());
        (done, format!("exit code {}, {words:?} wanted\n{shown}\non the page:\n{}", ran.code, on_page(question)))
    });
    if is_written {
        write(question, &shown);
    }
}

/// As [`wait_for`], with what was last seen in the panic's message.
fn wait_or_tell(question: &str, last: &mut String, mut ask: impl FnMut() -> (Option<String>, String)) -> String {
    let seen = std::cell::RefCell::new(last);
    let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for(question, || {
            let (done, told) = ask();
            **seen.borrow_mut() = told;
            done
        })
    }));
    tried.unwrap_or_else(|_| panic!("{question}: {}", seen.borrow()))
}

/// What was said, with this machine's names taken out.
fn told(tree: &Tree, ran: &Ran, filter: Option<&str>) -> String {
    let text = format!("{}{}", ran.out, ran.err);
    let text = text.replace(&tree.dir().display().to_string(), SHOWN_DIR);
    let text = text.replace(&citybrain_node::ask::who(), "anna@liucheng");
    // Every node here has only just started; whether it still says so depends on the machine.
    let mut lines: Vec<&str> = text.lines().filter(|l| !l.starts_with("note  starting ")).collect();
    if let Some(at) = lines.iter().position(|l| l.starts_with("ALSO "))
        && !lines
            .get(at + 1)
            .is_some_and(|l| l.starts_with("note ") || l.starts_with("slow ") || l.starts_with("stuck "))
    {
        lines.remove(at);
    }
    let lines = lines.into_iter().filter(|l| filter.is_none_or(|f| l.contains(f)));
    let mut shown: String = lines.map(|l| format!("{}\n", l.trim_end())).collect();
    if ran.code != 0 && filter.is_none() {
        shown.push_str(&format!("(exit code {})\n", ran.code));
    }
    shown
}

/// The first code block below the question's heading; empty without one.
fn on_page(question: &str) -> String {
    let page = std::fs::read_to_string(path()).unwrap_or_default();
    block(&page, question).map(|at| page[at].to_owned()).unwrap_or_default()
}

fn block(page: &str, question: &str) -> Option<std::ops::Range<usize>> {
    let heading = format!("\n### {question}\n");
    let section = page.find(&heading)? + heading.len();
    let end = page[section..].find("\n### ").map_or(page.len(), |n| section + n);
    let open = "```text\n";
    let from = section + page[section..end].find(open)? + open.len();
    Some(from..from + page[from..end].find("```")?)
}

fn write(question: &str, shown: &str) {
    let _one = PAGE.lock().expect("no writer has failed");
    let mut page = std::fs::read_to_string(path()).expect("the page is read");
    let at = block(&page, question).unwrap_or_else(|| panic!("`{question}` has no block on the page"));
    page.replace_range(at, shown);
    std::fs::write(path(), page).expect("the page is written");
}

/// Words without what differs from run to run: numbers, with their units, and blanks.
fn plain(text: &str) -> String {
    const UNITS: [&str; 12] = ["µs", "ms", "s", "m", "min", "h", "d", "bytes", "kB", "MB", "GB", "ago"];
    let mut words: Vec<&str> = Vec::new();
    for word in text.split_whitespace() {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        let last = words.last().copied();
        // An incarnation may happen to have letters only.
        let is_hex = bare.len() >= 8 && bare.chars().all(|c| c.is_ascii_hexdigit());
        let is_number = is_hex || bare.is_empty() || word.chars().any(|c| c.is_ascii_digit());
        if is_number || (last == Some("#") && UNITS.contains(&bare)) {
            if last != Some("#") {
                words.push("#");
            }
        } else {
            words.push(word);
        }
    }
    words.join(" ")
}
