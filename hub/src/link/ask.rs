//! Questions down the tree and answers up, for engineers. Never stored.
//!
//! **Format** of a question: id (8 bytes, little-endian), ms that are left (4), length of the
//! target's address (1), the address, the question. Of an answer: id (8), 0 if it is one and 1 if it
//! is an error for people (1), the answer.

use bytes::{BufMut, Bytes, BytesMut};
use citybrain_shared::Address;
use std::pin::Pin;
use std::sync::Arc;

/// Questions of one node that wait for an answer.
pub const OUTSTANDING_MAX: usize = 64;
/// Longest answer, and question, bytes.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024;

pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Answers a question that is for this node.
pub type Handler = Arc<dyn Fn(Bytes) -> BoxFuture<Bytes> + Send + Sync>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("{0} is not below this node")]
    NotBelow(Address),
    #[error("{0} has no session with its parent")]
    Away(Address),
    #[error("{OUTSTANDING_MAX} questions wait for an answer already")]
    Busy,
    #[error("the question or its answer is larger than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    #[error("no answer within the time given")]
    Late,
    /// From a node on the way.
    #[error("{0}")]
    Below(String),
    #[error("the node is stopping")]
    Stopping,
    /// Of a stopped node there is only its own folder.
    #[error("the node asked is stopped: its folder asks nobody")]
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub id: u64,
    pub left_ms: u32,
    pub target: Address,
    pub body: Bytes,
}

impl Question {
    pub fn encode(&self) -> Bytes {
        let target = self.target.as_str();
        let mut out = BytesMut::with_capacity(13 + target.len() + self.body.len());
        out.put_u64_le(self.id);
        out.put_u32_le(self.left_ms);
        // Four segments of 63 bytes and three slashes are exactly what fits.
        out.put_u8(target.len() as u8);
        out.put_slice(target.as_bytes());
        out.put_slice(&self.body);
        out.freeze()
    }

    pub fn decode(mut bytes: Bytes) -> Option<Question> {
        let head = bytes.get(..13)?;
        let id = u64::from_le_bytes(head[..8].try_into().ok()?);
        let left_ms = u32::from_le_bytes(head[8..12].try_into().ok()?);
        let len = head[12] as usize;
        let target = Address::parse(std::str::from_utf8(bytes.get(13..13 + len)?).ok()?).ok()?;
        Some(Question { id, left_ms, target, body: bytes.split_off(13 + len) })
    }
}

pub fn encode_answer(id: u64, answer: &Result<Bytes, AskError>) -> Bytes {
    let text;
    let (status, body): (u8, &[u8]) = match answer {
        Ok(body) if body.len() <= ANSWER_BYTES_MAX => (0, body),
        Ok(_) => {
            text = AskError::TooLarge.to_string();
            (1, text.as_bytes())
        }
        Err(e) => {
            text = e.to_string();
            (1, text.as_bytes())
        }
    };
    let mut out = BytesMut::with_capacity(9 + body.len());
    out.put_u64_le(id);
    out.put_u8(status);
    out.put_slice(body);
    out.freeze()
}

pub fn decode_answer(mut bytes: Bytes) -> Option<(u64, Result<Bytes, AskError>)> {
    let id = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let status = *bytes.get(8)?;
    let body = bytes.split_off(9);
    let answer = match status {
        _ if body.len() > ANSWER_BYTES_MAX => Err(AskError::TooLarge),
        0 => Ok(body),
        _ => Err(AskError::Below(String::from_utf8_lossy(&body).into_owned())),
    };
    Some((id, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_survive_the_wire() {
        let q = Question {
            id: 7,
            left_ms: 900,
            target: Address::parse("c/s").unwrap(),
            body: Bytes::from_static(b"status"),
        };
        assert_eq!(Question::decode(q.encode()), Some(q));
        let ok = Ok(Bytes::from_static(b"fine"));
        assert_eq!(decode_answer(encode_answer(7, &ok)), Some((7, ok)));
        let no = Err(AskError::Busy);
        assert_eq!(decode_answer(encode_answer(7, &no)), Some((7, Err(AskError::Below(AskError::Busy.to_string())))));
    }

    #[test]
    fn cut_or_foreign_bytes_are_no_question() {
        for bytes in [&b""[..], b"123456789012", b"1234567890123", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200, b'c']] {
            assert_eq!(Question::decode(Bytes::copy_from_slice(bytes)), None);
        }
        assert_eq!(decode_answer(Bytes::from_static(b"12345678")), None);
    }
}
