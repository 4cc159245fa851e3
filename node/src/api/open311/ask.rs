//! What a client of GeoReport v2 asks: parameters, dates, pages, a new request.

use super::super::cases::{MEDIA_MAX, URL_MAX};
use super::charset::Charset;
use super::{Wrong, wrong};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use citybrain_shared::case::{Contact, Place};
use citybrain_shared::words;
use percent_encoding::percent_decode;
use std::collections::{BTreeMap, HashSet};

/// The specification's bounds of an answer.
pub const SPAN_DAYS_MAX: i64 = 90;
pub const PAGE_MAX: usize = 1_000;
/// Entries that pages reach: of each that is passed over something must be remembered.
const BEHIND_MAX: usize = 100_000;
/// Characters of a description, the specification's bound; of a longer one than a case keeps it is said.
pub const DESCRIPTION_MAX: usize = 4_000;
/// Characters of any other field.
const FIELD_MAX: usize = 300;

/// Form or query parameters. An empty one is as good as none.
#[derive(Clone, Debug, Default)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// # Errors
    /// What is no text in this encoding, each field of it.
    pub fn parse(text: &[u8], charset: Charset) -> Result<Parameters, Vec<Wrong>> {
        let bytes = |part: &[u8]| -> Vec<u8> {
            let blanks: Vec<u8> = part.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
            percent_decode(&blanks).collect()
        };
        let pairs = text.split(|b| *b == b'&').filter(|pair| !pair.is_empty());
        let fields = pairs.map(|pair| {
            let end = pair.iter().position(|b| *b == b'=');
            let (name, value) = end.map_or((pair, &[][..]), |end| (&pair[..end], &pair[end + 1..]));
            let name = charset.name(&bytes(name))?;
            let value = charset.value(&name, &bytes(value))?;
            Ok((name, value))
        });
        Parameters::of(fields)
    }

    /// Fields, or why one is none.
    ///
    /// # Errors
    /// All that are none.
    pub fn of(fields: impl Iterator<Item = Result<(String, String), String>>) -> Result<Parameters, Vec<Wrong>> {
        let (mut all, mut refused) = (Vec::new(), Vec::new());
        for field in fields {
            match field {
                Ok((name, value)) => all.push((name, value.trim().to_owned())),
                Err(why) => refused.push(wrong(400, why)),
            }
        }
        all.retain(|(_, value)| !value.is_empty());
        if refused.is_empty() { Ok(Parameters(all)) } else { Err(refused) }
    }

    pub fn and(mut self, more: Parameters) -> Parameters {
        self.0.extend(more.0);
        self
    }

    /// The first of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// All of these names.
    fn all<'p>(&'p self, names: &'p [&str]) -> impl Iterator<Item = &'p str> {
        self.0.iter().filter(|(k, _)| names.contains(&k.as_str())).map(|(_, v)| v.as_str())
    }

    /// All of them but whose they are, in an order that is always the same.
    pub fn written(&self) -> String {
        let mut all: Vec<&(String, String)> = self.0.iter().filter(|(name, _)| name != "api_key").collect();
        all.sort();
        form_urlencoded::Serializer::new(String::new()).extend_pairs(all).finish()
    }

    fn short(&self, name: &str) -> Result<String, Wrong> {
        self.within(name, FIELD_MAX)
    }

    fn within(&self, name: &str, chars_max: usize) -> Result<String, Wrong> {
        let text = self.get(name).unwrap_or_default();
        if text.chars().count() > chars_max {
            return Err(wrong(400, format!("{name} is longer than {chars_max} characters")));
        }
        Ok(text.to_owned())
    }

    /// The parts of a comma list; `None` where there is none.
    pub fn list(&self, name: &str) -> Option<Vec<&str>> {
        let parts: Vec<&str> = self.get(name)?.split(',').map(str::trim).filter(|p| !p.is_empty()).collect();
        (!parts.is_empty()).then_some(parts)
    }

    /// The same of what there may be many of; `what` they are.
    fn named<C: FromIterator<String>>(&self, name: &str, what: &str) -> Result<Option<C>, Wrong> {
        let Some(all) = self.list(name) else { return Ok(None) };
        if all.len() > PAGE_MAX {
            return Err(wrong(400, format!("{name} names more than {PAGE_MAX} {what}")));
        }
        Ok(Some(all.into_iter().map(str::to_owned).collect()))
    }

    /// # Errors
    /// When it is given and no date with a time zone.
    pub fn date(&self, name: &str) -> Result<Option<DateTime<Utc>>, Wrong> {
        let Some(text) = self.get(name) else { return Ok(None) };
        // A `+` that was not escaped arrives as a blank.
        match DateTime::parse_from_rfc3339(&text.replace(' ', "+")) {
            Ok(at) => Ok(Some(at.with_timezone(&Utc))),
            Err(_) => {
                let detail = format!("{name} `{text}` is no date: write it like 2026-11-24T08:00:00Z, with its zone");
                Err(wrong(400, detail))
            }
        }
    }

    /// `attribute[CODE]=VALUE`, and `attribute[CODE][]=VALUE` once for each of several values.
    ///
    /// # Errors
    /// When a name is none.
    fn attributes(&self) -> Result<BTreeMap<String, String>, Wrong> {
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in &self.0 {
            let Some(rest) = name.strip_prefix("attribute[") else { continue };
            let code = rest.strip_suffix("[]").unwrap_or(rest).strip_suffix(']').filter(|c| !c.is_empty());
            let Some(code) = code.filter(|c| !c.contains(['[', ']'])) else {
                let shown = words::short(name);
                return Err(wrong(400, format!("{shown} is no attribute: write attribute[CODE] or attribute[CODE][]")));
            };
            let known = all.entry(code.to_owned()).or_default();
            if !known.is_empty() {
                known.push(',');
            }
            known.push_str(value);
        }
        Ok(all)
    }

    /// Which part of a list is wanted: how many to pass over, and how many to show.
    ///
    /// # Errors
    /// When it is no number, or too far behind.
    pub fn page(&self) -> Result<(usize, usize), Wrong> {
        let size = self.count("page_size", PAGE_MAX, PAGE_MAX)?;
        let skip = (self.count("page", 1, usize::MAX)? - 1).saturating_mul(size);
        if skip.saturating_add(size) > BEHIND_MAX {
            let detail = format!("page goes {BEHIND_MAX} entries far; ask for less with start_date and end_date");
            return Err(wrong(400, detail));
        }
        Ok((skip, size))
    }

    fn count(&self, name: &str, default: usize, max: usize) -> Result<usize, Wrong> {
        match self.get(name).map(str::parse::<usize>) {
            None => Ok(default),
            Some(Ok(n)) if (1..=max).contains(&n) => Ok(n),
            Some(_) if max == usize::MAX => Err(wrong(400, format!("{name} is a number from 1 on"))),
            Some(_) => Err(wrong(400, format!("{name} is a number from 1 to {max}"))),
        }
    }

    /// Where it is, in degrees.
    fn degrees(&self, name: &str, max: f64) -> Result<Option<f64>, Wrong> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse::<f64>() {
            Ok(n) if n.abs() <= max => Ok(Some(n)), // no NaN
            _ => Err(wrong(400, format!("{name} `{text}` is not in degrees from -{max} to {max} (WGS84)"))),
        }
    }
}

