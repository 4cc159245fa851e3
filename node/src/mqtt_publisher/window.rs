//! The messages under way: pure, without I/O or clock.

use super::Message;
use std::collections::VecDeque;

pub(super) struct Window {
    /// Oldest first. The first `sent` of them were written to this connection.
    messages: VecDeque<(u16, Message)>,
    pub(super) sent: usize,
    size: usize,
    last_id: u16,
}

impl Window {
    pub(super) fn new(size: usize) -> Window {
        // Half of all packet ids, so that an id is never given to a second message under way.
        Window { messages: VecDeque::new(), sent: 0, size: size.clamp(1, 32_768), last_id: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.messages.len() < self.size
    }

    pub(super) fn push(&mut self, message: Message) {
        self.last_id = match self.last_id {
            u16::MAX => 1,
            id => id + 1,
        };
        self.messages.push_back((self.last_id, message));
    }

    /// The next message to write, oldest first.
    pub(super) fn poll_send(&mut self) -> Option<(u16, &Message)> {
        let (id, message) = self.messages.get(self.sent)?;
        self.sent += 1;
        Some((*id, message))
    }

    /// The number of the message that `id` acknowledges; `None` if there is none under way.
    pub(super) fn on_ack(&mut self, id: u16) -> Option<u64> {
        let at = self.messages.iter().take(self.sent).position(|(other, _)| *other == id)?;
        self.sent -= 1;
        self.messages.remove(at).map(|(_, message)| message.number)
    }

    /// A new connection knows nothing of what was written to the last one. How many go again.
    pub(super) fn rewind(&mut self) -> u64 {
        std::mem::take(&mut self.sent) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::message;
    use super::*;

    #[test]
    fn a_new_connection_sends_everything_unacknowledged_again_in_the_first_order() {
        let mut w = Window::new(10);
        for n in 1..=5 {
            w.push(message(n));
        }
        let sent: Vec<u16> = std::iter::from_fn(|| w.poll_send().map(|(id, _)| id)).take(4).collect();
        assert_eq!(w.on_ack(sent[1]), Some(2));
        assert_eq!(w.on_ack(sent[0]), Some(1));
        assert_eq!(w.on_ack(sent[0]), None, "an acknowledgement counts once");
        assert_eq!(w.rewind(), 2);
        let again: Vec<u64> = std::iter::from_fn(|| w.poll_send().map(|(_, m)| m.number)).collect();
        assert_eq!(again, [3, 4, 5]);
    }

    #[test]
    fn an_acknowledgement_for_a_message_never_written_is_ignored() {
        let mut w = Window::new(10);
        w.push(message(1));
        assert_eq!(w.on_ack(1), None);
    }

    #[test]
    fn packet_ids_wrap_around_without_zero() {
        let mut w = Window::new(1);
        w.last_id = u16::MAX - 1;
        let ids: Vec<u16> = (0..3)
            .map(|n| {
                w.push(message(n));
                let id = w.poll_send().unwrap().0;
                w.on_ack(id);
                id
            })
            .collect();
        assert_eq!(ids, [u16::MAX, 1, 2]);
    }
}
