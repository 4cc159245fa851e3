//! Address segments from names in any script.

use xxhash_rust::xxh3::xxh3_64;

/// The longest address segment, bytes.
const SEGMENT_BYTES_MAX: usize = 63;

/// `text` as an address segment, `[a-z0-9][a-z0-9-]{0,62}`: letters lowered, all else one dash.
/// `None` when nothing but spaces is there.
///
/// Where the segment would say too little (a name cut at 63 bytes, or one in another script), eight
/// hexadecimal digits of the whole name's hash keep different names apart.
pub fn slug(text: &str) -> Option<String> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let mut out = String::new();
    let mut foreign = false;
    for c in text.chars() {
        match c {
            'a'..='z' | '0'..='9' => out.push(c),
            'A'..='Z' => out.push(c.to_ascii_lowercase()),
            _ => {
                foreign |= !c.is_ascii();
                if !out.is_empty() && !out.ends_with('-') {
                    out.push('-');
                }
            }
        }
    }
    out.truncate(out.trim_end_matches('-').len());
    if foreign || out.is_empty() || out.len() > SEGMENT_BYTES_MAX {
        out.truncate(SEGMENT_BYTES_MAX - 9);
        let hash = format!("{:08x}", xxh3_64(text.as_bytes()) as u32);
        let kept = out.trim_end_matches('-');
        out = if kept.is_empty() { hash } else { format!("{kept}-{hash}") };
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::Address;
    use proptest::prelude::*;

    #[test]
    fn names_become_segments() {
        for (name, want) in [
            ("South Los Angeles APC", "south-los-angeles-apc"),
            ("WILSHIRE CENTER - KOREATOWN NC", "wilshire-center-koreatown-nc"),
            ("Metal/Household Appliances", "metal-household-appliances"),
            (" 90020 ", "90020"),
        ] {
            assert_eq!(slug(name).as_deref(), Some(want));
        }
        assert_eq!(slug("  "), None);
        assert_ne!(slug("光华社区"), slug("下涧槽社区"));
        let long = "united neighborhoods of the historic arlington heights and jefferson park ";
        assert_ne!(slug(&format!("{long}east")), slug(&format!("{long}west")));
    }

    proptest! {
        #[test]
        fn every_name_gives_a_valid_segment(name in ".{0,200}") {
            if let Some(segment) = slug(&name) {
                prop_assert!(Address::parse(&segment).is_ok() && !segment.contains('/'), "{segment}");
            }
        }
    }
}