/// Which requests are wanted. Ends of a span belong to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// Each of many cases is looked up in it.
    pub codes: Option<HashSet<String>>,
    pub open: bool,
    pub closed: bool,
    pub requested: (DateTime<Utc>, DateTime<Utc>),
    pub updated: (DateTime<Utc>, DateTime<Utc>),
    /// From 0.
    pub skip: usize,
    pub page: usize,
}

impl Filter {
    /// # Errors
    /// When a parameter does not read, or a span is over 90 days.
    pub fn parse(p: &Parameters, now: DateTime<Utc>) -> Result<Filter, Wrong> {
        let (mut open, mut closed) = (false, false);
        for word in p.list("status").unwrap_or_else(|| vec!["open", "closed"]) {
            match word {
                "open" => open = true,
                "closed" => closed = true,
                other => return Err(wrong(400, format!("status `{other}` is neither open nor closed"))),
            }
        }
        let by_update = (p.date("updated_after")?, p.date("updated_before")?);
        let by_request = (p.date("start_date")?, p.date("end_date")?);
        let all = (DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC);
        let requested = match by_request {
            // What was asked for long ago may well change today.
            (None, None) if by_update != (None, None) => all,
            (from, to) => span(("start_date", from), ("end_date", to), now)?,
        };
        let updated = match by_update {
            (None, None) => all,
            (from, to) => span(("updated_after", from), ("updated_before", to), now)?,
        };
        let (skip, page) = p.page()?;
        let codes = p.named("service_code", "services")?;
        Ok(Filter { codes, open, closed, requested, updated, skip, page })
    }
}

