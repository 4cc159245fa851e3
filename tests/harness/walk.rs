//! Walks through a page as a reader would, in an empty folder: writes its files, starts its nodes, types its
//! commands, and compares what is printed with the page.
//!
//! - A command behind `$ ` must print what stands below it, `(exit code N)` included where that is not 0; one
//!   of a block of `sh` must end with 0. What only asks is asked again until its answer is the page's: what a
//!   node was told a moment ago may still be on its way.
//! - What differs from run to run, and nothing else, is masked: [`super::steps`]. The page's ports are free
//!   ones here.
//! - With `CITYBRAIN_WRITE_PAGE=1` a page whose answers have changed gets those of this run instead.

use super::steps::{Masks, Step, steps};
use super::{PATIENCE, binary, free_port, skipped, wait_for};
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Commands that ask and change nothing.
const ASKS: [&str; 24] = [
    "alarm list",
    "audit",
    "cap alarm",
    "cap list",
    "case list",
    "case show",
    "case stats",
    "check",
    "directives list",
    "dlq list",
    "doctor",
    "events",
    "links",
    "preset",
    "rates",
    "rule list",
    "scene list",
    "service list",
    "service show",
    "status",
    "supervision",
    "trace",
    "tree",
    "why",
];

/// A page and how it is walked.
pub struct Walk {
    page: &'static str,
    /// Whether the folder has the repository's `config/`.
    has_config: bool,
    /// The page that the reader comes from.
    after: Option<&'static str>,
    /// What is done before the page's own steps.
    given: Vec<Step>,
    /// What is typed before a command, by the command's beginning.
    before: Vec<(&'static str, &'static str)>,
    /// Commands of the page that are not typed, and why.
    left_out: Vec<(&'static str, &'static str)>,
    /// What must happen while a command is waiting for it, by the command's beginning.
    during: Vec<(&'static str, &'static str)>,
    /// A word that the reader replaces, and a command that prints by what.
    stands_for: Vec<(&'static str, &'static str)>,
}

impl Walk {
    pub fn of(page: &'static str) -> Walk {
        Walk {
            page,
            has_config: false,
            after: None,
            given: Vec::new(),
            before: Vec::new(),
            left_out: Vec::new(),
            during: Vec::new(),
            stands_for: Vec::new(),
        }
    }

    /// The folder is a clone's, with its `config/`.
    pub fn in_a_clone(mut self) -> Walk {
        self.has_config = true;
        self
    }

    /// Typed before the page's own commands. `citybrain run --config FILE &` starts a node.
    pub fn given(mut self, script: &str) -> Walk {
        self.given.extend(steps(&format!("```sh\n{script}\n```\n")));
        self
    }

    /// The reader has been through that page, all of it.
    pub fn after(mut self, page: &'static str) -> Walk {
        self.after = Some(page);
        self
    }

    pub fn before(mut self, command: &'static str, script: &'static str) -> Walk {
        self.before.push((command, script));
        self
    }

    pub fn without(mut self, commands: &[(&'static str, &'static str)]) -> Walk {
        self.left_out.extend(commands);
        self
    }

    pub fn during(mut self, command: &'static str, happens: &'static str) -> Walk {
        self.during.push((command, happens));
        self
    }

    pub fn stands_for(mut self, word: &'static str, command: &'static str) -> Walk {
        self.stands_for.push((word, command));
        self
    }

