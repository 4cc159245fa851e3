//! Reads config files from disk, and draws what is wrong in them.
//!
//! [`citybrain_shared::config`] judges the text; here is what needs a disk: files that must exist,
//! and paths, which are relative to the config file's folder.

use citybrain_hub::door::users;
use citybrain_hub::tls;
use citybrain_shared::config::{self, Config, Places, Problem, Variables};
use citybrain_shared::words;
use citybrain_shared::words::with_causes;
use miette::{Diagnostic, LabeledSpan, NamedSource, SourceSpan};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use tracing_subscriber::EnvFilter;

/// Problems of one file that are said in one sentence.
const SAID_MAX: usize = 5;

/// A config file as read, good or not.
#[derive(Debug)]
pub struct File {
    pub path: PathBuf,
    pub text: String,
    /// With its paths resolved. There unless the file does not even say who the node is; only
    /// without problems may a node start from it.
    pub config: Option<Config>,
    pub problems: Vec<Problem>,
    pub places: Places,
}

impl File {
    /// Where its problems are, without what stands there.
    pub fn problem_places(&self) -> Vec<String> {
        let place = |p: &Problem| p.line_column(&self.text).map(|(line, _)| format!("line {line}"));
        self.problems.iter().map(|p| place(p).unwrap_or_else(|| p.message.clone())).collect()
    }
}

/// Parts in which two configs are not the same: `broker`, `rule`.
pub fn differing(one: &Config, other: &Config) -> Vec<String> {
    let [one, other] = [one, other].map(|config| serde_json::to_value(config).unwrap_or_default());
    let parts = [&one, &other].into_iter().filter_map(Value::as_object).flat_map(|map| map.keys());
    let parts: BTreeSet<&String> = parts.collect();
    parts.into_iter().filter(|part| one.get(part) != other.get(part)).cloned().collect()
}

/// The config of a file without problems, its paths resolved against the file's folder.
///
/// # Errors
/// [`Invalid`] with every problem in the file.
pub fn load(path: &Path, variables: &Variables) -> Result<Config, Invalid> {
    let file = read(path, variables);
    match file.config {
        Some(config) if file.problems.is_empty() => Ok(config),
        _ => Err(Invalid::new(&file.path, &file.text, &file.problems)),
    }
}

/// Reads a file and notes all that is wrong with it by itself. A file that cannot be read is a
/// problem like any other.
pub fn read(path: &Path, variables: &Variables) -> File {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) => {
            let help = "`citybrain check FILE` reads a config file; examples are in `config/`";
            let problems = vec![Problem::new(format!("cannot read the file: {e}"), None, help)];
            return File { path: path.into(), text: String::new(), config: None, problems, places: Places::default() };
        }
    };
    let config::Parsed { mut config, mut problems, places } = config::parse(&text, variables);
    if let Some(config) = &mut config {
        resolve(config, path.parent().unwrap_or(Path::new("")));
        problems.extend(on_disk(config, &places));
        problems.extend(days(config, &places));
        problems.extend(log_level(&config.log.level, &places));
        problems.extend(crate::brain::rules::check::problems(config, &places, &text));
        problems.extend(crate::brain::cases::check::problems(config, &places));
        problems.extend(crate::brain::services::check::problems(config, &places));
        problems.extend(crate::cap::check::problems(config, &places));
        config.read_from = Some(config::ReadFrom { path: path.into(), variables: variables.clone() });
        problems.sort_by_key(|p| p.span.as_ref().map_or(0, |s| s.start));
    }
    File { path: path.into(), text, config, problems, places }
}

fn resolve(config: &mut Config, folder: &Path) {
    // `components` drops the `.` of `./data`.
    let at = |path: &Path| folder.join(path).components().collect::<PathBuf>();
    config.node.data = at(&config.node.data);
    for (_, file) in files(config) {
        *file = at(file);
    }
}

