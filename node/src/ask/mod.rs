//! The client of the API: the command line, the demo and whoever brings something in ask nodes by it.
//!
//! | module | what it owns |
//! |---|---|
//! | this one | which node is asked: the flags that say so, alike for all commands |
//! | [`node`] | the asking: over HTTP, also through the links, or in a folder |
//! | [`folder`] | a stopped node's folder, which answers the same questions |
//! | [`contexts`] | names for nodes elsewhere |
//! | [`fail`], [`hint`] | why there is no answer; what to type then |

pub mod contexts;
pub mod fail;
pub mod folder;
pub mod hint;
pub mod node;

pub use fail::Fail;
pub use node::{Lines, Node};

use crate::https::Trust;
use crate::tokens::{TOKEN_HINT, token_in};
use citybrain_hub::tls::Pair;
use citybrain_shared::config::rules::Duration;
use citybrain_shared::view::ApiFile;
use citybrain_shared::{Address, Selector};
use clap::Args;
use contexts::Place;
use folder::no_rights;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub const URL_DEFAULT: &str = "http://127.0.0.1:8080";

const WITHIN_MAX_MS: u64 = 10_000;

/// Which node is asked, by itself: all that a command which changes something there may take.
#[derive(Clone, Debug, Default, Args)]
pub struct Direct {
    /// The node's API, http:// or https:// [default: that of the context in use, or http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", env = "CITYBRAIN_NODE", help_heading = WHICH)]
    pub node: Option<String>,
    /// Or: a node by the name that `citybrain context add` gave it (goes before --node)
    #[arg(long, value_name = "NAME", env = "CITYBRAIN_CONTEXT", help_heading = WHICH)]
    pub context: Option<String>,
    /// A file with a token that the node knows; a context has its own
    #[arg(long, value_name = "FILE", env = "CITYBRAIN_TOKEN_FILE", help_heading = WHICH)]
    pub token_file: Option<PathBuf>,
    /// For https://: PEM file of the certificates that sign the node's [default: the context's, or whom this machine trusts]
    #[arg(long = "ca", value_name = "FILE", env = "CITYBRAIN_CA", help_heading = WHICH)]
    pub ca_file: Option<PathBuf>,
    /// For https://: PEM file of the certificate that is shown instead of a token
    #[arg(long = "cert", value_name = "FILE", env = "CITYBRAIN_CERT", requires = "key_file", help_heading = WHICH)]
    pub cert_file: Option<PathBuf>,
    /// PEM file of the key that belongs to --cert
    #[arg(long = "cert-key", value_name = "FILE", env = "CITYBRAIN_CERT_KEY", requires = "cert_file", help_heading = WHICH)]
    pub key_file: Option<PathBuf>,
    /// Or: the data folder of a node that runs on this machine (goes before all others)
    #[arg(long, value_name = "DIR", help_heading = WHICH)]
    pub data_dir: Option<PathBuf>,
}

/// Which node is asked, or one below it through its links: the few changes that go that way.
#[derive(Clone, Debug, Default, Args)]
pub struct Through {
    #[command(flatten)]
    pub direct: Direct,
    /// A node below that one, through its links; of what is only read many: `c/s/**@community`
    #[arg(long = "at", value_name = "ADDRESS|SELECTOR", value_parser = selector, help_heading = WHICH)]
    pub below: Option<String>,
    /// How long an answer through the links may take: `500ms`, `5s` [default: 2s; 5s for a change, 10s for `audit`; at most 10s]
    #[arg(long, value_name = "TIME", value_parser = within_ms, help_heading = WHICH)]
    pub within: Option<u64>,
}

/// Which node is asked, of all that may be: of a command that only reads.
#[derive(Clone, Debug, Default, Args)]
pub struct At {
    #[command(flatten)]
    pub through: Through,
    /// Or: a stopped node's data folder, read and never written
    #[arg(long, value_name = "DIR", conflicts_with_all = ["data_dir", "below"], help_heading = WHICH)]
    pub offline: Option<PathBuf>,
}

/// Above these flags in every `--help`: they are the same for nearly all commands.
const WHICH: &str = "Which node";

impl From<Through> for At {
    fn from(through: Through) -> At {
        At { through, offline: None }
    }
}

impl Direct {
    /// # Errors
    /// As [`Through::node`].
    pub fn node(&self) -> Result<Node, Fail> {
        self.connect(None, None)
    }
}

