//! All that a start would find wrong, without starting: for one config file, or a tree of them.

mod calendars;
mod offers;
#[cfg(test)]
mod tests;

use crate::api::outward::CHANGED;
use crate::certificates::{self, EXPIRES_SOON};
use crate::config::{self, File, Invalid};
use crate::tokens::{self, Role, receiver_hint};
use crate::webhook;
use citybrain_hub::door::users;
use citybrain_hub::tls;
use citybrain_shared::config::rules::{Action, Rule};
use citybrain_shared::config::{
    Config, Endpoint, Problem, Protocol, Variables, Webhook, clash, closest, is_at, presets,
};
use citybrain_shared::view;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What a check found.
#[derive(Debug)]
pub struct Checked {
    pub files: Vec<File>,
    /// For each file its parent's address, or the URL of one that is not among the files.
    parents: Vec<String>,
    checked: Vec<String>,
    notes: Vec<String>,
}

impl Checked {
    pub fn is_good(&self) -> bool {
        self.files.iter().all(|f| f.problems.is_empty())
    }

    /// The files with problems, to be drawn.
    pub fn invalid(&self) -> Vec<Invalid> {
        let bad = self.files.iter().filter(|f| !f.problems.is_empty());
        bad.map(|f| Invalid::new(&f.path, &f.text, &f.problems)).collect()
    }

    pub fn view(&self) -> view::Check {
        let files = self.files.iter().zip(&self.parents).map(|(f, parent)| file_view(f, parent)).collect();
        view::Check { ok: self.is_good(), files, checked: self.checked.clone(), notes: self.notes.clone() }
    }
}

fn file_view(file: &File, parent: &str) -> view::CheckedFile {
    let problem = |p: &Problem| {
        let (line, column) = p.line_column(&file.text).unzip();
        view::FileProblem { line, column, message: p.message.clone(), help: p.help.clone() }
    };
    let of = |f: &dyn Fn(&Config) -> String| file.config.as_ref().map(f).unwrap_or_default();
    view::CheckedFile {
        path: file.path.display().to_string(),
        address: file.config.as_ref().map(|c| c.node.address.clone()),
        name: of(&|c| c.node.name.clone()),
        broker: of(&|c| c.broker.url.clone().unwrap_or_else(|| c.broker.listen.to_string())),
        api: of(&|c| c.api.listen.to_string()),
        parent: parent.to_owned(),
        data: of(&|c| c.node.data.display().to_string()),
        problems: file.problems.iter().map(problem).collect(),
    }
}

/// Checks every file by itself, then all of them together. Leaves nothing behind on the disk, and
/// holds no port.
pub fn check(paths: &[PathBuf], variables: &Variables) -> Checked {
    let files: Vec<File> = paths.iter().map(|p| config::read(p, variables)).collect();
    let mut tree = Tree {
        found: vec![Vec::new(); files.len()],
        parents: vec![String::new(); files.len()],
        notes: Vec::new(),
        files,
    };
    for i in 0..tree.files.len() {
        tree.folder(i);
        tree.ports_free(i);
        tree.certificates(i);
        tree.parent(i);
        tree.alarms(i);
        tree.offers(i);
        tree.devices(i);
        tree.doubts(i);
        tree.readers(i);
        for j in 0..i {
            tree.pair(j, i);
        }
    }
    tree.notes.extend(calendars::notes(&tree.files));
    let now = chrono::Utc::now();
    tree.notes.extend(calendars::run_out(&tree.files, now));
    tree.notes.extend(offers::past(&tree.files, now));
    let Tree { mut files, found, parents, notes } = tree;
    for (file, more) in files.iter_mut().zip(found) {
        file.problems.extend(more);
        file.problems.sort_by_key(|p| p.span.as_ref().map_or(0, |s| s.start));
    }
    let mut checked = vec!["keys, values and what does not go together".to_owned()];
    let mut notes = notes;
    let unread: Vec<String> =
        files.iter().filter(|f| f.config.is_none()).map(|f| f.path.display().to_string()).collect();
    if unread.is_empty() {
        checked.push("files that are named exist, certificates and keys fit; data folders can be written".into());
    } else {
        notes.push(format!("not looked at further until it reads: {}", unread.join(", ")));
    }
    if files.len() > 1 && unread.is_empty() {
        checked.push("addresses, ports and data folders are each used once".into());
        checked.push("each parent listens where its children look for it, one tier above, and lets them in".into());
    }
    Checked { files, parents, checked, notes }
}