/// The requests that are asked for by their ids, which override all else.
///
/// # Errors
/// When there are too many.
pub fn ids(p: &Parameters) -> Result<Option<Vec<String>>, Wrong> {
    p.named("service_request_id", "requests")
}

/// At most 90 days; an end that is missing is as far from the other as may be.
pub fn span(
    (from_name, from): (&str, Option<DateTime<Utc>>),
    (to_name, to): (&str, Option<DateTime<Utc>>),
    now: DateTime<Utc>,
) -> Result<(DateTime<Utc>, DateTime<Utc>), Wrong> {
    let most = TimeDelta::days(SPAN_DAYS_MAX);
    // Written to the second, an instant names the whole of it.
    let to = to.map(|to| if to.timestamp_subsec_nanos() == 0 { to + TimeDelta::microseconds(999_999) } else { to });
    let far = || wrong(400, format!("{from_name} or {to_name} is too far away to count {SPAN_DAYS_MAX} days from"));
    let (from, to) = match (from, to) {
        (Some(from), Some(to)) => (from, to),
        (Some(from), None) => (from, from.checked_add_signed(most).ok_or_else(far)?),
        (None, Some(to)) => (to.checked_sub_signed(most).ok_or_else(far)?, to),
        (None, None) => (now - most, now + TimeDelta::days(1)),
    };
    if to < from {
        return Err(wrong(400, format!("{to_name} is before {from_name}")));
    }
    if to - from > most + TimeDelta::days(1) {
        return Err(wrong(400, format!("from {from_name} to {to_name} may be {SPAN_DAYS_MAX} days; ask for parts")));
    }
    Ok((from, to))
}

/// A request as a resident's app posts it.
#[derive(Debug)]
pub struct New {
    pub service_code: String,
    pub place: Place,
    pub description: String,
    /// By code; of several values with commas between them.
    pub attributes: BTreeMap<String, String>,
    pub media: Vec<String>,
    pub contact: Contact,
    /// Beside an `address_string`, which says where it is, there is no room for it.
    pub address_id_unkept: bool,
}

