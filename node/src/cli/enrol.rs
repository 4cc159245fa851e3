//! `citybrain enrol`

use super::confirm::Yes;
use super::render::Ops;
use super::{At, Fail, Output, Through};
use citybrain_shared::view::{self, Answer, EnrolledChild, Waiting};
use citybrain_shared::{Address, Inc};
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum Enrol {
    /// Children that are connected to the node and wait for an operator's word
    #[command(after_help = "Example:
  citybrain enrol list --at chengdu/liucheng    who wants to come in below that street?")]
    List {
        #[command(flatten)]
        at: At,
    },
    /// Let children in, each with the data folder that it has now
    #[command(after_help = "Examples:
  citybrain enrol approve chengdu/liucheng                       at the city
  citybrain enrol approve --all --at chengdu/liucheng            all that wait at that street
Another box under the same address has to be let in again.")]
    Approve(Word),
    /// Keep children out: they go on asking, and are told that somebody said no
    #[command(after_help = "Example:
  citybrain enrol refuse chengdu/liucheng
A later `approve` takes it back. Who is in already stays: take the account out of the users file.")]
    Refuse(Word),
    /// Take a child that is gone for good out of the tree, with all below it
    #[command(after_help = "Example:
  citybrain enrol retire chengdu/liucheng/guanghua --at chengdu/liucheng
Its parent keeps nothing for it any more, and no tree, count or notice above waits for it. One that comes
back all the same is in the tree again; what was no longer kept for it is told as lost. A box that replaces
it under its address needs no `retire`.")]
    Retire(Retire),
}

#[derive(Debug, Args)]
pub struct Retire {
    /// A child of the node, which is not connected
    #[arg(value_name = "ADDRESS", value_parser = address)]
    child: Address,
    /// Though open cases are owned there, which nobody could step any more
    #[arg(long)]
    even_with_cases: bool,
    #[command(flatten)]
    yes: Yes,
    #[command(flatten)]
    at: Through,
}

#[derive(Debug, Args)]
pub struct Word {
    /// Addresses, from `enrol list`
    #[arg(value_name = "ADDRESS", required_unless_present = "all", conflicts_with = "all", value_parser = address)]
    children: Vec<Address>,
    /// All that wait
    #[arg(long)]
    all: bool,
    /// Of one child: this incarnation, whether it is connected or not (`enrol list --json` has it whole)
    #[arg(long, value_name = "HEX", conflicts_with = "all", value_parser = incarnation)]
    incarnation: Option<String>,
    #[command(flatten)]
    yes: Yes,
    #[command(flatten)]
    at: Through,
}

fn address(text: &str) -> Result<Address, String> {
    Address::parse(text).map_err(|e| e.to_string())
}

fn incarnation(text: &str) -> Result<String, String> {
    text.parse::<Inc>().map(|inc| inc.to_string()).map_err(|_| "32 hexadecimal digits".into())
}

impl Enrol {
    pub fn act(self) -> Result<Output, Fail> {
        match self {
            Enrol::List { at } => at.ask("/v1/enrolments", &[], |a| Output::Ops(Ops::Enrolments(a))),
            Enrol::Approve(word) => word.give(true),
            Enrol::Refuse(word) => word.give(false),
            Enrol::Retire(retire) => retire.act(),
        }
    }
}

impl Retire {
    fn act(self) -> Result<Output, Fail> {
        let node = self.at.node()?;
        let Retire { child: address, even_with_cases, .. } = self;
        let will = "is taken out of the tree, with all below it. Who said so is recorded.";
        self.yes.confirm(&format!("At {}: {address} {will}", node.place()))?;
        let asked = view::Retire { address, even_with_cases };
        node.post("/v1/enrolments/retire", &asked).map(|a| Output::Ops(Ops::Retired(a)))
    }
}

impl Word {
    fn give(self, admit: bool) -> Result<Output, Fail> {
        let node = self.at.node()?;
        let children = match (&self.incarnation, self.children.as_slice()) {
            (Some(inc), [child]) => vec![EnrolledChild { address: child.clone(), incarnation: inc.clone() }],
            (Some(_), _) => {
                return Err(Fail::usage("an incarnation is that of one child", "name one child with --incarnation"));
            }
            (None, named) => {
                let list: Answer<view::Enrolments> = node.get("/v1/enrolments", &[])?;
                waiting(list.body.waiting, (!self.all).then_some(named))?
            }
        };
        let list: Vec<String> = children.iter().map(|c| format!("{} ({})", c.address, c.incarnation)).collect();
        let will = if admit { "may come in" } else { "must stay outside" };
        let list = list.join(", ");
        self.yes.confirm(&format!("At {}: {list} {will}. Who said so is recorded.", node.place()))?;
        node.post("/v1/enrolments", &view::Enrol { admit, children }).map(|a| Output::Ops(Ops::Enrolled(a)))
    }
}

/// Of those who wait the named ones, or all.
fn waiting(waiting: Vec<Waiting>, named: Option<&[Address]>) -> Result<Vec<EnrolledChild>, Fail> {
    let of = |w: &Waiting| EnrolledChild { address: w.address.clone(), incarnation: w.incarnation.clone() };
    let found = match named {
        None => waiting.iter().map(of).collect(),
        Some(named) => named
            .iter()
            .map(|child| {
                waiting.iter().find(|w| w.address == *child).map(of).ok_or_else(|| {
                    let hint =
                        "`citybrain enrol list` shows who waits; `--incarnation` names one that is not connected";
                    Fail::no("not-waiting", format!("{child} is not waiting"), hint)
                })
            })
            .collect::<Result<Vec<_>, _>>()?,
    };
    if found.is_empty() {
        Err(Fail::no("not-waiting", "nobody waits", "`citybrain links` shows every link"))
    } else {
        Ok(found)
    }
}
