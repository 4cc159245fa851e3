//! For whoever keeps the node running: its log level, config, version, and what `doctor` needs.

use super::commit::{self, Late};
use super::input::{Sent, parse};
use super::listen::Peer;
use super::{Ctx, Refusal, now};
use crate::brain::Brain;
use crate::https::without_path;
use crate::tokens::Holder;
use crate::{doctor, logging};
use axum::extract::{ConnectInfo, FromRequestParts, State as From};
use axum::http::request::Parts;
use axum::response::Response;
use citybrain_hub::operator::{self as record, Act};
use citybrain_shared::config::Config;
use citybrain_shared::view::{self, HEADER_OPERATOR};
use citybrain_shared::wire;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// Who asks, as far as that is known, and from where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Operator {
    pub who: String,
    /// `claimed` or `token`, as in [`Act`].
    pub who_is: String,
    pub from: String,
}

impl Operator {
    pub fn act(&self, what: &str, detail: &str) -> Act {
        Act::known(&self.who_is, Act::claimed(&self.who, what, detail, view::rfc3339(now()), &self.from))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Operator, Self::Rejection> {
        // From above: the node that passed it on has said who it was.
        if let Some(operator) = parts.extensions.get::<Operator>() {
            return Ok(operator.clone());
        }
        let claim = parts.headers.get(HEADER_OPERATOR).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let from = parts.extensions.get::<ConnectInfo<Peer>>().map(|c| c.0.address.to_string()).unwrap_or_default();
        Ok(match parts.extensions.get::<Holder>() {
            None => Operator { who: claim.to_owned(), who_is: "claimed".into(), from },
            Some(Holder { name, .. }) if claim.is_empty() => {
                Operator { who: name.clone(), who_is: "token".into(), from }
            }
            Some(Holder { name, .. }) => Operator { who: format!("{name} ({claim})"), who_is: "token".into(), from },
        })
    }
}

/// Records what an operator did, and waits until that is on disk.
pub(super) async fn operator(ctx: &Ctx, who: &Operator, what: &str, detail: &str) -> Result<(), Refusal> {
    let act = record::draft(&ctx.config.node.address, &who.act(what, detail));
    let late = Late { what: "the record of it", hint: "try again: done twice it changes nothing more" };
    commit::offered(ctx, vec![act], late).await.map(drop)
}

pub async fn log_level(From(ctx): From<Arc<Ctx>>) -> Result<Response, Refusal> {
    runs(&ctx, "a stopped node writes no log output", "`citybrain store verify DIR` looks at its records")?;
    Ok(ctx.answer(view::LogLevel { level: logging::level(), before: None }))
}

/// # Errors
/// For a folder alone: what is asked is nowhere in it.
pub(super) fn runs(ctx: &Ctx, detail: &str, hint: &str) -> Result<(), Refusal> {
    if ctx.offline.is_some() { Err(Refusal::not_found(detail, hint)) } else { Ok(()) }
}

/// `POST /v1/log-level` `{"level":"citybrain_hub::link=debug,info"}`: until the process ends.
pub async fn set_log_level(From(ctx): From<Arc<Ctx>>, who: Operator, Sent(body): Sent) -> Result<Response, Refusal> {
    let hint = "{\"level\":\"citybrain_hub::link=debug,info\"}";
    let wanted: view::LogLevel = parse(&body, hint)?;
    if let Some(problem) = crate::config::level_problem(&wanted.level) {
        return Err(Refusal::bad("bad-level", problem, "`info`, `debug`, `citybrain_hub::link=debug,info`"));
    }
    // Recorded first: what an operator does is known even if the node ends right then.
    operator(&ctx, &who, "log-level", &format!("{} to {}", logging::level(), wanted.level)).await?;
    let before = logging::set_level(&wanted.level).map_err(|e| Refusal::bad("bad-level", e, hint))?;
    Ok(ctx.answer(view::LogLevel { level: wanted.level, before: Some(before) }))
}

/// The last lines of the process's log output, as text.
pub async fn log_lines() -> String {
    logging::lines().into_iter().map(|l| l + "\n").collect()
}

pub async fn config(From(ctx): From<Arc<Ctx>>) -> Result<Response, Refusal> {
    let hint = "`citybrain check FILE` reads the file; `citybrain config show` asks a node that runs";
    runs(&ctx, "a node's folder does not hold its config", hint)?;
    // A reload puts another in force; it belongs to the brain.
    let of_brain = ctx.hub.state(|s| Brain::of(s).map(|b| (b.in_force(), b.cases.calendar_shown())));
    let (config, calendar) = of_brain.unzip();
    let config = shown(config.as_deref().unwrap_or(&ctx.config));
    Ok(ctx.answer(view::ConfigShown { effective: true, config, calendar }))
}

pub async fn version(From(ctx): From<Arc<Ctx>>) -> Response {
    ctx.answer(view::Version {
        version: env!("CARGO_PKG_VERSION").into(),
        link_version_min: wire::VERSION_MIN,
        link_version_max: wire::VERSION,
    })
}

/// Measures and looks; some of it waits for the disk.
pub async fn doctor(From(ctx): From<Arc<Ctx>>) -> Result<Response, Refusal> {
    let (config, running, offline) = (ctx.config.clone(), doctor::Running::of(&ctx), ctx.offline.is_some());
    let look =
        move || if offline { doctor::of_folder(&config, running) } else { doctor::gather(&config, Some(running)) };
    let facts = ctx.turns.count(look).await?;
    Ok(ctx.answer(doctor::examine(&facts)))
}

/// A config as JSON, with nothing in it that opens a door; its files by their whole paths, as it is read elsewhere.
pub fn shown(config: &Config) -> Value {
    let mut config = config.clone();
    crate::config::name_whole(&mut config);
    let mut value = serde_json::to_value(config).unwrap_or_default();
    hide(&mut value);
    value
}

/// Passwords stand in files of their own; what is hidden here is one that somebody put into a URL
/// or into a key that a later version may have.
fn hide(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            for (key, v) in map.iter_mut() {
                let secret = ["password", "secret", "token", "key_pem"].iter().any(|w| key.ends_with(w));
                if secret && !v.is_object() {
                    *v = "(hidden)".into()
                } else {
                    hide(v)
                }
                // What a webhook is opened by may stand in its path.
                if key == "webhook" {
                    v.as_array_mut().into_iter().flatten().for_each(without_path_in);
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(hide),
        Value::String(text) => {
            if let Some((scheme, rest)) = text.split_once("://")
                && let Some((_, host)) = rest.rsplit_once('@')
            {
                *text = format!("{scheme}://(hidden)@{host}");
            }
        }
        _ => {}
    }
}

fn without_path_in(webhook: &mut Value) {
    if let Some(Value::String(url)) = webhook.get_mut("url") {
        *url = without_path(url);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_config_opens_no_door() {
        let text = "[node]\naddress = \"c/s\"\ndata = \"d\"\n[parent]\nurl = \"mqtt://me:pw@h:1883\"\n\
                    [[webhook]]\nname = \"w\"\nurl = \"https://h/robot?access_token=s3cret\"\n";
        let mut config = citybrain_shared::config::parse(text, &Default::default()).config;
        let shown = config.as_mut().map(|c| shown(c)).unwrap();
        assert_eq!(shown["parent"]["url"], "mqtt://(hidden)@h:1883");
        assert_eq!(shown["store"]["keep_s"], 86_400);
        assert_eq!(shown["webhook"][0]["url"], "https://h/…");
        let mut value = serde_json::json!({"a": {"token": "x", "password_file": "/p"}, "b": [{"api_secret": 1}]});
        hide(&mut value);
        assert_eq!(
            value,
            serde_json::json!({"a": {"token": "(hidden)", "password_file": "/p"}, "b": [{"api_secret": "(hidden)"}]})
        );
    }
}