impl New {
    /// # Errors
    /// Everything that is wrong with it, together.
    pub fn parse(p: &Parameters) -> Result<New, Vec<Wrong>> {
        let mut all = Vec::new();
        let mut keep = |result: Result<String, Wrong>| {
            result.unwrap_or_else(|e| {
                all.push(e);
                String::new()
            })
        };
        let code =
            keep(p.get("service_code").map(str::to_owned).ok_or_else(|| wrong(400, "service_code was not provided")));
        let [address, address_id, first, last, phone, email] =
            ["address_string", "address_id", "first_name", "last_name", "phone", "email"]
                .map(|name| keep(p.short(name)));
        let description = p.get("description").unwrap_or_default().to_owned();
        if description.chars().count() > DESCRIPTION_MAX {
            all.push(wrong(400, format!("description is longer than {DESCRIPTION_MAX} characters")));
        }
        let mut degrees = |name, max| {
            p.degrees(name, max).unwrap_or_else(|e| {
                all.push(e);
                None
            })
        };
        let (lat, lon) = (degrees("lat", 90.0), degrees("long", 180.0));
        let half = p.get("lat").is_some() != p.get("long").is_some();
        if half || (p.get("lat").is_none() && address.is_empty() && address_id.is_empty()) {
            all.push(wrong(400, "a location was not provided: lat and long, or address_string, or address_id"));
        }
        let media: Vec<String> = p.all(&["media_url", "media_url[]"]).map(str::to_owned).collect();
        if !media.iter().all(|url| is_url(url)) {
            all.push(wrong(400, "media_url is no http or https URL"));
        }
        // A signed one is long.
        if media.len() > MEDIA_MAX || media.iter().any(|url| url.len() > URL_MAX) {
            all.push(wrong(400, format!("media_url is given {MEDIA_MAX} times at most, each with {URL_MAX} bytes")));
        }
        let attributes = p.attributes().unwrap_or_else(|e| {
            all.push(e);
            BTreeMap::new()
        });
        if !all.is_empty() {
            return Err(all);
        }
        let address_id_unkept = !address.is_empty() && !address_id.is_empty();
        let text = if address.is_empty() { address_id } else { address };
        // In Chinese a name is written without a blank.
        let blank = if (first.clone() + &last).is_ascii() { " " } else { "" };
        let name = if blank.is_empty() { last + &first } else { format!("{first} {last}").trim().to_owned() };
        let mut contact = Contact { name, phone, ..Contact::default() };
        if !email.is_empty() {
            contact.more.insert("email".into(), email);
        }
        let place = Place { text, lat, lon };
        Ok(New { service_code: code, place, description, attributes, media, contact, address_id_unkept })
    }
}

/// A reference to a picture.
pub fn is_url(text: &str) -> bool {
    (text.starts_with("https://") || text.starts_with("http://")) && !text.contains(char::is_whitespace)
}