pub(crate) fn selector(text: &str) -> Result<String, String> {
    Selector::parse(text).map(|_| text.to_owned()).map_err(|e| e.to_string())
}

fn within_ms(text: &str) -> Result<u64, String> {
    let ms = u64::from(duration_ms(text)?);
    if ms <= WITHIN_MAX_MS { Ok(ms) } else { Err("at most 10s".into()) }
}

impl At {
    /// # Errors
    /// When its folder does not read, and as [`Through::node`].
    pub fn node(&self) -> Result<Node, Fail> {
        match &self.offline {
            None => self.through.node(),
            Some(dir) => Node::stopped(dir),
        }
    }
}

impl Through {
    /// The selector, if it may name more than one node.
    pub(crate) fn many(&self) -> Option<&str> {
        self.below.as_deref().filter(|text| Address::parse(text).is_err())
    }

    /// # Errors
    /// When the data folder does not say where its node is: exit code 3.
    pub fn node(&self) -> Result<Node, Fail> {
        if let Some(selector) = self.many() {
            let hint = "name one node, such as `--at chengdu/liucheng`";
            return Err(Fail::usage(format!("this command asks one node, and `{selector}` may be many"), hint));
        }
        self.direct.connect(self.below.clone(), self.within)
    }
}

impl Direct {
    fn connect(&self, below: Option<String>, within_ms: Option<u64>) -> Result<Node, Fail> {
        Node::over_http(self.asked()?, below, within_ms)
    }

    /// Where it is asked: its folder says so, a context, `--node`, the context in use, the default.
    fn asked(&self) -> Result<Asked, Fail> {
        if let Some(dir) = &self.data_dir {
            return of_folder(dir);
        }
        let named = self.context.as_deref();
        let place = match (named, &self.node) {
            (None, Some(_)) => None,
            _ => contexts::place(named)?,
        };
        let place = place.unwrap_or_else(|| {
            let url = self.node.clone().unwrap_or_else(|| URL_DEFAULT.into());
            Place { url, token_file: None, ca_file: None, cert_file: None, key_file: None }
        });
        let url = place.url;
        let trust = Trust::of(self.ca_file.as_deref().or(place.ca_file.as_deref()));
        let own = Pair::of(&self.cert_file, &self.key_file);
        // Who shows a certificate for this once is not whom the context's token is of.
        let its_token = place.token_file.filter(|_| own.is_none());
        let pair = own.or_else(|| Pair::of(&place.cert_file, &place.key_file));
        let token = self.token_file.clone().or(its_token).map(|file| token_in(&file)).transpose();
        let token = token.map_err(|why| Fail::usage(why, TOKEN_HINT))?;
        let hint = "`citybrain run --config FILE` starts a node; `--node URL`, `--context NAME` or `--data-dir DIR` \
                    asks another";
        Ok(Asked { url, token, trust, pair, hint: hint.into() })
    }
}

/// Where a node is asked, and what opens it.
struct Asked {
    url: String,
    token: Option<String>,
    trust: Trust,
    pair: Option<Pair>,
    hint: String,
}

/// # Errors
/// For any other kind of address.
pub(crate) fn is_http(url: &str) -> Result<(), Fail> {
    if url.starts_with("http://") || url.starts_with("https://") {
        return Ok(());
    }
    let such = if url.contains("://") || url.is_empty() { URL_DEFAULT.to_owned() } else { format!("http://{url}") };
    Err(Fail::usage(format!("`{url}` is no http:// or https:// address"), format!("such as `{such}`")))
}

/// The URL that the node running on this folder has written there, and whom that concerns.
fn of_folder(dir: &Path) -> Result<Asked, Fail> {
    let path = dir.join("api.json");
    let hint = format!(
        "`citybrain run --config FILE` starts its node; `--offline {}` reads the folder of a stopped one",
        dir.display()
    );
    let text = std::fs::read(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::PermissionDenied => no_rights(dir, &e),
        _ => Fail::unreachable(format!("no node runs on `{}`: {}: {e}", dir.display(), path.display()), hint.clone()),
    })?;
    let file: ApiFile = serde_json::from_slice(&text)
        .map_err(|e| Fail::unreachable(format!("`{}` does not read: {e}", path.display()), hint))?;
    let hint = format!("{} (pid {}) may have ended: `citybrain run --config FILE` starts it", file.address, file.pid);
    // Its certificate need not name this machine's own addresses, and its folder says where it is.
    Ok(Asked { url: file.url, token: file.token, trust: Trust::Anybody, pair: None, hint })
}

