//! Times of a file, made absolute without a time zone database: the mapping says the offset, and
//! when it changes.

use chrono::{DateTime, FixedOffset, NaiveDateTime, Offset, TimeZone, Utc};
use serde::Deserialize;

/// `[event.time]` of a mapping.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// Template of the text, such as `{CreatedDate}`.
    pub text: String,
    /// As in strftime; or `rfc3339`, `unix_s`, `unix_ms`.
    pub format: String,
    /// Of local times: `-08:00`.
    #[serde(default)]
    pub utc_offset: Option<String>,
    /// Clock changes, in order.
    #[serde(default)]
    pub changes: Vec<Change>,
}

/// From this local time on, another offset.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Local time, `2011-11-06 02:00:00`, by the clock as it went before. Of the hour that an
    /// autumn change repeats, the first pass is meant.
    pub at: String,
    pub utc_offset: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("`{0}` is not an offset from UTC: write it as -08:00")]
    Offset(String),
    #[error("`{0}` is not a local time: write it as 2011-11-06 02:00:00")]
    Change(String),
    #[error("the format `{0}` is not one: use strftime's letters, or rfc3339, unix_s, unix_ms")]
    Format(String),
}

/// Reads times of one format.
#[derive(Clone, Debug)]
pub struct Clock {
    format: String,
    offset: FixedOffset,
    changes: Vec<(NaiveDateTime, FixedOffset)>,
}

impl Clock {
    /// `forced` takes the place of the mapping's offset and its changes.
    ///
    /// # Errors
    /// When a part of `time` cannot be read.
    pub fn new(time: &Time, forced: Option<&str>) -> Result<Clock, Error> {
        if chrono::format::StrftimeItems::new(&time.format).any(|i| i == chrono::format::Item::Error) {
            return Err(Error::Format(time.format.clone()));
        }
        let mut changes = Vec::new();
        for change in time.changes.iter().filter(|_| forced.is_none()) {
            let at = NaiveDateTime::parse_from_str(&change.at, "%Y-%m-%d %H:%M:%S")
                .map_err(|_| Error::Change(change.at.clone()))?;
            changes.push((at, offset(&change.utc_offset)?));
        }
        let offset = match forced.or(time.utc_offset.as_deref()) {
            Some(text) => offset(text)?,
            None => Utc.fix(),
        };
        Ok(Clock { format: time.format.clone(), offset, changes })
    }

    /// `None` when `text` is no time of the format.
    pub fn read(&self, text: &str) -> Option<DateTime<FixedOffset>> {
        match self.format.as_str() {
            "rfc3339" => DateTime::parse_from_rfc3339(text).ok(),
            "unix_s" => {
                Some(self.offset.from_utc_datetime(&DateTime::from_timestamp(text.parse().ok()?, 0)?.naive_utc()))
            }
            "unix_ms" => {
                Some(self.offset.from_utc_datetime(&DateTime::from_timestamp_millis(text.parse().ok()?)?.naive_utc()))
            }
            format => {
                let local = NaiveDateTime::parse_from_str(text, format).ok()?;
                let passed = self.changes.iter().rev().find(|(at, _)| *at <= local);
                passed.map_or(self.offset, |(_, offset)| *offset).from_local_datetime(&local).single()
            }
        }
    }
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

    fn clock(format: &str, utc_offset: &str, changes: &[(&str, &str)]) -> Clock {
        let changes =
            changes.iter().map(|(at, o)| Change { at: (*at).into(), utc_offset: (*o).into() }).collect::<Vec<_>>();
        let time = Time { text: "{t}".into(), format: format.into(), utc_offset: Some(utc_offset.into()), changes };
        Clock::new(&time, None).unwrap()
    }

    #[test]
    fn american_times_become_absolute() {
        let la = clock("%m/%d/%Y %I:%M:%S %p", "-08:00", &[]);
        assert_eq!(la.read("01/01/2018 12:00:09 AM").unwrap().to_rfc3339(), "2018-01-01T00:00:09-08:00");
        assert_eq!(la.read("01/01/2018 12:00:09 PM").unwrap().to_rfc3339(), "2018-01-01T12:00:09-08:00");
        assert_eq!(la.read("13/01/2018 12:00:09 PM"), None);
        assert_eq!(la.read(""), None);
    }

    #[test]
    fn a_clock_change_inside_the_file_changes_the_offset() {
        let boston = clock("%Y-%m-%d %H:%M:%S", "-04:00", &[("2011-11-06 02:00:00", "-05:00")]);
        assert_eq!(boston.read("2011-11-06 01:59:59").unwrap().to_rfc3339(), "2011-11-06T01:59:59-04:00");
        assert_eq!(boston.read("2011-11-06 02:00:00").unwrap().to_rfc3339(), "2011-11-06T02:00:00-05:00");
    }

    #[test]
    fn one_digit_parts_and_numbers_since_1970_are_read() {
        let air = clock("%Y-%m-%d %H:%M", "+08:00", &[]);
        assert_eq!(air.read("2014-1-2 3:00").unwrap().to_rfc3339(), "2014-01-02T03:00:00+08:00");
        assert_eq!(clock("unix_ms", "+00:00", &[]).read("1500").unwrap().timestamp_millis(), 1500);
        assert_eq!(clock("unix_s", "+08:00", &[]).read("0").unwrap().to_rfc3339(), "1970-01-01T08:00:00+08:00");
    }

    #[test]
    fn wrong_offsets_and_formats_are_refused() {
        for bad in ["8", "-0800", "-25:00", "08:00", "-08:99"] {
            assert_eq!(offset(bad), Err(Error::Offset(bad.into())));
        }
        let time = Time { text: String::new(), format: "%Q".into(), utc_offset: None, changes: vec![] };
        assert!(matches!(Clock::new(&time, None), Err(Error::Format(_))));
    }
}
