//! The tree as processes of this same executable, one a node.
//!
//! **Promise.** No node outlives the demo, however the demo ends: each node stops when its standard
//! input closes, and the kernel closes that pipe with the demo's last breath.

use super::api::Api;
use super::tree::{Place, Tree};
use citybrain_shared::Tier;
use citybrain_shared::words::with_causes;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// A node with this variable stops when its standard input closes.
pub const STOP_WITH_STDIN: &str = "CITYBRAIN_STOP_WITH_STDIN";

const TEMPLATES: [(Tier, &str); 4] = [
    (Tier::City, include_str!("../../../config/demo/city.toml")),
    (Tier::Street, include_str!("../../../config/demo/street.toml")),
    (Tier::Community, include_str!("../../../config/demo/community.toml")),
    (Tier::Neighbourhood, include_str!("../../../config/demo/neighbourhood.toml")),
];

const WEBHOOK: &str = include_str!("../../../config/demo/webhook.toml");

/// Until every node answers that it is ready, and then until all links are up.
const READY_MAX: Duration = Duration::from_secs(30);
/// A node that was told to stop writes its last state within this time, or is killed.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Lines of a node's log shown when it fails.
const LOG_LINES: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot write `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no free port on the loopback")]
    Ports(#[source] io::Error),
    #[error("cannot start {address}")]
    Start {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("{address} ended by itself ({status}); its log is {log}\n{tail}", log = log.display())]
    Ended { address: String, status: String, log: PathBuf, tail: String },
    #[error("{address} was not ready within {seconds} s: {reason}; its log is {log}\n{tail}", log = log.display())]
    NotReady { address: String, seconds: u64, reason: String, log: PathBuf, tail: String },
    #[error("within {seconds} s these were not connected: {addresses}; the first one's log is {log}\n{tail}", log = log.display())]
    NotConnected { addresses: String, seconds: u64, log: PathBuf, tail: String },
}

pub struct Node {
    pub address: String,
    pub mqtt: u16,
    pub api: Api,
    pub api_port: u16,
    pub log: PathBuf,
    variables: Vec<String>,
    config: PathBuf,
    parent: Option<usize>,
    child: Option<Child>,
}

/// In the order of the tree's places.
pub struct Processes {
    exe: PathBuf,
    pub nodes: Vec<Node>,
}

impl Processes {
    /// Prepares files and ports below `dir`; starts nothing. `hook` is where
    /// communities and neighbourhoods tell of cases by webhook, if they do.
    ///
    /// # Errors
    /// [`Error::Write`], [`Error::Ports`].
    pub fn new(exe: &Path, dir: &Path, tree: &Tree, hook: Option<&str>) -> Result<Processes, Error> {
        let write = |path: PathBuf, text: &str| {
            fs::write(&path, text).map_err(|source| Error::Write { path: path.clone(), source })?;
            Ok::<_, Error>(path)
        };
        let mut configs = BTreeMap::new();
        for (tier, text) in TEMPLATES {
            let tells = hook.is_some() && matches!(tier, Tier::Community | Tier::Neighbourhood);
            let text = format!("{text}{}", if tells { WEBHOOK } else { "" });
            configs.insert(tier, write(dir.join(format!("{tier}.toml")), &text)?);
        }
        let next_week = (chrono::Utc::now() + chrono::TimeDelta::days(7)).format("%Y-%m-%d").to_string();
        let ports = free_ports(tree.places.len() * 2).map_err(Error::Ports)?;
        let mut nodes: Vec<Node> = Vec::new();
        for (place, ports) in tree.places.iter().zip(ports.chunks_exact(2)) {
            let (mqtt, api_port) = (ports[0], ports[1]);
            let file = file_name(place);
            let mut variables = vec![
                format!("ADDRESS={}", place.address),
                format!("NAME={}", place.name),
                format!("CODE={}", place.code),
                format!("DATA={}", dir.join(&file).display()),
                format!("MQTT_PORT={mqtt}"),
                format!("API_PORT={api_port}"),
                format!("NEXT_WEEK={next_week}"),
                format!("HOOK={}", hook.unwrap_or_default()),
            ];
            if let Some(parent) = place.parent {
                variables.push(format!("PARENT=mqtt://127.0.0.1:{}", nodes[parent].mqtt));
            }
            nodes.push(Node {
                address: place.address.to_string(),
                mqtt,
                api: Api::local(api_port),
                api_port,
                log: dir.join(format!("{file}.log")),
                variables,
                config: configs[&place.address.tier()].clone(),
                parent: place.parent,
                child: None,
            });
        }
        Ok(Processes { exe: exe.to_owned(), nodes })
    }

    /// # Errors
    /// [`Error::Write`] for its log file, [`Error::Start`].
    pub fn start(&mut self, node: usize) -> Result<(), Error> {
        let node = &mut self.nodes[node];
        let log = File::options()
            .create(true)
            .append(true)
            .open(&node.log)
            .and_then(|file| Ok((file.try_clone()?, file)))
            .map_err(|source| Error::Write { path: node.log.clone(), source })?;
        let mut command = Command::new(&self.exe);
        command.arg("run").arg("--config").arg(&node.config);
        for variable in &node.variables {
            command.arg("--set").arg(variable);
        }
        // Their webhooks tell this process, which is reached by no proxy.
        for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command
            .env(STOP_WITH_STDIN, "1")
            // Ctrl-C is for the demo; it stops the nodes itself, in its order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log.0)
            .stderr(log.1)
            .kill_on_drop(true);
        let child = command.spawn().map_err(|source| Error::Start { address: node.address.clone(), source })?;
        node.child = Some(child);
        Ok(())
    }

    /// `kill -9`, and waits until the process is gone.
    pub async fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.nodes[node].child.take() {
            let _ = child.kill().await;
        }
    }

    /// A sentence about each node whose process is gone without our doing.
    pub fn ended(&mut self) -> Vec<String> {
        let mut gone = Vec::new();
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child
                && let Ok(Some(status)) = child.try_wait()
            {
                gone.push(format!("{} ended by itself ({status}); its log is {}", node.address, node.log.display()));
            }
        }
        gone
    }

    /// Until every node that was started answers that it is ready.
    ///
    /// # Errors
    /// [`Error::Ended`], [`Error::NotReady`].
    pub async fn wait_ready(&mut self) -> Result<(), Error> {
        let until = Instant::now() + READY_MAX;
        for node in self.nodes.iter_mut().filter(|n| n.child.is_some()) {
            loop {
                let api = node.api.clone();
                let answer = tokio::task::spawn_blocking(move || api.is_ready()).await;
                let reason = match answer {
                    Ok(Ok(())) => break,
                    Ok(Err(e)) => with_causes(&e),
                    Err(e) => e.to_string(),
                };
                if let Some(child) = &mut node.child
                    && let Ok(Some(status)) = child.try_wait()
                {
                    let (address, status) = (node.address.clone(), status.to_string());
                    return Err(Error::Ended { address, status, log: node.log.clone(), tail: tail(&node.log) });
                }
                if Instant::now() > until {
                    return Err(Error::NotReady {
                        address: node.address.clone(),
                        seconds: READY_MAX.as_secs(),
                        reason,
                        log: node.log.clone(),
                        tail: tail(&node.log),
                    });
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Until every parent says that the links to its children are up, and the city knows of all.
    ///
    /// # Errors
    /// [`Error::NotConnected`] names those that are not.
    pub async fn wait_connected(&self) -> Result<(), Error> {
        let until = Instant::now() + READY_MAX;
        loop {
            let missing = self.unconnected().await;
            let Some(first) = missing.first() else { return Ok(()) };
            if Instant::now() > until {
                let names: Vec<&str> = missing.iter().map(|n| self.nodes[*n].address.as_str()).collect();
                return Err(Error::NotConnected {
                    addresses: names.join(", "),
                    seconds: READY_MAX.as_secs(),
                    log: self.nodes[*first].log.clone(),
                    tail: tail(&self.nodes[*first].log),
                });
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn unconnected(&self) -> Vec<usize> {
        let parents: Vec<usize> = self.nodes.iter().filter_map(|n| n.parent).collect();
        let mut trees = BTreeMap::new();
        for parent in parents {
            if trees.contains_key(&parent) {
                continue;
            }
            let api = self.nodes[parent].api.clone();
            let tree = tokio::task::spawn_blocking(move || api.tree()).await;
            trees.insert(parent, tree.ok().and_then(Result::ok).unwrap_or_default());
        }
        let is_connected = |node: &Node| {
            let Some(parent) = node.parent else { return true };
            let is_up = trees[&parent].get(&node.address).is_some_and(|state| state == "up");
            is_up && trees[&0].contains_key(&node.address)
        };
        (0..self.nodes.len()).filter(|i| !is_connected(&self.nodes[*i])).collect()
    }

    /// Closes every node's standard input, so that it stops; kills those that take too long.
    pub async fn stop(&mut self) {
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child {
                drop(child.stdin.take());
            }
        }
        let until = Instant::now() + STOP_MAX;
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take()
                && timeout(until.saturating_duration_since(Instant::now()), child.wait()).await.is_err()
            {
                let _ = child.kill().await;
            }
        }
    }
}

/// The address as a file name; a segment has no dot.
fn file_name(place: &Place) -> String {
    place.address.as_str().replace('/', ".")
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().rev().take(LOG_LINES).collect();
    lines.iter().rev().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
}

/// Ports below the range that the kernel gives to outgoing connections: a node that was killed must
/// find its port free again, and until then no client that tries to reach it may be given that very
/// port as its own (and then be connected to itself).
pub(crate) fn free_ports(n: usize) -> io::Result<Vec<u16>> {
    const FIRST: u16 = 15_000;
    const LAST: u16 = 32_000;
    let seed = getrandom::u64().map_err(|e| io::Error::other(e.to_string()))?;
    let mut random = super::generate::Random::new(seed);
    // Held until all are found, so that none is found twice.
    let mut held = Vec::new();
    for _ in 0..n * 100 {
        if held.len() == n {
            break;
        }
        let port = FIRST + random.below(u64::from(LAST - FIRST)) as u16;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push(listener);
        }
    }
    while held.len() < n {
        held.push(TcpListener::bind("127.0.0.1:0")?);
    }
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::chengdu;

    #[test]
    fn every_node_has_ports_of_its_own_and_the_port_of_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        let processes = Processes::new(Path::new("citybrain"), dir.path(), &chengdu::tree(15), None).unwrap();
        let mut ports: Vec<u16> = processes.nodes.iter().flat_map(|n| [n.mqtt, n.api_port]).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 30);
        let street = processes.nodes.iter().position(|n| n.address == "chengdu/liucheng").unwrap();
        let want = format!("PARENT=mqtt://127.0.0.1:{}", processes.nodes[0].mqtt);
        assert!(processes.nodes[street].variables.contains(&want));
        assert!(dir.path().join("neighbourhood.toml").exists());
    }

    #[test]
    fn a_template_uses_only_variables_that_are_given() {
        let given = ["ADDRESS", "NAME", "CODE", "DATA", "MQTT_PORT", "API_PORT", "PARENT", "NEXT_WEEK", "HOOK"];
        for (tier, text) in TEMPLATES.into_iter().chain([(Tier::Community, WEBHOOK)]) {
            for part in text.split("${").skip(1) {
                let name = part.split('}').next().unwrap();
                if name.starts_with("event.") {
                    continue;
                }
                assert!(given.contains(&name) && (name != "PARENT" || tier != Tier::City), "{tier}: {name}");
            }
        }
    }

    #[tokio::test]
    async fn a_node_that_ends_at_once_is_told_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut processes = Processes::new(Path::new("/bin/false"), dir.path(), &chengdu::tree(15), None).unwrap();
        processes.start(0).unwrap();
        let error = processes.wait_ready().await.unwrap_err();
        assert!(matches!(&error, Error::Ended { address, .. } if address == "chengdu"), "{error}");
    }
}
