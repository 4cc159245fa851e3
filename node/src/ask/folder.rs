//! `--offline DIR`: a stopped node's folder answers the same questions by the same routes, in this
//! process. Nothing is written there.

use super::Fail;
use super::node::Got;
use crate::api;
use crate::api::guard::{Caller, Judged};
use crate::brain::Brain;
use crate::brain::services::said::Said;
use crate::ctx::{Ctx, Sources};
use axum::Router;
use axum::body::BodyDataStream;
use citybrain_hub::engine::{self, OpenError};
use citybrain_hub::link::view::{LinkView, Role};
use citybrain_hub::policy::Make;
use citybrain_hub::{Hub, log};
use citybrain_shared::config::{Config, Variables, parse};
use citybrain_shared::words::with_causes;
use citybrain_shared::{Address, view};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_stream::StreamExt;

pub struct Folder {
    routes: Router,
    runtime: Arc<Runtime>,
}

/// # Errors
/// 2: there is none, or whoever asks may not look.
pub fn is_data_folder(dir: &Path) -> Result<(), Fail> {
    match std::fs::read_dir(dir.join("log")) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(no_rights(dir, &e)),
        Err(_) => {
            let detail = format!("`{}` is no data folder: it has no `log`", dir.display());
            Err(Fail::usage(detail, "give the `data` folder of a node's config"))
        }
    }
}

/// It is there, and not for everybody.
pub fn no_rights(path: &Path, e: &io::Error) -> Fail {
    let hint = "ask as root, or as the user that the node runs as";
    Fail::usage(format!("`{}` may not be read: {e}", path.display()), hint)
}

impl Folder {
    /// # Errors
    /// When a node runs on it, or when it is no node's folder or does not read.
    #[allow(clippy::result_large_err, reason = "a refused event is a dead letter, whose size is the door's matter")]
    pub fn open(dir: &Path) -> Result<Folder, Fail> {
        let no = |detail: String, hint: &str| Err(Fail::no("not-found", detail, hint));
        is_data_folder(dir)?;
        let unopened = |e: OpenError| match e {
            OpenError::InUse => Fail::no(
                "in-use",
                format!("a node is running on `{}`", dir.display()),
                format!("ask it: `--data-dir {}` instead of `--offline`", dir.display()),
            ),
            OpenError::Log(log::Error::Io(e)) if e.source.kind() == io::ErrorKind::NotFound => Fail::usage(
                format!("there is no log in `{}`", dir.display()),
                "give the `data` folder of a node's config",
            ),
            e => Fail::no(
                "unreadable",
                format!("`{}` does not read: {}", dir.display(), with_causes(&e)),
                "`citybrain store verify DIR` says what is damaged",
            ),
        };
        // Its config is not in its folder: what a node says of itself is, its presence first, which says who it is.
        let cache_bytes = config(dir, "offline", false)?.store.cache_bytes;
        let mind: Make = Arc::new(|| Box::new(Said::default()));
        let (hub, _) = engine::open_offline(dir, cache_bytes, mind).map_err(unopened)?;
        let said = hub.state(|s| {
            let address = s.address.clone()?;
            let has_parent = address.parent().is_some_and(|parent| s.peers.contains_key(&parent));
            Some((s.registry.get(&address).cloned(), Said::of(s, &address), has_parent, address))
        });
        let Some((known, offered, has_parent, address)) = said else {
            return no(
                format!("nothing in the log of `{}` says whose it is", dir.display()),
                "its node stopped during its first start, or its log is lost: `citybrain store verify DIR`",
            );
        };
        let mut config = config(dir, address.as_str(), has_parent)?;
        if let Some(known) = known {
            (config.node.name, config.node.code, config.node.labels) = (known.name, known.code, known.labels);
        }
        if let Some(offered) = offered {
            offered.fill(&mut config);
        }
        // Which cases are its own, the brain knows only by that.
        let (hub, found) = engine::open_offline(dir, cache_bytes, Brain::make(&config)).map_err(unopened)?;
        let as_of = view::time_of(found.as_of_us);
        let mut reasons = vec![format!("the node is stopped; its last record is of {}", view::rfc3339(as_of))];
        reasons.extend(found.remarks);
        let ready = view::Ready { ready: false, reasons };
        let (links_hub, own) = (hub.clone(), address);
        let ctx = Ctx {
            hub,
            config,
            links: Arc::new(move || links(&links_hub, &own)),
            door: Arc::new(|| view::Door { kind: "closed".into(), ..view::Door::default() }),
            ready: Arc::new(move || ready.clone()),
            accept: Arc::new(|_, _| unreachable!("only GET is asked here")),
            operations: Sources { found: found.facts, ..Sources::default() },
            downlinks: None,
            offline: Some(as_of),
            started: Instant::now(),
            turns: Default::default(),
            stop: watch::channel(false).1,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Fail::no("start", format!("cannot start the runtime: {e}"), "try again"))?;
        Ok(Folder { routes: api::routes(Arc::new(ctx)), runtime: Arc::new(runtime) })
    }

    pub(super) fn get(&self, path: &str) -> Result<Got, Fail> {
        let uri = path.parse().map_err(|e| Fail::usage(format!("`{path}` is no path: {e}"), ""))?;
        let (parts, body) = self
            .runtime
            .block_on(api::road::call(self.routes.clone(), uri, Judged::as_caller(Caller::Operator)))
            .into_parts();
        let text = |v: &axum::http::HeaderValue| v.to_str().unwrap_or_default().to_owned();
        let headers = parts.headers.iter().map(|(n, v)| (n.as_str().to_owned(), text(v))).collect();
        let body =
            BodyReader { runtime: self.runtime.clone(), chunks: body.into_data_stream(), rest: Default::default() };
        Ok(Got { status: parts.status.as_u16(), headers, body: Box::new(body) })
    }
}

/// Defaults, with what the folder needs. Who has met a parent may wait for its word.
fn config(dir: &Path, address: &str, has_parent: bool) -> Result<Config, Fail> {
    let parent = if has_parent { "[parent]\nurl = \"mqtt://offline\"\n" } else { "" };
    let text = format!("[node]\naddress = \"{address}\"\ndata = \"data\"\n{parent}");
    let unfit = || Fail::no("unreadable", format!("the folder's node has no valid address: `{address}`"), "");
    let mut config = parse(&text, &Variables::new()).config.ok_or_else(unfit)?;
    config.node.data = dir.to_owned();
    Ok(config)
}

/// The links as the state and the log left them.
fn links(hub: &Hub, own: &Address) -> Vec<view::Link> {
    let role = |peer: &Address| if peer.depth() < own.depth() { Role::Up } else { Role::Down };
    let known: Vec<LinkView> =
        hub.state(|s| s.peers.keys().map(|peer| LinkView::new(peer.clone(), role(peer))).collect());
    let mut links = api::links::views(&known, hub);
    for link in &mut links {
        link.state = "offline".into();
    }
    links
}

/// A body, read as it is asked for.
struct BodyReader {
    runtime: Arc<Runtime>,
    chunks: BodyDataStream,
    rest: bytes::Bytes,
}

impl Read for BodyReader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.runtime.block_on(self.chunks.next()) {
                None => return Ok(0),
                Some(chunk) => self.rest = chunk.map_err(io::Error::other)?,
            }
        }
        let n = self.rest.len().min(to.len());
        to[..n].copy_from_slice(&self.rest.split_to(n));
        Ok(n)
    }
}
