//! What a cursor is fed from: its inbox while it is live, the log while it is behind.
//!
//! **Constraints**: each record is looked at once, in the order of the log, by whichever way; what was
//! settled in an earlier life of the cursor is not given again.

use super::Door;
use super::core::read_on;
use super::message::Item;
use super::route::{Inbox, Next};
use super::window::Window;
use crate::log::Entry;
use citybrain_shared::Pos;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Context;

/// Records read from the log at once.
pub(crate) const READ_RECORDS: usize = 64;
const READ_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Feed {
    pub inbox: Arc<Inbox>,
    pub window: Window,
    /// Read from the log, and not yet looked at; up to `log_upto` there is no more than this.
    log: VecDeque<Entry>,
    log_upto: Pos,
    /// Retention took these, first and last, before the cursor had come to them.
    pub lost: Option<(Pos, Pos)>,
    /// The log could not be read: wait before asking again.
    pub broken: bool,
}

impl Feed {
    /// Goes on from where `window` stands.
    pub(crate) fn new(inbox: Arc<Inbox>, window: Window) -> Feed {
        Feed { inbox, log: VecDeque::new(), log_upto: window.seen(), window, lost: None, broken: false }
    }

    /// Records in memory that were not looked at.
    pub(crate) fn fetched(&self) -> usize {
        self.log.len()
    }

    /// Puts the next record's messages behind `ready`. [`Next::Item`]: a record was looked at, and may
    /// have had none.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, ready: &mut VecDeque<Item>) -> Next {
        let before = ready.len();
        let next = self.inbox.poll(cx, ready);
        if matches!(next, Next::Item) {
            let pos = ready[before].message.pos;
            if pos > Pos::ZERO && (pos <= self.window.seen() || self.window.was_settled(pos)) {
                // It was seen in the log before the cursor went live, or settled long ago.
                ready.truncate(before);
            } else {
                self.give(ready, before);
            }
        }
        next
    }

    /// Looks at one record of the log, from which `items` makes messages, or fetches some. True: there
    /// is no more, and the cursor is live from here on.
    pub(crate) fn read_log(
        &mut self,
        door: &Door,
        ready: &mut VecDeque<Item>,
        items: impl FnOnce(&Entry) -> Vec<Item>,
    ) -> bool {
        if let Some(entry) = self.log.pop_front() {
            if !self.window.was_settled(entry.pos) {
                let before = ready.len();
                ready.extend(items(&entry));
                self.give(ready, before);
                self.window.see(entry.pos);
            }
            return false;
        }
        self.window.see(self.log_upto);
        let committed = *door.core.committed().borrow();
        if self.window.seen() < committed {
            let chunk = read_on(&*door.core, self.window.seen(), committed, READ_RECORDS, READ_BYTES);
            door.counters.unreadable.add(chunk.unreadable);
            self.lost = chunk.trimmed.or(self.lost);
            self.broken = chunk.broken;
            self.log = chunk.entries.into();
            self.log_upto = chunk.upto;
            return false;
        }
        let live = door.router.go_live(&self.inbox, self.window.seen());
        if live {
            self.log = VecDeque::new();
        }
        live
    }

    /// The messages in `ready` from `from` on are given; the cursor waits for them.
    fn give(&mut self, ready: &VecDeque<Item>, from: usize) {
        for item in ready.iter().skip(from).filter(|i| i.message.pos > Pos::ZERO) {
            if item.qos > 0 {
                self.window.give(item.message.pos);
            } else {
                self.window.see(item.message.pos);
            }
        }
    }
}
