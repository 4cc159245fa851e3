//! Which nodes a message's areas name.

use super::{ADDRESS, DIVISION, Message, parts, values};
use citybrain_shared::Address;

/// The nodes that the areas of an `info` name by a geocode: [`ADDRESS`] names a node and all below it;
/// [`DIVISION`] all nodes of that division, or, where it is finer than the tree, the deepest node whose division it
/// lies in. `None`: it has no such geocode. `known`: `me`, and all below it, with their division codes.
pub fn places(info: &Message, me: &Address, known: &[(Address, Option<String>)]) -> Option<Vec<Address>> {
    let mut found: Vec<Address> = Vec::new();
    let mut is_coded = false;
    for area in parts(info, "area") {
        for text in values(area, "geocode", ADDRESS) {
            is_coded = true;
            let Ok(address) = Address::parse(text) else { continue };
            if address.covers(me) {
                // An area above is all of this node's.
                found.push(me.clone());
            } else if known.iter().any(|(a, _)| *a == address) {
                found.push(address);
            }
        }
        for code in values(area, "geocode", DIVISION) {
            is_coded = true;
            let wanted = division(code);
            if wanted.is_empty() {
                continue;
            }
            let coded = || known.iter().filter_map(|(a, code)| Some((a, division(code.as_deref()?))));
            let within: Vec<&Address> = coded().filter(|(_, c)| c.starts_with(wanted)).map(|(a, _)| a).collect();
            if within.is_empty() {
                let around = coded().filter(|(_, c)| !c.is_empty() && wanted.starts_with(c));
                found.extend(around.max_by_key(|(_, c)| c.len()).map(|(a, _)| a.clone()));
            }
            found.extend(within.into_iter().cloned());
        }
    }
    is_coded.then_some(found)
}

/// All the geocodes of an `info` by which [`places`] looks for nodes.
pub fn codes(info: &Message) -> impl Iterator<Item = &str> {
    parts(info, "area").flat_map(|area| values(area, "geocode", ADDRESS).chain(values(area, "geocode", DIVISION)))
}

/// Without those that are below others of them, in the order of the tree.
pub fn topmost(nodes: &mut Vec<Address>) {
    nodes.sort();
    nodes.dedup();
    let all = nodes.clone();
    nodes.retain(|a| !all.iter().any(|above| above != a && above.covers(a)));
}

/// A division's code without the zeros that only fill it up: 2 province, 2 city, 2 county, then 3 for
/// the street and 3 for the community.
pub fn division(code: &str) -> &str {
    let mut code = code.trim();
    if !code.bytes().all(|b| b.is_ascii_digit()) {
        return "";
    }
    for (length, zeros) in [(12, "000"), (9, "000"), (6, "00"), (4, "00")] {
        if code.len() == length {
            code = code.strip_suffix(zeros).unwrap_or(code);
        }
    }
    code
}

/// The 12 digits of a code; `None`: it is none.
pub fn twelve(code: &str) -> Option<String> {
    let is_code = !code.is_empty() && code.len() <= 12 && code.bytes().all(|b| b.is_ascii_digit());
    is_code.then(|| format!("{code:0<12}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(geocodes: &[(&str, &str)]) -> Vec<String> {
        let geocode: Vec<_> = geocodes.iter().map(|(n, v)| json!({"valueName": n, "value": v})).collect();
        let info = json!({"area": [{"areaDesc": "x"}, {"areaDesc": "y", "geocode": geocode}]});
        let node = |address: &str, code: &str| {
            (Address::parse(address).unwrap(), Some(code.to_owned()).filter(|c| !c.is_empty()))
        };
        let known = [
            node("c", "5101"),
            node("c/a", "510115001"),
            node("c/a/x", "510115001044"),
            node("c/a/x/n", ""),
            node("c/b", "510115002000"),
            node("c/d", ""),
        ];
        let me = Address::parse("c").unwrap();
        let mut nodes = places(info.as_object().unwrap(), &me, &known).unwrap_or_default();
        topmost(&mut nodes);
        nodes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_division_names_the_nodes_in_it_or_the_one_around_it() {
        assert_eq!(of(&[(DIVISION, "510115001000")]), ["c/a"]);
        assert_eq!(of(&[(DIVISION, "510115001044")]), ["c/a/x"]);
        assert_eq!(of(&[(DIVISION, "510115000000")]), ["c/a", "c/b"], "a county is no tier");
        assert_eq!(of(&[(DIVISION, "510100000000")]), ["c"]);
        assert_eq!(of(&[(DIVISION, "510115001044003")]), ["c/a/x"], "a cell of the grid lies in its community");
        assert_eq!(of(&[(DIVISION, "510115001044"), (DIVISION, "510115001000")]), ["c/a"]);
        assert_eq!(of(&[(DIVISION, "440100000000"), (DIVISION, "x"), (DIVISION, ""), ("FIPS6", "510115")]), [""; 0]);
    }

    #[test]
    fn an_address_names_its_node_and_one_above_names_all() {
        assert_eq!(of(&[(ADDRESS, "c/d"), (ADDRESS, "c/nobody"), (ADDRESS, "no address")]), ["c/d"]);
        assert_eq!(of(&[(ADDRESS, "c")]), ["c"]);
        assert_eq!((twelve("510115001"), twelve("x")), (Some("510115001000".into()), None));
    }
}
