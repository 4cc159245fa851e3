//! Frames' bodies by zstd.

use citybrain_shared::wire::UNPACKED_BYTES_MAX;

/// zstd level 1, if that makes it smaller by at least an eighth. A single record may be larger than what a
/// receiver unpacks; it goes as it is.
pub(crate) fn pack(body: &[u8]) -> Option<Vec<u8>> {
    const WORTH_IT_BYTES_MIN: usize = 256;
    if !(WORTH_IT_BYTES_MIN..=UNPACKED_BYTES_MAX).contains(&body.len()) {
        return None;
    }
    zstd::bulk::compress(body, 1).ok().filter(|packed| packed.len() <= body.len() / 8 * 7)
}

/// For [`citybrain_shared::wire::decode`]: `len` is bounded by the caller.
pub fn unpack(body: &[u8], len: usize) -> Option<Vec<u8>> {
    zstd::bulk::decompress(body, len).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_unpacks_and_what_gains_nothing_is_left() {
        let body = vec![7u8; 4096];
        let packed = pack(&body).unwrap();
        assert_eq!(unpack(&packed, body.len()), Some(body));
        assert_eq!(unpack(&packed, 100), None);
        assert_eq!(pack(b"short"), None);
        // Nobody would unpack it, and the lane would stand still.
        assert!(pack(&vec![7; UNPACKED_BYTES_MAX]).is_some() && pack(&vec![7; UNPACKED_BYTES_MAX + 1]).is_none());
        let noise: Vec<u8> =
            (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ (i >> 3) as u8).collect();
        if let Some(p) = pack(&noise) {
            assert!(p.len() < noise.len());
        }
    }
}