    pub fn go(self) {
        let path = root().join(self.page);
        let page = std::fs::read_to_string(&path).expect("the page is there");
        let earlier = self.after.map(|page| std::fs::read_to_string(root().join(page)).expect("the page is there"));
        if page.contains("mosquitto_") && !crate::clients::mosquitto_is_there() {
            return;
        }
        for needed in ["curl", "openssl"] {
            let is_there = Command::new(needed).arg("--version").output().is_ok();
            if page.contains(&format!("\n{needed} ")) && !is_there {
                return skipped(&format!("{needed} is not there (apt-get install {needed})"));
            }
        }
        let steps = steps(&page);
        let named = [&self.left_out, &self.during, &self.before].into_iter().flatten().map(|(command, _)| command);
        for command in named {
            let is_it = |s: &&Step| matches!(s, Step::Command { text, .. } if text.starts_with(command));
            assert!(steps.iter().any(|s| is_it(&s)), "{}: no command begins with `{command}`", self.page);
        }
        let mut walker = Walker::new(&self, &page, earlier.as_deref().unwrap_or_default());
        if let Some(earlier) = &earlier {
            walker.goes_over(earlier);
        }
        for step in self.given.iter().chain(&steps) {
            walker.step(step);
        }
        // Files that the pieces name are there by now.
        for step in &steps {
            if let Step::Fragment { text, line } = step {
                walker.fragment(text, *line);
            }
        }
        walker.stop();
        walker.end(&path);
    }
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("node lies in the workspace").to_owned()
}

struct Walker<'a> {
    walk: &'a Walk,
    page: &'a str,
    masks: Masks,
    ports: Ports,
    shell: Shell,
    nodes: Vec<Child>,
    /// Answers of this run, by where the page shows its own; those that differ are told.
    answers: Vec<(std::ops::Range<usize>, String)>,
    wrong: Vec<String>,
    stands_for: BTreeMap<&'static str, String>,
    dir: tempfile::TempDir,
}