/// Names the folder and the files by their whole paths: from where a file was read is not theirs to tell.
pub fn name_whole(config: &mut Config) {
    config.node.data = whole(&config.node.data);
    for (_, file) in files(config) {
        *file = whole(file);
    }
}

pub fn whole(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    folder.zip(path.file_name()).map(|(folder, name)| folder.join(name)).unwrap_or(path)
}

/// Reads the calendar's file of days into the calendar.
fn days(config: &mut Config, places: &Places) -> Option<Problem> {
    let calendar = config.calendar.as_mut()?;
    let path = calendar.days_file.as_ref()?;
    // That it cannot be read was said with the other files.
    let text = std::fs::read_to_string(path).ok()?;
    let shown = path.display().to_string();
    let (line, why) = calendar.add_days(&text).err()?;
    let help = "a line each: `2026-10-01..2026-10-07,holiday,words`";
    Some(Problem::new(format!("{shown}:{line}: {why}"), places.value("calendar.days_file"), help))
}

/// Every file that the config names, with its key.
fn files(config: &mut Config) -> Vec<(String, &mut PathBuf)> {
    let b = &mut config.broker;
    let mut files = vec![
        ("broker.password_file".to_owned(), b.password_file.as_mut()),
        ("broker.ca_file".into(), b.ca_file.as_mut()),
        ("broker.cert_file".into(), b.cert_file.as_mut()),
        ("broker.key_file".into(), b.key_file.as_mut()),
        ("access.users_file".into(), config.access.users_file.as_mut()),
        ("api.tokens_file".into(), config.api.tokens_file.as_mut()),
        ("api.cert_file".into(), config.api.cert_file.as_mut()),
        ("api.key_file".into(), config.api.key_file.as_mut()),
        ("api.client_ca_file".into(), config.api.client_ca_file.as_mut()),
        ("api.client_crl_file".into(), config.api.client_crl_file.as_mut()),
        ("calendar.days_file".into(), config.calendar.as_mut().and_then(|c| c.days_file.as_mut())),
    ];
    if let Some(p) = &mut config.parent {
        files.extend([
            ("parent.password_file".into(), p.password_file.as_mut()),
            ("parent.ca_file".into(), p.ca_file.as_mut()),
            ("parent.cert_file".into(), p.cert_file.as_mut()),
            ("parent.key_file".into(), p.key_file.as_mut()),
        ]);
    }
    for (i, l) in config.listener.iter_mut().enumerate() {
        files.extend([
            (format!("listener.{i}.cert_file"), l.cert_file.as_mut()),
            (format!("listener.{i}.key_file"), l.key_file.as_mut()),
            (format!("listener.{i}.client_ca_file"), l.client_ca_file.as_mut()),
            (format!("listener.{i}.client_crl_file"), l.client_crl_file.as_mut()),
        ]);
    }
    for (i, w) in config.webhook.iter_mut().enumerate() {
        files.push((format!("webhook.{i}.secret_file"), w.secret_file.as_mut()));
        files.push((format!("webhook.{i}.ca_file"), w.ca_file.as_mut()));
    }
    files.into_iter().filter_map(|(key, file)| Some((key, file?))).collect()
}

fn on_disk(config: &mut Config, places: &Places) -> Vec<Problem> {
    let mut problems = tokens(config, places);
    let roles: Vec<String> = config.role.iter().map(|r| r.name.clone()).collect();
    for (key, path) in files(config) {
        if let Err(e) = std::fs::read(&*path) {
            let message = format!("cannot read `{}`: {e}", path.display());
            let help = match e.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "the user that the node runs as must read it: `chgrp citybrain FILE`, `chmod 640 FILE`"
                }
                _ => "paths are relative to the config file's folder",
            };
            problems.push(Problem::new(message, places.value(&key), help));
        } else if key.ends_with(".secret_file")
            && let Some(Err(why)) = std::fs::read_to_string(&*path).ok().map(|text| crate::webhook::secret(&text))
        {
            problems.push(Problem::new(why, places.value(&key), ""));
        } else if key == "access.users_file"
            && let Ok(text) = std::fs::read_to_string(&*path)
        {
            let (accounts, bad) = users::parse(&text);
            let bad = bad.into_iter().map(|line| Problem::new(line.to_string(), places.value(&key), ""));
            problems.extend(bad);
            for (role, user) in users::unknown_roles(&accounts, &roles) {
                let message = format!("`{user}` has the role `{role}` there, and no `[[role]]` has this name");
                let help = "add the role, or take it from the user";
                problems.push(Problem::new(message, places.value(&key), help));
            }
        }
    }
    // What cannot be read has been said; whether it is of use is the next question.
    if problems.is_empty() {
        problems.extend(tls(config, places));
    }
    problems
}