struct Tree {
    files: Vec<File>,
    found: Vec<Vec<Problem>>,
    parents: Vec<String>,
    notes: Vec<String>,
}

impl Tree {
    fn config(&self, i: usize) -> Option<&Config> {
        self.files[i].config.as_ref()
    }

    fn path(&self, i: usize) -> String {
        self.files[i].path.display().to_string()
    }

    fn bad(&mut self, i: usize, key: &str, message: String, help: impl Into<String>) {
        let span = self.files[i].places.value(key);
        self.found[i].push(Problem::new(message, span, help));
    }

    fn folder(&mut self, i: usize) {
        let Some(data) = self.config(i).map(|c| c.node.data.clone()) else { return };
        let Err((kind, why)) = writable(&data) else { return };
        let said = format!("cannot keep data in `{}`: {why}", data.display());
        // On a full disk a node starts all the same, to serve what it has.
        if matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
            self.notes.push(format!("{}: {said}; a node here takes nothing until there is room", self.path(i)));
        } else {
            self.bad(i, "node.data", said, "name a folder that the node's user may write to");
        }
    }

    /// A port in use is no fault of the file: the node may be running.
    fn ports_free(&mut self, i: usize) {
        let Some(config) = self.config(i) else { return };
        let mut notes = Vec::new();
        for (key, at) in listeners(config) {
            if let Err(e) = TcpListener::bind(at) {
                notes.push(format!("{}: `{key}` {at} cannot be used now: {e}", self.path(i)));
            }
        }
        self.notes.extend(notes);
    }

    /// Certificates that are over, or will be soon: notes. A node starts all the same, and must be let:
    /// the unit checks before each start, and after a power cut it may be the clock that is wrong.
    fn certificates(&mut self, i: usize) {
        let Some(config) = self.config(i) else { return };
        let now = SystemTime::now();
        let mut notes = Vec::new();
        for named in certificates::of(config) {
            let Ok(validity) = named.validity() else { continue };
            let day = |t: SystemTime| chrono::DateTime::<chrono::Utc>::from(t).format("%Y-%m-%d");
            let what = if named.is_list { "revocation list" } else { "certificate" };
            let good = format!("is good from {} to {}", day(validity.from), day(validity.until));
            let said = format!("{}: `{}`: the {what} in `{}` {good}", self.path(i), named.key, named.file.display());
            if !validity.holds(now) {
                notes.push(format!("{said}, and not now: renew it, or see whether this machine's clock is right"));
            } else if !named.is_list && !validity.holds(now + EXPIRES_SOON) {
                // A list is renewed every few days, and ends as soon.
                notes.push(said);
            }
        }
        self.notes.extend(notes);
    }

    /// What two files may not share.
    fn pair(&mut self, j: usize, i: usize) {
        let (Some(a), Some(b)) = (self.config(j), self.config(i)) else { return };
        let other = self.path(j);
        let mut found = Vec::new();
        if a.node.address == b.node.address {
            let message = format!("`{}` is the address in {other} already", b.node.address);
            found.push(("node.address".to_owned(), message, "an address belongs to one node"));
        }
        for (key_b, listen_b) in listeners(b) {
            for (key_a, listen_a) in listeners(a) {
                if clash(listen_a, listen_b) {
                    let message = format!("`{listen_b}` is `{key_a}` in {other} already");
                    found.push((
                        key_b.clone(),
                        message,
                        "nodes on one machine need different ports; check nodes of other machines apart",
                    ));
                }
            }
        }
        let (data_a, data_b) = (&a.node.data, &b.node.data);
        if data_a.starts_with(data_b) || data_b.starts_with(data_a) {
            let message = format!("`{}` is not apart from `{}` of {other}", data_b.display(), data_a.display());
            found.push(("node.data".to_owned(), message, "each node needs a folder of its own"));
        }
        for (key, message, help) in found {
            self.bad(i, &key, message, help);
        }
    }

    /// What a preset of the file does not get to see.
    fn devices(&mut self, i: usize) {
        let Some(config) = self.config(i) else { return };
        let notes: Vec<String> = presets::unseen(config).iter().map(|n| format!("{}: {n}", self.path(i))).collect();
        self.notes.extend(notes);
    }

    /// What a service or a scene names may also be inherited from a node whose file is not here.
    fn offers(&mut self, i: usize) {
        let Some(config) = self.config(i) else { return };
        let (unknown, absent) = offers::unknown(&self.files, config);
        let absent: Vec<&str> = absent.iter().map(|node| node.as_str()).collect();
        for offers::Unknown { key, message, help } in unknown {
            if absent.is_empty() {
                self.bad(i, &key, message, help);
            } else {
                self.notes.push(format!("{}: `{key}`: {message}; {} may have it", self.path(i), absent.join(", ")));
            }
        }
    }

    /// A rule may look at an alarm of a node whose file is not here; it may also have been meant otherwise.
    fn alarms(&mut self, i: usize) {
        let Some(config) = self.config(i) else { return };
        let raised = |rule: &'_ Rule| -> Vec<String> {
            let raises = rule.then.iter().filter_map(|a| match a {
                Action::Raise(raise) => Some(raise.alarm.clone().unwrap_or_else(|| rule.name.clone())),
                _ => None,
            });
            raises.collect()
        };
        let rules = self.files.iter().filter_map(|f| f.config.as_ref()).flat_map(|c| &c.rule);
        let known: Vec<String> = rules.flat_map(raised).collect();
        let mut notes = Vec::new();
        for rule in &config.rule {
            for named in [&rule.unless_alarm, &rule.while_alarm].into_iter().flatten() {
                let name = named.strip_suffix("/*").unwrap_or(named);
                if known.iter().any(|k| k == name) {
                    continue;
                }
                let near = closest(name, known.iter().map(String::as_str));
                let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                let path = self.path(i);
                notes.push(format!(
                    "{path}: rule `{}` looks at alarm `{name}`, which no rule here raises{near}",
                    rule.name
                ));
            }
        }
        self.notes.extend(notes);
    }

    /// What rules may have meant otherwise.
    fn doubts(&mut self, i: usize) {
        let Some(config) = self.config(i) else { return };
        let files = self.files.iter().filter_map(|f| f.config.as_ref());
        let known: Vec<&str> =
            files.flat_map(|c| &c.category).flat_map(|c| [c.code.as_str(), c.name.as_str()]).collect();
        // Where none of the files has a category, those of a node above are meant, whose file is not here.
        let is_told = !known.is_empty() || offers::unknown(&self.files, config).1.is_empty();
        let known = is_told.then_some(known.as_slice());
        let told = crate::brain::rules::check::doubts(config, &self.files[i].places, known);
        let notes: Vec<String> = told.iter().map(|n| format!("{}: {n}", self.path(i))).collect();
        self.notes.extend(notes);
    }

    /// Webhooks in the name of a token that reads nothing: notes, as a node starts all the same, and sends them nothing
    /// before there is one.
    fn readers(&mut self, i: usize) {
        let Some(config) = self.config(i) else { return };
        // Whether the file reads is said with the other files.
        let Some(Ok(text)) = config.api.tokens_file.as_deref().map(tokens::read) else { return };
        let known = tokens::parse(&text).0;
        let doubt = |w: &Webhook| {
            let token = w.token.as_deref()?;
            let why = match known.iter().find(|entry| entry.name == token).map(|entry| entry.role) {
                None => {
                    let hint = receiver_hint(token);
                    format!("the tokens file has no `{token}`: nothing is sent until it has; {hint}")
                }
                Some(Role::App) if !webhook::is_of_type(&w.types, CHANGED) => {
                    format!(
                        "`{token}` has the role app, which is sent `{CHANGED}` alone, and `types` leaves that out: nothing is sent"
                    )
                }
                Some(Role::Gateway) => {
                    format!("`{token}` has the role gateway, which reads no events: nothing is sent")
                }
                Some(_) => return None,
            };
            Some(format!("{}: webhook `{}`: {why}", self.path(i), w.name))
        };
        let notes: Vec<String> = config.webhook.iter().filter_map(doubt).collect();
        self.notes.extend(notes);
    }

    fn parent(&mut self, i: usize) {
        let Some(config) = self.config(i) else { return };
        let own = config.node.address.clone();
        let Some(wanted) = own.parent() else { return };
        let Some(parent) = config.parent.clone() else {
            self.notes.push(format!("{}: no `[parent]`: {own} works alone and sends nothing up", self.path(i)));
            return;
        };
        // Of a cluster's servers one will do: an embedded door is never several.
        let Some(sought) = Endpoint::parse_all(&parent.url).ok().and_then(|all| all.into_iter().next()) else { return };
        let others = || (0..self.files.len()).filter(|j| *j != i);
        let at = others().find(|j| self.config(*j).is_some_and(|c| serves(c, &sought, &parent.url)));
        let by_address = others().find(|j| self.config(*j).is_some_and(|c| c.node.address == wanted));
        match (at, by_address) {
            (Some(j), _) => {
                let there = self.config(j).expect("it was found by its config").clone();
                self.parents[i] = there.node.address.to_string();
                if there.node.address != wanted {
                    let message = format!("this is the broker of {} ({})", there.node.address, self.path(j));
                    let help = match by_address {
                        Some(p) => format!("{wanted} is at `{}`", place(self.config(p))),
                        None => format!("{own} needs the broker of {wanted}"),
                    };
                    self.bad(i, "parent.url", message, help);
                    return;
                }
                if let Some(message) = wrong_door(&there, &sought) {
                    let help = format!("it is at `{}`", place(Some(&there)));
                    self.bad(i, "parent.url", message, help);
                    return;
                }
                self.let_in(i, j, &there, &sought);
            }
            (None, Some(p)) => {
                let message = format!("{wanted} does not listen there ({})", self.path(p));
                self.parents[i] = parent.url.clone();
                self.bad(i, "parent.url", message, format!("it is at `{}`", place(self.config(p))));
            }
            (None, None) => {
                self.parents[i] = parent.url.clone();
                let local =
                    sought.host == "localhost" || sought.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
                if self.files.len() > 1 && local {
                    let message = format!("nobody in these files listens at `{}`", parent.url);
                    self.bad(i, "parent.url", message, format!("give {wanted}'s file too, or check this one alone"));
                } else {
                    self.notes.push(format!("{}: {wanted} at {} is not among the files", self.path(i), parent.url));
                }
            }
        }
    }

    /// Child `i` at parent `j`: do they speak under one root, and may the child enter?
    fn let_in(&mut self, i: usize, j: usize, there: &Config, sought: &Endpoint) {
        let Some(config) = self.config(i).cloned() else { return };
        let other = self.path(j);
        if config.link.root != there.link.root {
            let message = format!("`{}` is not the parent's `{}` ({other})", config.link.root, there.link.root);
            self.bad(i, "link.root", message, "it must be the same in the whole tree");
        }
        if there.broker.url.is_some() {
            return;
        }
        let parent = config.parent.as_ref();
        let username = parent.and_then(|p| p.username.clone());
        let door = there.listener.iter().find(|l| is_there(l.listen, sought) && l.client_ca_file.is_some());
        let shown = parent.and_then(|p| p.cert_file.clone());
        if shown.is_none() && door.is_some_and(|l| l.client_required) {
            let help = format!("add `cert_file` and `key_file`, signed by the parent's `client_ca_file` ({other})");
            let message = format!("{} lets nobody in without a certificate", there.node.address);
            self.bad(i, "parent.url", message, help);
            return;
        }
        let certified = match door.zip(shown) {
            None => None,
            Some((door, cert)) => match tls::user_of(&cert, door.client_name) {
                Ok(Some(name)) => Some(name),
                Ok(None) => {
                    let help = format!("`client_name` of its listener says what is ({other})");
                    self.bad(i, "parent.cert_file", "nothing in the certificate is a user for the parent".into(), help);
                    return;
                }
                // It has been said.
                Err(_) => return,
            },
        };
        if let (Some(name), Some(user)) = (&certified, &username)
            && name != user
        {
            let help = "leave `username` out: the certificate says who it is";
            self.bad(i, "parent.username", format!("the certificate is `{name}`'s, not `{user}`'s"), help);
            return;
        }
        let key = if certified.is_some() { "parent.cert_file" } else { "parent.username" };
        if there.access.anonymous && certified.is_none() {
            return;
        }
        let Some(user) = certified.or(username) else {
            let help = format!("add `username` and `password_file`, and the user to the parent's users file ({other})");
            self.bad(i, "parent.url", format!("{} lets nobody in without a user", there.node.address), help);
            return;
        };
        let Some(Ok(users)) = there.access.users_file.as_ref().map(std::fs::read_to_string) else { return };
        let own = config.node.address.as_str();
        let (accounts, _) = users::parse(&users);
        match accounts.get(&user) {
            None => {
                let flag = if key == "parent.cert_file" { " --certificate" } else { "" };
                let help = format!("`citybrain user add {user}{flag} --address {own} --file FILE` adds it");
                self.bad(i, key, format!("the parent's users file has no `{user}`"), help);
            }
            Some(account) if account.child.as_ref().is_none_or(|c| c.as_str() != own) => {
                let help = format!("its line must be `{user}:{own}:HASH`");
                self.bad(i, key, format!("`{user}` may not speak as {own} at the parent"), help);
            }
            Some(_) => {}
        }
    }
}

