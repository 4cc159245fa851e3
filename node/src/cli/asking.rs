//! What a command asks for, to be shown: of one node or of each of many, and how long it waits.

use super::render::Many;
use super::{At, Fail, Lines, Output, Through};
use crate::ask::duration_ms;
use crate::ask::node::{joined, parse, refused};
use citybrain_shared::view::{self, Answer, View};
use clap::Args;
use std::time::Duration;

impl At {
    /// A view of the node, or of each of many.
    ///
    /// # Errors
    /// As [`get`](crate::ask::node::Node::get).
    pub fn ask<T: View + 'static>(
        &self,
        path: &str,
        query: &[(&str, String)],
        show: fn(Answer<T>) -> Output,
    ) -> Result<Output, Fail> {
        match self.through.many() {
            None => self.node()?.get(path, query).map(show),
            Some(selector) => self.ask_many(selector, path, query, move |reply| {
                let json = reply.json.as_ref().map_or("", |j| j.get());
                parse("the node", reply.status, json.as_bytes()).map(show)
            }),
        }
    }

    /// A stream of the node, or what each of many has of it.
    ///
    /// # Errors
    /// As [`get`](crate::ask::node::Node::get).
    pub fn stream(&self, path: &str, query: &[(&str, String)], show: fn(Lines) -> Output) -> Result<Output, Fail> {
        match self.through.many() {
            None => self.node()?.lines(path, query).map(show),
            Some(selector) => self.ask_many(selector, path, query, move |reply| match &reply.text {
                Some(text) => Ok(show(Lines::of_reply(reply, text))),
                None => Err(refused("the node", reply.status, reply.json.as_ref().map_or("", |j| j.get()).as_bytes())),
            }),
        }
    }

    fn ask_many(
        &self,
        selector: &str,
        path: &str,
        query: &[(&str, String)],
        show: impl Fn(&view::Reply) -> Result<Output, Fail> + 'static,
    ) -> Result<Output, Fail> {
        let through = Through { below: None, ..self.through.clone() };
        let node = At { through, offline: self.offline.clone() }.node()?;
        let wanted = [("selector", selector.to_owned()), ("path", format!("{path}{}", joined(query)))];
        let lines = node.lines("/v1/ask", &wanted)?;
        Ok(Output::Many(Many { lines, show: Box::new(show) }))
    }
}

/// How long to wait for the word of the node whose case or alarm it is, where that is another one.
#[derive(Clone, Copy, Debug, Args)]
pub struct Wait {
    /// How long to wait for the node whose it is, if that is another one: `500ms`, `10s`; exit code 3 if it has not
    /// answered then. `0s`: only ask it, and exit with 0 once it was asked
    #[arg(long = "wait", value_name = "TIME", default_value = "3s", value_parser = wait_ms)]
    pub wait_ms: u32,
}

impl Wait {
    pub fn time(self) -> Duration {
        Duration::from_millis(self.wait_ms.into())
    }

    /// What is shown of a step: 3 if its owner was waited for, and has not answered.
    pub fn shown(self, output: Output, is_on_its_way: bool) -> Output {
        if is_on_its_way && self.wait_ms > 0 { Output::Unanswered(Box::new(output)) } else { output }
    }
}

fn wait_ms(text: &str) -> Result<u32, String> {
    if ["0", "0s", "0ms"].contains(&text) { Ok(0) } else { duration_ms(text) }
}

/// The deadline, for a question by which the node asked asks others: `--within` is then its own.
pub(super) fn own_within(at: &At) -> Vec<(&'static str, String)> {
    let ms = at.through.within.filter(|_| at.through.below.is_none() && at.offline.is_none());
    ms.map(|ms| ("within_ms", ms.to_string())).into_iter().collect()
}
