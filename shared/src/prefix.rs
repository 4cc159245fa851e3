//! Ids by their beginning, as people write them.

/// What the beginning of an id names.
#[derive(Debug, PartialEq, Eq)]
pub enum Named<T> {
    One(T),
    Nothing,
    /// It may be any of these two, or another.
    Several(T, T),
}

/// `rest`: ids and what they name, in order, from the first on that is not before `text`. The whole id
/// names its own even if others begin with it; an empty text names nothing.
pub fn named<'a, T>(text: &str, rest: impl IntoIterator<Item = (&'a str, T)>) -> Named<T> {
    let mut fits = rest.into_iter().take_while(|(id, _)| !text.is_empty() && id.starts_with(text));
    match (fits.next(), fits.next()) {
        (None, _) => Named::Nothing,
        (Some((id, one)), Some((_, other))) if id != text => Named::Several(one, other),
        (Some((_, one)), _) => Named::One(one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_one_id_names_it_and_that_of_two_says_so() {
        let all = ["2a5b", "2a5b96", "7f3a01"];
        let of = |text| named(text, all.iter().filter(|id| **id >= text).map(|id| (*id, *id)));
        assert_eq!(of("7"), Named::One("7f3a01"));
        assert_eq!(of("2a5b"), Named::One("2a5b"));
        assert_eq!(of("2a5b9"), Named::One("2a5b96"));
        assert_eq!(of("2"), Named::Several("2a5b", "2a5b96"));
        for nothing in ["", "8", "2b", "7f3a012"] {
            assert_eq!(of(nothing), Named::Nothing, "{nothing}");
        }
    }
}
