//! A bounded run of the fuzz targets with a stable compiler: the kept corpus, then seeded mutations
//! of it. `CITYBRAIN_FUZZ_RUNS=n` makes more of them. What is found goes into the corpus.

#[path = "../fuzz/src/entries.rs"]
mod entries;

use std::panic::catch_unwind;
use std::path::Path;

/// About a second each.
const RUNS: u64 = 200_000;
const INPUT_BYTES_MAX: usize = 4096;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 where there is nothing to choose from.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let from = self.below(len + 1);
        from..from + self.below((len - from).min(64) + 1)
    }

    fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        const TELLING: [u8; 10] = [0, 1, 2, 0x7f, 0x80, 0xff, b'"', b'{', b'}', b'\\'];
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(input.len());
            match self.below(8) {
                0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
                1 if !input.is_empty() => input[at] = TELLING[self.below(TELLING.len())],
                2 => input.insert(at, self.next() as u8),
                3 => drop(input.drain(self.range(input.len()))),
                4 => {
                    let some = input[self.range(input.len())].to_vec();
                    input.splice(at..at, some);
                }
                5 => {
                    let other = &corpus[self.below(corpus.len())];
                    let some = other[self.range(other.len())].to_vec();
                    input.splice(at..at, some);
                }
                6 => input.truncate(at),
                // A length, as this or that format writes it.
                _ => {
                    let n = [0, 1, u32::MAX, 1 << 31, 0xffff, input.len() as u32][self.below(6)];
                    let bytes = if self.below(2) == 0 { n.to_le_bytes() } else { n.to_be_bytes() };
                    let width = [1, 2, 4][self.below(3)];
                    for (to, from) in input[at..].iter_mut().zip(&bytes[..width]) {
                        *to = *from;
                    }
                }
            }
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }
}

fn fuzz(target: &str, entry: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|f| f.expect("a file of the corpus").path())
        .collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|f| std::fs::read(f).expect("a file of the corpus")).collect();
    assert!(corpus.len() > 5, "{} has hardly any files", dir.display());
    let check = |input: &[u8], of: &str| {
        if catch_unwind(|| entry(input)).is_err() {
            panic!("{target} fails for {of}: {}", input.iter().map(|b| format!("{b:02x}")).collect::<String>());
        }
    };
    for (input, file) in corpus.iter().zip(&files) {
        check(input, &file.display().to_string());
    }
    let runs = std::env::var("CITYBRAIN_FUZZ_RUNS").map_or(RUNS, |n| n.parse().expect("a number"));
    let mut rng = Rng(1);
    for n in 0..runs {
        check(&rng.mutate(&corpus), &format!("mutation {n}"));
    }
}

#[test]
fn no_packet_of_a_client_panics_and_what_is_accepted_goes_out_as_it_came() {
    fuzz("packets", entries::packets);
}

#[test]
fn no_message_of_a_link_panics_and_what_is_accepted_can_be_kept() {
    fuzz("frames", entries::frames);
}

#[test]
fn no_publish_panics_and_what_is_taken_is_an_event_a_message_or_a_dead_letter() {
    fuzz("ingress", entries::ingress);
}