/// Where the node listens, with the keys that say so.
pub(crate) fn listeners(config: &Config) -> Vec<(String, SocketAddr)> {
    let mut all = vec![("api.listen".to_owned(), config.api.listen)];
    if config.broker.url.is_none() {
        all.insert(0, ("broker.listen".to_owned(), config.broker.listen));
        all.extend(config.listener.iter().enumerate().map(|(i, l)| (format!("listener.{i}.listen"), l.listen)));
    }
    all
}

/// Do this node's children find it at `sought`? A host name, or an address of a machine that
/// listens on all its networks, is taken at its word: only the port can be compared.
fn serves(config: &Config, sought: &Endpoint, url: &str) -> bool {
    if let Some(outside) = &config.broker.url {
        return outside == url || Endpoint::parse_all(outside).is_ok_and(|all| all.contains(sought));
    }
    doors(config).any(|(listen, _)| is_there(listen, sought))
}

/// The embedded broker's listeners, and what is spoken there.
fn doors(config: &Config) -> impl Iterator<Item = (SocketAddr, Protocol)> {
    let further = config.listener.iter().map(|l| (l.listen, l.protocol));
    std::iter::once((config.broker.listen, Protocol::Mqtt)).chain(further)
}

fn is_there(listen: SocketAddr, sought: &Endpoint) -> bool {
    let (host, port) = (&sought.host, sought.port);
    let named = host.parse::<IpAddr>().is_err() && host != "localhost" && !listen.ip().is_loopback();
    is_at(listen, host, port) || (listen.port() == port && (named || listen.ip().is_unspecified()))
}

