//! Times of a file, made absolute: by the time zone of its place, or by an offset that stays the same.

use chrono::format::{Fixed, Item, Parsed, StrftimeItems, parse};
use chrono::{DateTime, FixedOffset, NaiveDateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use serde::Deserialize;

/// `[event.time]` of a mapping.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// Template of the text, such as `{CreatedDate}`.
    pub text: String,
    /// As in strftime; or `rfc3339`, `unix_s`, `unix_ms`. One with an offset of its own (`%z`) needs no place.
    pub format: String,
    /// Whose local times they are: `America/Los_Angeles`. Of the hour that an autumn change repeats,
    /// the first pass is meant; what falls into the hour that a spring change leaves out is no time.
    #[serde(default)]
    pub zone: Option<String>,
    /// Or: an offset that never changes, `-08:00`.
    #[serde(default)]
    pub utc_offset: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("`{0}` is not an offset from UTC: write it as -08:00")]
    Offset(String),
    #[error("`{0}` is not a time zone: write it as in the IANA database, America/Los_Angeles")]
    Zone(String),
    #[error("a time has `zone` or `utc_offset`, not both")]
    Both,
    #[error("the format `{0}` reads an offset: leave `zone`, `utc_offset` and `--utc-offset` out")]
    Twice(String),
    #[error("the format `{0}` is not one: use strftime's letters, or rfc3339, unix_s, unix_ms")]
    Format(String),
}

/// Reads times of one format.
#[derive(Clone, Debug)]
pub struct Clock {
    format: String,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// The text says it.
    Text,
    Zone(Tz),
    Offset(FixedOffset),
}

impl Clock {
    /// `forced` is an offset that takes the place of the mapping's zone or offset.
    ///
    /// # Errors
    /// When a part of `time` cannot be read.
    pub fn new(time: &Time, forced: Option<&str>) -> Result<Clock, Error> {
        if StrftimeItems::new(&time.format).any(|i| i == Item::Error) {
            return Err(Error::Format(time.format.clone()));
        }
        let has_place = forced.is_some() || time.zone.is_some() || time.utc_offset.is_some();
        if StrftimeItems::new(&time.format).any(|item| is_offset(&item)) {
            let format = time.format.clone();
            return if has_place { Err(Error::Twice(format)) } else { Ok(Clock { format, place: Place::Text }) };
        }
        let place = match (forced, &time.zone, &time.utc_offset) {
            (None, Some(_), Some(_)) => return Err(Error::Both),
            (None, Some(zone), None) => Place::Zone(zone.parse().map_err(|_| Error::Zone(zone.clone()))?),
            (Some(text), ..) => Place::Offset(offset(text)?),
            (None, None, Some(text)) => Place::Offset(offset(text)?),
            (None, None, None) => Place::Offset(Utc.fix()),
        };
        Ok(Clock { format: time.format.clone(), place })
    }

    /// `None` when `text` is no time of the format.
    pub fn read(&self, text: &str) -> Option<DateTime<FixedOffset>> {
        let utc = |utc: DateTime<Utc>| match &self.place {
            Place::Text => utc.fixed_offset(),
            Place::Zone(zone) => utc.with_timezone(zone).fixed_offset(),
            Place::Offset(offset) => utc.with_timezone(offset),
        };
        match self.format.as_str() {
            "rfc3339" => DateTime::parse_from_rfc3339(text).ok(),
            "unix_s" => DateTime::from_timestamp(text.parse().ok()?, 0).map(utc),
            "unix_ms" => DateTime::from_timestamp_millis(text.parse().ok()?).map(utc),
            format if matches!(self.place, Place::Text) => DateTime::parse_from_str(text, format).ok(),
            format => {
                let local = NaiveDateTime::parse_from_str(text, format).ok()?;
                match &self.place {
                    Place::Text => Some(local.and_utc().fixed_offset()),
                    Place::Zone(zone) => zone.from_local_datetime(&local).earliest().map(|t| t.fixed_offset()),
                    Place::Offset(offset) => offset.from_local_datetime(&local).single(),
                }
            }
        }
    }
}

/// Does it read how far a clock is from UTC? `%Z`, a name, is read and says nothing.
fn is_offset(item: &Item<'_>) -> bool {
    // Not all kinds have a name outside chrono, so it is asked what it makes of one.
    let mut parsed = Parsed::new();
    let reads = parse(&mut parsed, "+08:00", std::iter::once(item)).is_ok() && parsed.offset().is_some();
    reads || *item == Item::Fixed(Fixed::RFC3339)
}