/// A length of time, as milliseconds that a message has room for.
pub(crate) fn duration_ms(text: &str) -> Result<u32, String> {
    u32::try_from(Duration::parse(text)?.us() / 1000).map_err(|_| "it must be at most 1193h".into())
}

/// Who runs this process: `user@host`, with who became root by sudo. A claim: nobody checks it.
pub fn who() -> String {
    let uid = std::fs::metadata("/proc/self").map(|m| m.uid());
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = uid.as_ref().ok().and_then(|uid| {
        users.lines().find_map(|l| {
            let mut fields = l.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
        })
    });
    let name = name.unwrap_or_else(|| uid.map_or_else(|_| "unknown".into(), |uid| format!("uid-{uid}")));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let sudo =
        std::env::var("SUDO_USER").ok().filter(|s| !s.is_empty()).map_or(String::new(), |s| format!(" (sudo by {s})"));
    // It goes into a header: what does not fit there becomes a question mark.
    let text = format!("{name}@{}{sudo}", host.trim());
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::view;

    #[test]
    fn a_segment_hides_what_would_split_the_path() {
        assert_eq!(view::segment("a/b c?温"), "a%2Fb%20c%3F%E6%B8%A9");
    }

    #[test]
    fn nobody_at_the_address_is_code_3_with_a_hint() {
        // Port 9 on loopback: nobody listens.
        let at = Direct { node: Some("http://127.0.0.1:9".into()), ..Direct::default() };
        let fail = at.node().unwrap().get::<view::Links>("/v1/links", &[]).unwrap_err();
        assert_eq!(fail.code, 3);
        assert!(
            fail.failure.detail.starts_with("cannot reach the node at http://127.0.0.1:9:"),
            "{}",
            fail.failure.detail
        );
        assert!(fail.failure.hint.contains("citybrain run --config") && !fail.failure.hint.contains("TLS"));
    }

    #[test]
    fn an_address_without_its_scheme_is_shown_with_it() {
        assert_eq!(is_http("10.0.0.5:8080").unwrap_err().failure.hint, "such as `http://10.0.0.5:8080`");
        for other in ["ftp://a", ""] {
            assert_eq!(is_http(other).unwrap_err().failure.hint, format!("such as `{URL_DEFAULT}`"));
        }
    }

    #[test]
    fn who_asks_at_a_port_that_speaks_something_else_is_asked_which_it_is() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", other.local_addr().unwrap());
        let turned_away = std::thread::spawn(move || drop(other.accept().unwrap()));
        let at = Direct { node: Some(url), ..Direct::default() };
        let fail = at.node().unwrap().get::<view::Links>("/v1/links", &[]).unwrap_err();
        turned_away.join().unwrap();
        assert_eq!(fail.code, 3);
        assert!(fail.failure.hint.contains("not its broker's"), "{}", fail.failure.hint);
    }

    #[test]
    fn a_folder_without_a_node_is_code_3() {
        let dir = tempfile::tempdir().unwrap();
        let at = Direct { data_dir: Some(dir.path().into()), ..Direct::default() };
        assert_eq!(at.node().err().unwrap().code, 3);
        std::fs::write(dir.path().join("api.json"), "{\"url\":\"http://127.0.0.1:9\",\"pid\":7,\"address\":\"c/s\"}")
            .unwrap();
        let fail = at.node().unwrap().get::<view::Links>("/v1/links", &[]).unwrap_err();
        assert!(fail.failure.hint.starts_with("c/s (pid 7)"), "{}", fail.failure.hint);
    }

    #[test]
    fn somebody_runs_this_and_it_fits_a_header() {
        let who = who();
        assert!(who.contains('@') && who.is_ascii(), "{who}");
    }

    #[test]
    fn a_length_of_time_is_no_longer_than_a_message_has_room_for() {
        assert_eq!(duration_ms("500ms"), Ok(500));
        assert_eq!(duration_ms("1193h"), Ok(1193 * 3_600_000));
        for bad in ["", "0s", "1194h", "50d"] {
            assert!(duration_ms(bad).is_err(), "{bad}");
        }
    }
}