/// Does TLS work with the files that are named?
fn tls(config: &Config, places: &Places) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut judge = |section: &str, usable: Result<(), tls::Error>| {
        let Err(e) = usable else { return };
        let key = match &e {
            tls::Error::Ca { .. } if section.starts_with("listener") || section == "api" => "client_ca_file",
            tls::Error::Revoked { .. } => "client_crl_file",
            tls::Error::Ca { .. } => "ca_file",
            _ if section.starts_with("webhook") => "ca_file",
            _ => "cert_file",
        };
        let place = places.value(&format!("{section}.{key}"));
        problems.push(Problem::new(with_causes(&e), place, "PEM files: certificates, and the key of the first"));
    };
    for (i, l) in config.listener.iter().enumerate() {
        if let Some(files) = tls::ServerFiles::of(l) {
            judge(&format!("listener.{i}"), tls::Server::open(files).map(drop));
        }
    }
    if let Some(files) = tls::ServerFiles::of_api(&config.api) {
        judge("api", tls::Server::open(files).map(drop));
    }
    for (i, w) in config.webhook.iter().enumerate() {
        if let Some(file) = &w.ca_file {
            let usable = tls::trusted(file).map(drop);
            judge(&format!("webhook.{i}"), usable);
        }
    }
    if let Some(files) = tls::ClientFiles::of_broker(&config.broker) {
        judge("broker", files.config().map(drop));
    }
    if let Some(files) = config.parent.as_ref().and_then(tls::ClientFiles::of_parent) {
        judge("parent", files.config().map(drop));
    }
    problems
}

/// Lines of the tokens file that open nothing.
fn tokens(config: &Config, places: &Places) -> Vec<Problem> {
    let Some(path) = &config.api.tokens_file else { return Vec::new() };
    let Ok(text) = crate::tokens::read(path) else { return Vec::new() };
    let problem = |(line, why)| {
        let message = format!("line {line} of `{}` does not read: {why}", path.display());
        Problem::new(message, places.value("api.tokens_file"), "`citybrain token add` writes whole lines")
    };
    crate::tokens::parse(&text).1.into_iter().map(problem).collect()
}

/// What is wrong with a log level, if anything.
pub fn level_problem(level: &str) -> Option<String> {
    log_level(level, &Places::default()).map(|p| p.message)
}

fn log_level(level: &str, places: &Places) -> Option<Problem> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let problem = |message, help| Some(Problem::new(message, places.value("log.level"), help));
    // A misspelt level passes as the name of a module, and the log would be silent.
    for word in level.split(',').map(str::trim) {
        let word = word.rsplit('=').next().unwrap_or(word).to_ascii_lowercase();
        let bare = !word.contains(':') && !word.starts_with("citybrain");
        if bare && !LEVELS.contains(&word.as_str()) {
            let help = match config::closest(&word, LEVELS.into_iter()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("use one of {}, or `citybrain_hub=debug,info`", LEVELS.join(", ")),
            };
            return problem(format!("`{word}` is no log level"), help);
        }
    }
    EnvFilter::try_new(level).err().and_then(|e| problem(format!("`{level}` is no log level: {e}"), String::new()))
}