/// W3C's ISO 8601, to the second.
pub fn w3c(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Parameters {
        Parameters::parse(text.as_bytes(), Charset::UTF8).unwrap()
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn an_empty_parameter_is_none_and_lists_are_cut_at_commas() {
        let p = of("a=&b=+x+&c=1,%202,,&d=%2C");
        assert_eq!((p.get("a"), p.get("b")), (None, Some("x")));
        assert_eq!(p.list("c").unwrap(), ["1", "2"]);
        assert_eq!((p.list("d"), p.list("e")), (None, None));
    }

    #[test]
    fn a_page_beyond_all_pages_is_refused() {
        for page in ["page=101&page_size=1000", "page=18446744073709551615&page_size=50"] {
            assert!(of(page).page().is_err_and(|w| w.code == 400), "{page}");
        }
        assert_eq!(of("page=100&page_size=1000").page().unwrap(), (99_000, 1_000));
    }

    #[test]
    fn without_dates_the_last_ninety_days_are_meant() {
        let now = at("2026-11-24T00:00:00Z");
        let f = Filter::parse(&of(""), now).unwrap();
        assert_eq!(f.requested.0, at("2026-08-26T00:00:00Z"));
        assert!(f.requested.1 > now && f.open && f.closed && f.page == 1000 && f.skip == 0);
        let f =
            Filter::parse(&of("start_date=2026-01-01T08:00:00+08:00&status=open&page=3&page_size=20"), now).unwrap();
        assert_eq!(f.requested, (at("2026-01-01T00:00:00Z"), at("2026-04-01T00:00:00Z")));
        assert_eq!((f.open, f.closed, f.skip, f.page), (true, false, 40, 20));
        let f = Filter::parse(&of("updated_after=2026-11-23T00:00:00Z"), now).unwrap();
        assert_eq!((f.requested.0, f.updated.0), (DateTime::<Utc>::MIN_UTC, at("2026-11-23T00:00:00Z")));
    }

    #[test]
    fn wrong_filters_are_refused_with_what_to_write() {
        let now = at("2026-11-24T00:00:00Z");
        let why = |text: &str| Filter::parse(&of(text), now).unwrap_err().description;
        assert!(why("status=done").contains("neither open nor closed"));
        let of_many = |name: &str, n: usize| format!("{name}={}", vec!["x"; n].join(","));
        assert!(Filter::parse(&of(&of_many("service_code", PAGE_MAX)), now).is_ok());
        assert!(why(&of_many("service_code", PAGE_MAX + 1)).contains("names more than 1000"));
        let by_id = |n: usize| ids(&of(&of_many("service_request_id", n)));
        assert!(by_id(PAGE_MAX).is_ok());
        assert!(by_id(PAGE_MAX + 1).unwrap_err().description.contains("names more than 1000"));
        assert!(why("start_date=2026-01-01").contains("with its zone"));
        assert!(why("start_date=2026-01-01T00:00:00Z&end_date=2026-06-01T00:00:00Z").contains("90 days"));
        assert!(why("start_date=2026-02-01T00:00:00Z&end_date=2026-01-01T00:00:00Z").contains("before"));
        assert!(why("page=0").contains("from 1"));
        assert!(why("page_size=1001").contains("1 to 1000"));
        assert!(why("page=101").contains("100000 entries") && Filter::parse(&of("page=100"), now).is_ok());
    }

    #[test]
    fn a_request_needs_a_service_and_a_place_and_all_that_is_wrong_is_told_at_once() {
        let good = of(
            "service_code=SJ0102&lat=30.6980&long=103.8368&description=%E5%9E%83%E5%9C%BE&first_name=%E5%B0%8F&last_name=%E7%8E%8B&phone=1&email=a@b",
        );
        let new = New::parse(&good).unwrap();
        assert_eq!((new.place.lat, new.place.lon, new.description.as_str()), (Some(30.698), Some(103.8368), "垃圾"));
        assert_eq!((new.contact.name.as_str(), new.contact.phone.as_str()), ("王小", "1"));
        assert_eq!(new.contact.more["email"], "a@b");
        let new = New::parse(&of("service_code=x&address_id=9&first_name=Ann&last_name=Lee&media_url=https://x/1.jpg"))
            .unwrap();
        assert_eq!(
            (new.place.text.as_str(), new.contact.name.as_str(), new.description.as_str()),
            ("9", "Ann Lee", "")
        );
        assert_eq!(new.media, ["https://x/1.jpg"]);
        let signed = format!("https://x/1.jpg?signature={}", "a".repeat(800));
        let new = New::parse(&of(&format!("service_code=x&address_id=9&media_url={signed}"))).unwrap();
        assert_eq!(new.media, [signed]);
        let new =
            "service_code=x&address_id=9&attribute%5BSIZE%5D=2&attribute[KIND][]=a&attribute[KIND][]=b&attribute[E]=";
        let new = New::parse(&of(new)).unwrap();
        let attributes: Vec<(&str, &str)> = new.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(attributes, [("KIND", "a,b"), ("SIZE", "2")]);
        let why =
            |text: &str| New::parse(&of(text)).unwrap_err().into_iter().map(|w| w.description).collect::<Vec<_>>();
        assert_eq!(why("").len(), 2);
        assert!(why("service_code=x&lat=91&long=NaN").len() == 2);
        assert_eq!(why("service_code=x&lat=1").len(), 1, "half a place is none");
        assert_eq!(why("service_code=x&address_string=y&attribute[SIZE=2&media_url=javascript:1").len(), 2);
        let long = format!("service_code=x&address_string=y&description={}", "x".repeat(4001));
        assert!(why(&long)[0].contains("4000"));
    }
}