fn offset(text: &str) -> Result<FixedOffset, Error> {
    let parse = || {
        let (sign, rest) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+')?),
        };
        let (hours, minutes) = rest.split_once(':')?;
        let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
        if !(0..=14).contains(&hours) || !(0..60).contains(&minutes) {
            return None;
        }
        FixedOffset::east_opt(sign * (hours * 3600 + minutes * 60))
    };
    parse().ok_or_else(|| Error::Offset(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(format: &str, place: &str) -> Clock {
        let (zone, utc_offset) =
            if place.contains('/') { (Some(place.into()), None) } else { (None, Some(place.into())) };
        Clock::new(&Time { text: "{t}".into(), format: format.into(), zone, utc_offset }, None).unwrap()
    }

    #[test]
    fn american_times_become_absolute() {
        let la = clock("%m/%d/%Y %I:%M:%S %p", "-08:00");
        assert_eq!(la.read("01/01/2018 12:00:09 AM").unwrap().to_rfc3339(), "2018-01-01T00:00:09-08:00");
        assert_eq!(la.read("01/01/2018 12:00:09 PM").unwrap().to_rfc3339(), "2018-01-01T12:00:09-08:00");
        assert_eq!(la.read("13/01/2018 12:00:09 PM"), None);
        assert_eq!(la.read(""), None);
    }

    #[test]
    fn a_clock_change_inside_the_file_changes_the_offset() {
        let boston = clock("%Y-%m-%d %H:%M:%S", "America/New_York");
        let read = |text: &str| boston.read(text).map(|t| t.to_rfc3339());
        assert_eq!(read("2011-11-06 00:59:59").as_deref(), Some("2011-11-06T00:59:59-04:00"));
        assert_eq!(read("2011-11-06 01:30:00").as_deref(), Some("2011-11-06T01:30:00-04:00"), "the first pass");
        assert_eq!(read("2011-11-06 02:00:00").as_deref(), Some("2011-11-06T02:00:00-05:00"));
        assert_eq!(read("2012-03-11 02:30:00"), None, "no clock has shown it");
        assert_eq!(clock("unix_s", "America/New_York").read("0").unwrap().to_rfc3339(), "1969-12-31T19:00:00-05:00");
    }

    #[test]
    fn an_offset_in_the_text_counts_and_nothing_else_may_say_another() {
        let time = |format: &str, zone: Option<&str>| Time {
            text: "{t}".into(),
            format: format.into(),
            zone: zone.map(Into::into),
            utc_offset: None,
        };
        let read = |format: &str, text: &str| {
            Clock::new(&time(format, None), None).unwrap().read(text).map(|t| t.to_rfc3339())
        };
        let at = Some("2026-01-02T03:04:05+08:00".to_owned());
        assert_eq!(read("%Y-%m-%d %H:%M:%S %z", "2026-01-02 03:04:05 +0800"), at);
        assert_eq!(read("%Y-%m-%dT%H:%M:%S%:z", "2026-01-02T03:04:05+08:00"), at);
        assert_eq!(read("%Y-%m-%dT%H:%M:%S%#z", "2026-01-02T03:04:05+08"), at);
        assert_eq!(read("%+", "2026-01-02T03:04:05+08:00"), at);
        assert_eq!(read("%Y-%m-%d %H:%M:%S %z", "2026-01-02 03:04:05"), None);
        for (zone, forced) in [(Some("Asia/Shanghai"), None), (None, Some("+08:00"))] {
            let twice = Clock::new(&time("%Y-%m-%d %H:%M:%S %z", zone), forced).unwrap_err();
            assert!(matches!(twice, Error::Twice(_)), "{twice}");
        }
        assert!(Clock::new(&time("%Y-%m-%d %H:%M:%S %Z", Some("Asia/Shanghai")), None).is_ok());
    }

    #[test]
    fn one_digit_parts_and_numbers_since_1970_are_read() {
        let air = clock("%Y-%m-%d %H:%M", "+08:00");
        assert_eq!(air.read("2014-1-2 3:00").unwrap().to_rfc3339(), "2014-01-02T03:00:00+08:00");
        assert_eq!(clock("unix_ms", "+00:00").read("1500").unwrap().timestamp_millis(), 1500);
        assert_eq!(clock("unix_s", "+08:00").read("0").unwrap().to_rfc3339(), "1970-01-01T08:00:00+08:00");
    }

    #[test]
    fn wrong_offsets_and_formats_are_refused() {
        for bad in ["8", "-0800", "-25:00", "08:00", "-08:99"] {
            assert_eq!(offset(bad), Err(Error::Offset(bad.into())));
        }
        let time = Time { text: String::new(), format: "%Q".into(), zone: None, utc_offset: None };
        assert!(matches!(Clock::new(&time, None), Err(Error::Format(_))));
        let time = Time { format: "%H".into(), zone: Some("America/Los_Angles".into()), ..time };
        assert!(matches!(Clock::new(&time, None), Err(Error::Zone(_))));
        assert!(Clock::new(&time, Some("-08:00")).is_ok(), "an offset said on the command line goes before it");
    }
}