/// Everything wrong with one config file, to be drawn.
#[derive(Debug)]
pub struct Invalid {
    path: PathBuf,
    drawn: Vec<Drawn>,
}

impl Invalid {
    pub fn new(path: &Path, text: &str, problems: &[Problem]) -> Invalid {
        let drawn = problems.iter().map(|p| Drawn::new(path, text, p)).collect();
        Invalid { path: path.into(), drawn }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong, each with its line, for those to whom nothing can be drawn.
    pub fn in_words(&self) -> String {
        let said = |p: &Drawn| match p.line {
            Some(line) => format!("line {line}: {}", p.message),
            None => p.message.clone(),
        };
        let more = self.drawn.len().saturating_sub(SAID_MAX);
        let more = (more > 0).then(|| format!("and {more} more"));
        let all: Vec<String> = self.drawn.iter().take(SAID_MAX).map(said).chain(more).collect();
        format!("{self}: {}", all.join("; "))
    }

    /// One diagnostic for each problem, with its place in the file.
    pub fn problems(&self) -> &[Drawn] {
        &self.drawn
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has {}", self.path.display(), words::counted(self.drawn.len() as u64, "problem"))
    }
}

impl std::error::Error for Invalid {}

impl Diagnostic for Invalid {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.drawn.iter().map(|d| d as &dyn Diagnostic)))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(format!("`citybrain check {}` checks it again without starting", self.path.display())))
    }
}

/// One problem, with the text that it is in.
#[derive(Debug)]
pub struct Drawn {
    message: String,
    help: Option<String>,
    line: Option<usize>,
    source: NamedSource<String>,
    span: Option<SourceSpan>,
}

impl Drawn {
    fn new(path: &Path, text: &str, problem: &Problem) -> Drawn {
        let source = NamedSource::new(path.display().to_string(), text.to_owned());
        let (help, line) = (problem.help.clone(), problem.line_column(text).map(|(line, _)| line));
        Drawn { message: problem.message.clone(), help, line, source, span: problem.span.clone().map(SourceSpan::from) }
    }
}

impl fmt::Display for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without a place the file's name goes before it, for there is no snippet to show it.
        match self.span {
            Some(_) => f.write_str(&self.message),
            None => write!(f, "{}: {}", self.source.name(), self.message),
        }
    }
}

impl std::error::Error for Drawn {}

impl Diagnostic for Drawn {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|h| Box::new(h) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.span.is_some().then_some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span?;
        Some(Box::new(std::iter::once(LabeledSpan::new_primary_with_span(Some("here".into()), span))))
    }
}

/// A folder and those above it, nearest first; where it is relative, the last is the present one.
pub fn above(folder: &Path) -> impl Iterator<Item = &Path> {
    folder.ancestors().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_whole_name_from_wherever_it_was_read() {
        let here = std::env::current_dir().unwrap();
        let named = |folder: &Path| {
            let text = "[node]\naddress = \"c\"\ndata = \"dd\"\n[calendar]\ndays_file = \"./days.csv\"\n";
            let mut config = config::parse(text, &Variables::new()).config.unwrap();
            resolve(&mut config, folder);
            name_whole(&mut config);
            (config.node.data, config.calendar.unwrap().days_file.unwrap())
        };
        let whole = (here.join("src/dd"), here.join("src/days.csv"));
        for folder in ["src", "./src", "src/../src"] {
            assert_eq!(named(Path::new(folder)), whole, "{folder}");
        }
        assert_eq!(named(&here.join("src")), whole);
    }

    #[test]
    fn a_file_that_is_gone_is_named_once() {
        let gone = load(Path::new("no/such.toml"), &Variables::new()).unwrap_err();
        assert_eq!(gone.in_words().matches("no/such.toml").count(), 1, "{}", gone.in_words());
        assert!(gone.problems()[0].to_string().starts_with("no/such.toml: cannot read the file"));
    }
}