impl<'a> Walker<'a> {
    fn new(walk: &'a Walk, page: &'a str, earlier: &str) -> Walker<'a> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut shell = Shell::new(dir.path());
        let texts = walk.given.iter().map(|step| step.text().to_owned());
        let scripts = walk.before.iter().map(|(_, script)| (*script).to_owned());
        let files = if walk.has_config { config() } else { Vec::new() };
        let texts = texts.chain(scripts).chain(files.iter().map(|(_, text)| text.clone()));
        let ports = Ports::of(&format!("{page}\n{earlier}\n127.0.0.1:8080\n{}", texts.collect::<Vec<_>>().join("\n")));
        if walk.has_config || page.contains("127.0.0.1:8080") {
            // Who names no node asks port 8080.
            shell.run(&ports.of_run("export CITYBRAIN_NODE=http://127.0.0.1:8080"));
        }
        for (name, text) in &files {
            let path = shell.folder.join("config").join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
            std::fs::write(path, ports.of_run(text)).expect("the file is written");
        }
        Walker {
            walk,
            page,
            masks: Masks::default(),
            ports,
            shell,
            nodes: Vec::new(),
            answers: Vec::new(),
            wrong: Vec::new(),
            stands_for: BTreeMap::new(),
            dir,
        }
    }

    /// Another page first: its own walk compares its answers.
    fn goes_over(&mut self, earlier: &'a str) {
        let page = std::mem::replace(&mut self.page, earlier);
        for step in &steps(earlier) {
            self.step(step);
        }
        self.page = page;
        self.answers.clear();
        self.wrong.clear();
        // The two pages were written in runs of their own.
        self.masks = Masks::default();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::File { name, text } => {
                let file = self.shell.folder.join(name);
                std::fs::write(file, self.ports.of_run(text)).expect("the file is written");
            }
            Step::Fragment { .. } => {}
            Step::Command { text, line, answer } => {
                if self.walk.left_out.iter().any(|(command, _)| text.starts_with(command)) {
                    return;
                }
                let at = format!("{}:{line}", self.walk.page);
                for (_, script) in self.walk.before.iter().filter(|(command, _)| text.starts_with(command)) {
                    for line in script.lines() {
                        self.types(line.trim(), &at);
                    }
                }
                match answer {
                    None => self.types(text, &at),
                    Some(place) => self.compares(text, &at, place.clone()),
                }
            }
        }
    }

    /// A piece of a node's file must be right in a file that has nothing else.
    fn fragment(&mut self, text: &str, line: usize) {
        let node = "[node]
address = \"a/b/c/d\"
name = \"d\"
data = \"of-a-piece\"
[access]
anonymous = true
[broker]
listen = \"127.0.0.1:PORT\"
";
        let text = format!("{}{}", node.replace("PORT", &free_port().to_string()), self.ports.of_run(text));
        std::fs::write(self.shell.folder.join("piece.toml"), &text).expect("the file is written");
        let (told, code) = self.shell.run("citybrain check piece.toml");
        assert_eq!(code, 0, "{}:{line}: {told}\n{text}", self.walk.page);
    }

    /// The page's words as they are typed here.
    fn real(&mut self, command: &str, at: &str) -> String {
        let unknown = self.masks.unknown(command);
        assert!(unknown.is_empty(), "{at}: `{command}`: no answer has brought {unknown:?}");
        let mut text = self.masks.of_run(&self.ports.of_run(command));
        for (word, by) in &self.walk.stands_for {
            if replace_word(&text, word, "") == text {
                continue;
            }
            let by = self.ports.of_run(by);
            let value = self.stands_for.entry(word).or_insert_with(|| {
                wait_for(&format!("{at}: `{by}` prints something"), || {
                    let (told, code) = self.shell.run(&by);
                    (code == 0 && !told.trim().is_empty()).then(|| told.trim().to_owned())
                })
            });
            text = replace_word(&text, word, value);
        }
        text
    }

    /// A command whose answer is not on the page: it must succeed.
    fn types(&mut self, command: &str, at: &str) {
        let real = self.real(command, at);
        let run = Regex::new(r"^citybrain run --config ([^ ]+)(?: 2> [^ ]+)? &$").expect("a pattern");
        if let Some(file) = run.captures(&real) {
            return self.starts(&file[1], at);
        }
        // The only node so far.
        if real == "kill %1" {
            return self.stop();
        }
        if let Some((_, happens)) = self.walk.during.iter().find(|(c, _)| command.starts_with(c)) {
            let (told, code) = self.beside(&real, happens);
            let is_well = code == Some(0) || (code.is_none() && !told.is_empty());
            assert!(is_well, "{at}: {command}\nends with {code:?}\n{told}\n{}", self.wrong.join("\n"));
            return;
        }
        let asks = is_question(command);
        let end = Instant::now() + patience();
        loop {
            let (told, code) = self.shell.run(&real);
            if code == 0 {
                return;
            }
            let goes_on = asks && Instant::now() < end;
            assert!(goes_on, "{at}: {command}\nends with {code}\n{told}\n{}", self.wrong.join("\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn compares(&mut self, command: &str, at: &str, place: std::ops::Range<usize>) {
        let real = self.real(command, at);
        let page = &self.page[place.clone()];
        let end = Instant::now() + patience();
        let shown = loop {
            let shown = shown(&self.ports, self.shell.run(&real));
            if self.masks.fit(page, &shown) || !is_question(command) || Instant::now() > end {
                break shown;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        if !self.masks.fit(page, &shown) {
            self.masks.learn(page, &shown);
            self.wrong.push(format!("{at}: {command}\n--- on the page:\n{page}--- now:\n{shown}"));
        }
        self.answers.push((place, shown));
    }

    /// A command that waits: does what it waits for until it ends, or has printed something and goes on. What it
    /// printed, and how it ended.
    fn beside(&mut self, real: &str, happens: &str) -> (String, Option<i32>) {
        // A process group of its own.
        self.shell.run(&format!("set -m\n{{\n{real}\n}} >../beside 2>&1 </dev/null &\nbeside=$!\nset +m"));
        let happens = self.ports.of_run(happens);
        let end = Instant::now() + patience();
        for tries in 1.. {
            self.shell.run(&happens);
            let has_ended = self.shell.run("kill -0 $beside 2>/dev/null").1 != 0;
            let told = std::fs::read_to_string(self.dir.path().join("beside")).unwrap_or_default();
            if has_ended {
                return (told, Some(self.shell.run("wait $beside").1));
            }
            if (!told.is_empty() && tries > 10) || Instant::now() > end {
                self.shell.run("kill -- -$beside; wait $beside");
                return (told, None);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        unreachable!("the loop has no end but those above")
    }

    /// Starts a node as the reader would, and waits until it is ready.
    fn starts(&mut self, file: &str, at: &str) {
        let path = self.shell.folder.join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{at}: {file}: {e}"));
        let config: toml::Table = text.parse().expect("the file is TOML");
        let api = config["api"]["listen"].as_str().expect("the node has an API").to_owned();
        let is_https = config["api"].get("cert_file").is_some();
        let log = self.dir.path().join(format!("node-{}.log", self.nodes.len()));
        let out = std::fs::File::create(&log).expect("the log file opens");
        let child = Command::new(binary())
            .args(["run", "--config", file])
            .current_dir(&self.shell.folder)
            // It stops when this pipe closes.
            .env("CITYBRAIN_STOP_WITH_STDIN", "1")
            .stdin(Stdio::piped())
            .stdout(out.try_clone().expect("a file handle can be doubled"))
            .stderr(out)
            .spawn()
            .expect("the binary starts");
        self.nodes.push(child);
        let node = self.nodes.last_mut().expect("it was pushed");
        wait_for(&format!("{at}: {file} is ready"), || {
            if let Some(status) = node.try_wait().expect("its status can be asked") {
                panic!("{at}: {file} ends with {status}\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            match is_https {
                true => std::net::TcpStream::connect(&api).ok().map(|_| ()),
                false => ureq::get(format!("http://{api}/readyz")).call().ok().map(|_| ()),
            }
        });
    }

    /// Every node that was started stops cleanly when it is told to.
    fn stop(&mut self) {
        for node in &mut self.nodes {
            drop(node.stdin.take());
        }
        for mut node in self.nodes.drain(..) {
            wait_for("a node of the page stops", || {
                let status = node.try_wait().expect("its status can be asked")?;
                assert!(status.success(), "a node of {} ended with {status}", self.walk.page);
                Some(())
            });
        }
    }

    /// Compares all, or writes the page anew.
    fn end(self, path: &Path) {
        if self.wrong.is_empty() {
            return;
        }
        assert!(
            std::env::var_os("CITYBRAIN_WRITE_PAGE").is_some(),
            "{} of {} answers are not those on the page (CITYBRAIN_WRITE_PAGE=1 writes them there):\n{}",
            self.wrong.len(),
            self.answers.len(),
            self.wrong.join("\n")
        );
        let mut page = String::new();
        let mut from = 0;
        for (place, answer) in &self.answers {
            page.push_str(&self.masks.of_run(&self.page[from..place.start]));
            page.push_str(answer);
            from = place.end;
        }
        page.push_str(&self.page[from..]);
        std::fs::write(path, page).expect("the page is written");
    }
}

impl Drop for Walker<'_> {
    fn drop(&mut self) {
        for mut node in self.nodes.drain(..) {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// The files of `config/` for people, and their texts. Their activity is always still to come here.
fn config() -> Vec<(String, String)> {
    let from = root().join("config");
    let mut all = Vec::new();
    for folder in ["", "replay"] {
        for entry in std::fs::read_dir(from.join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|e| e == "toml" || e == "csv") {
                let name = path.strip_prefix(&from).expect("it lies there").to_string_lossy().into_owned();
                let text = std::fs::read_to_string(&path).expect("a text").replace("2026-12-05", "2100-12-05");
                all.push((name, text));
            }
        }
    }
    all
}

fn patience() -> Duration {
    let is_written = std::env::var_os("CITYBRAIN_WRITE_PAGE").is_some();
    if is_written { Duration::from_secs(4) } else { PATIENCE / 3 }
}

fn is_question(command: &str) -> bool {
    let Some(rest) = command.strip_prefix("citybrain ") else { return command.contains("--retained-only") };
    ASKS.iter().any(|ask| rest == *ask || rest.strip_prefix(ask).is_some_and(|r| r.starts_with(' ')))
}

/// What was printed, as pages show it.
fn shown(ports: &Ports, (told, code): (String, i32)) -> String {
    let mut shown: String = ports.of_page(&told).lines().map(|l| format!("{}\n", l.trim_end())).collect();
    if code != 0 {
        shown.push_str(&format!("(exit code {code})\n"));
    }
    shown
}

fn replace_word(text: &str, word: &str, by: &str) -> String {
    let pattern = Regex::new(&format!(r"(?-u:\b){word}(?-u:\b)")).expect("a word");
    pattern.replace_all(text, regex::NoExpand(by)).into_owned()
}

/// The page's ports and the free ones that stand for them.
struct Ports {
    run_by_page: BTreeMap<String, String>,
    page_by_run: BTreeMap<String, String>,
}

impl Ports {
    fn of(page: &str) -> Ports {
        let named = Regex::new(r"(?:127\.0\.0\.1:|0\.0\.0\.0:|localhost:| -p )([0-9]{4,5})").expect("a pattern");
        let all = named.captures_iter(page).filter_map(|c| Some(c.get(1)?.as_str().to_owned()));
        let all: BTreeSet<String> = all.collect();
        let run_by_page: BTreeMap<_, _> = all.into_iter().map(|port| (port, free_port().to_string())).collect();
        let page_by_run = run_by_page.iter().map(|(page, run)| (run.clone(), page.clone())).collect();
        Ports { run_by_page, page_by_run }
    }

    fn of_run(&self, text: &str) -> String {
        replaced(text, &self.run_by_page)
    }

    fn of_page(&self, text: &str) -> String {
        replaced(text, &self.page_by_run)
    }
}

fn replaced(text: &str, ports: &BTreeMap<String, String>) -> String {
    let number = Regex::new(r"(?-u:\b)[0-9]{4,5}(?-u:\b)").expect("a pattern");
    let other = |c: &regex::Captures| ports.get(&c[0]).cloned().unwrap_or_else(|| c[0].to_owned());
    number.replace_all(text, other).into_owned()
}

/// One bash for a whole page: what is exported and assigned stays.
struct Shell {
    child: Child,
    codes: Receiver<i32>,
    folder: PathBuf,
}

impl Shell {
    fn new(dir: &Path) -> Shell {
        let folder = dir.join("here");
        std::fs::create_dir(&folder).expect("the folder is made");
        // What a command that asks for a password is told.
        std::fs::write(dir.join("typed"), "correct horse battery\n").expect("the file is written");
        // Refused requests are failures, as they are for a reader.
        std::fs::write(dir.join(".curlrc"), "fail-with-body\nno-progress-meter\n").expect("the file is written");
        let bin = Path::new(binary()).parent().expect("it lies in a folder");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("bash");
        for name in ["CITYBRAIN_NODE", "CITYBRAIN_CONTEXT", "CITYBRAIN_TOKEN_FILE", "TZ", "XDG_CONFIG_HOME"] {
            command.env_remove(name);
        }
        let mut child = command
            .args(["--norc", "--noprofile", "-s"])
            .current_dir(&folder)
            .envs([("PATH", path.as_str()), ("USER", "anna"), ("LC_ALL", "C.UTF-8")])
            .env("HOME", dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash starts");
        let out = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let (tell, codes) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let Some(code) = line.strip_prefix("code ").and_then(|code| code.parse().ok()) else { continue };
                if tell.send(code).is_err() {
                    return;
                }
            }
        });
        Shell { child, codes, folder }
    }

    /// What the command prints on both streams, and how it ends.
    fn run(&mut self, command: &str) -> (String, i32) {
        let stdin = self.child.stdin.as_mut().expect("it is a pipe");
        let line = format!("{{\n{command}\n}} >../told 2>&1 <../typed\necho code $?\n");
        stdin.write_all(line.as_bytes()).expect("bash reads");
        let code = self.codes.recv_timeout(PATIENCE);
        let told = std::fs::read(self.folder.join("../told")).expect("the answer is there");
        let told = String::from_utf8(told).expect("it prints UTF-8");
        (told.clone(), code.unwrap_or_else(|e| panic!("`{command}` has not ended: {e}\n{told}")))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