/// What is wrong if the door at `sought` speaks something else.
fn wrong_door(config: &Config, sought: &Endpoint) -> Option<String> {
    if config.broker.url.is_some() {
        return None;
    }
    let (_, protocol) = doors(config).find(|(listen, _)| is_there(*listen, sought))?;
    let right = if sought.is_tls { Protocol::Mqtts } else { Protocol::Mqtt };
    (protocol != right).then(|| {
        let (there, sought) = (protocol.as_str(), right.as_str());
        format!("{}'s listener there speaks `{there}`, not `{sought}`", config.node.address)
    })
}

fn place(config: Option<&Config>) -> String {
    match config {
        Some(c) => c.broker.url.clone().unwrap_or_else(|| format!("mqtt://{}", c.broker.listen)),
        None => String::new(),
    }
}

/// Can files be made in `folder`, or, when it is not there yet, in the nearest folder above it?
fn writable(folder: &Path) -> Result<(), (ErrorKind, String)> {
    let Some(nearest) = config::above(folder).find(|p| p.exists()) else {
        return Err((ErrorKind::NotFound, "no folder above it exists".into()));
    };
    if !nearest.is_dir() {
        return Err((ErrorKind::NotADirectory, format!("`{}` is no folder", nearest.display())));
    }
    let probe = nearest.join(format!(".citybrain-check-{}", std::process::id()));
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(&probe);
    let _ = std::fs::remove_file(&probe);
    made.map(drop).map_err(|e| (e.kind(), format!("`{}`: {e}", nearest.display())))
}
