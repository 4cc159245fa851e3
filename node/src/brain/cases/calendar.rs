//! Working time: when people work, and by when something is due.
//!
//! Working time is counted in µs from one instant to another. A limit of working days is so many
//! times a day's working hours. Days are walked, never minutes; whole weeks without an exception are
//! taken in one step, so a limit of a year costs about as much as one of a week.

use chrono::{DateTime, Datelike, Days, FixedOffset, NaiveDate, NaiveTime, Utc, Weekday};
use citybrain_shared::config::cases::{Calendar as Config, Limit, Unit, days_of};
use std::collections::BTreeMap;

/// A working calendar never reaches further than this, days: what is due later is due never.
const DAYS_MAX: u32 = 40 * 366;
const DAY_US: i64 = 86_400_000_000;

#[derive(Clone, Debug)]
pub struct Calendar {
    offset: FixedOffset,
    /// Working hours of a day, µs since midnight, in order.
    hours: Vec<(i64, i64)>,
    day_us: i64,
    /// By number from Monday.
    week: [bool; 7],
    /// Days that are not as the week says.
    exceptions: BTreeMap<NaiveDate, bool>,
}

impl Calendar {
    /// # Errors
    /// Which key cannot be read, and why.
    pub fn new(config: &Config) -> Result<Calendar, (&'static str, String)> {
        let offset: FixedOffset = config
            .utc_offset
            .parse()
            .map_err(|_| ("utc_offset", format!("`{}` is no offset: write it as +08:00", config.utc_offset)))?;
        let mut hours: Vec<(i64, i64)> = Vec::new();
        for text in &config.hours {
            let span =
                hours_of(text).ok_or_else(|| ("hours", format!("`{text}` is no span: write it as 09:00-12:00")))?;
            if hours.last().is_some_and(|last| last.1 > span.0) {
                return Err(("hours", format!("`{text}` begins before the span in front of it ends")));
            }
            hours.push(span);
        }
        let mut week = [false; 7];
        for text in &config.workdays {
            let day: Weekday =
                text.parse().map_err(|_| ("workdays", format!("`{text}` is no day: write mon to sun")))?;
            week[day.num_days_from_monday() as usize] = true;
        }
        if hours.is_empty() || !week.contains(&true) {
            return Err(("workdays", "nobody would ever work".into()));
        }
        let mut exceptions = BTreeMap::new();
        for (key, list, works) in [("holidays", &config.holidays, false), ("makeup_days", &config.makeup_days, true)] {
            for text in list {
                let (first, last) = days_of(text).map_err(|why| (key, why))?;
                exceptions.extend(first.iter_days().take_while(|d| *d <= last).map(|d| (d, works)));
            }
        }
        let day_us = hours.iter().map(|(from, to)| to - from).sum();
        Ok(Calendar { offset, hours, day_us, week, exceptions })
    }

    /// `+08:00, Mon,Tue,Wed,Thu,Fri 09:00-12:00,13:00-17:00, 7 days off, 1 made up`
    pub fn words(&self) -> String {
        let days = (0..7u8).filter(|d| self.week[usize::from(*d)]).filter_map(|d| Weekday::try_from(d).ok());
        let days: Vec<String> = days.map(|d| d.to_string()).collect();
        let time = |us: i64| format!("{:02}:{:02}", us / 3_600_000_000, us / 60_000_000 % 60);
        let hours: Vec<String> = self.hours.iter().map(|(from, to)| format!("{}-{}", time(*from), time(*to))).collect();
        let made_up = self.exceptions.values().filter(|works| **works).count();
        let off = self.exceptions.len() - made_up;
        let plural = if off == 1 { "day" } else { "days" };
        format!("{}, {} {}, {off} {plural} off, {made_up} made up", self.offset, days.join(","), hours.join(","))
    }

    /// Of local time.
    pub fn offset(&self) -> FixedOffset {
        self.offset
    }

    /// When a limit that starts now has passed.
    pub fn due(&self, from: DateTime<Utc>, limit: Limit) -> DateTime<Utc> {
        self.later(from, limit.unit, self.length_us(limit))
    }

    /// A limit's length in its own kind of time, µs.
    pub fn length_us(&self, limit: Limit) -> i64 {
        let amount = i64::from(limit.amount);
        match limit.unit {
            Unit::Clock(_, us) => amount * us,
            Unit::WorkingHours => amount * 3_600_000_000,
            Unit::WorkingDays => amount * self.day_us,
        }
    }

    /// `from` and so much time of that kind.
    pub fn later(&self, from: DateTime<Utc>, unit: Unit, us: i64) -> DateTime<Utc> {
        match unit {
            Unit::Clock(..) => from + chrono::TimeDelta::microseconds(us),
            _ => self.add(from, us),
        }
    }

    /// Time of that kind between two instants, negative when the second is earlier.
    pub fn left(&self, unit: Unit, from: DateTime<Utc>, to: DateTime<Utc>) -> i64 {
        match unit {
            Unit::Clock(..) => (to - from).num_microseconds().unwrap_or(i64::MAX),
            _ if to < from => -self.between(to, from),
            _ => self.between(from, to),
        }
    }

    /// The earliest instant at which `us` of working time have passed since `from`.
    pub fn add(&self, from: DateTime<Utc>, us: i64) -> DateTime<Utc> {
        if us <= 0 {
            return from;
        }
        let mut left = us;
        let (mut day, mut after) = self.local(from);
        let week_us = self.day_us * self.week.iter().filter(|w| **w).count() as i64;
        let mut walked = 0;
        while walked < DAYS_MAX {
            // A whole week at once where no exception lies in it; the last bit is walked.
            if after == 0 && left > week_us && self.is_plain(day, 7) {
                left -= week_us;
                day = day + Days::new(7);
                walked += 7;
                continue;
            }
            for &(begin, end) in self.spans(day) {
                let begin = begin.max(after);
                if begin >= end {
                    continue;
                }
                if left <= end - begin {
                    return self.instant(day, begin + left);
                }
                left -= end - begin;
            }
            day = day + Days::new(1);
            after = 0;
            walked += 1;
        }
        self.instant(day, 0)
    }

    /// Working time from one instant to a later one, µs.
    pub fn between(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> i64 {
        let (mut day, mut after) = self.local(from);
        let (last, until) = self.local(to);
        let week_us = self.day_us * self.week.iter().filter(|w| **w).count() as i64;
        let mut sum = 0;
        while day <= last {
            if after == 0 && (last - day).num_days() > 7 && self.is_plain(day, 7) {
                sum += week_us;
                day = day + Days::new(7);
                continue;
            }
            let stop = if day == last { until } else { DAY_US };
            for &(begin, end) in self.spans(day) {
                sum += (end.min(stop) - begin.max(after)).max(0);
            }
            day = day + Days::new(1);
            after = 0;
        }
        sum
    }

    /// The local day of an instant.
    pub fn day(&self, at: DateTime<Utc>) -> NaiveDate {
        self.local(at).0
    }

    /// An instant as people here write it: `2026-11-28 10:00`.
    pub fn shown(&self, at: DateTime<Utc>) -> String {
        at.with_timezone(&self.offset).format("%Y-%m-%d %H:%M").to_string()
    }

    /// The instant at which a local day begins.
    pub fn begin(&self, day: NaiveDate) -> DateTime<Utc> {
        self.instant(day, 0)
    }

    /// Is it a working day?
    pub fn works(&self, day: NaiveDate) -> bool {
        let usual = self.week[day.weekday().num_days_from_monday() as usize];
        self.exceptions.get(&day).copied().unwrap_or(usual)
    }

    /// The first day of which no file says anything, if any says something: days off are published by the year.
    pub fn unknown_from(&self) -> Option<NaiveDate> {
        let (last, _) = self.exceptions.last_key_value()?;
        NaiveDate::from_ymd_opt(last.year() + 1, 1, 1)
    }

    fn is_plain(&self, from: NaiveDate, days: u64) -> bool {
        self.exceptions.range(from..from + Days::new(days)).next().is_none()
    }

    fn spans(&self, day: NaiveDate) -> &[(i64, i64)] {
        if self.works(day) { &self.hours } else { &[] }
    }

    /// Local day and µs since its midnight.
    fn local(&self, at: DateTime<Utc>) -> (NaiveDate, i64) {
        let local = at.with_timezone(&self.offset).naive_local();
        (local.date(), (local.time() - NaiveTime::MIN).num_microseconds().unwrap_or(0))
    }

    fn instant(&self, day: NaiveDate, us: i64) -> DateTime<Utc> {
        let local = day.and_time(NaiveTime::MIN) + chrono::TimeDelta::microseconds(us);
        // Only the first and the last day of all years have no such instant.
        DateTime::from_naive_utc_and_offset(local.checked_sub_offset(self.offset).unwrap_or(local), Utc)
    }
}

impl Default for Calendar {
    fn default() -> Self {
        Calendar::new(&Config::default()).expect("the default is one")
    }
}

fn hours_of(text: &str) -> Option<(i64, i64)> {
    let (from, to) = text.split_once('-')?;
    let at = |t: &str| {
        let t = t.trim();
        if t == "24:00" {
            return Some(DAY_US);
        }
        let time = NaiveTime::parse_from_str(t, "%H:%M").ok()?;
        (time - NaiveTime::MIN).num_microseconds()
    };
    let (from, to) = (at(from)?, at(to)?);
    (from < to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("{text}:00+08:00").parse().unwrap()
    }

    fn limit(text: &str) -> Limit {
        Limit::parse(text).unwrap()
    }

    #[test]
    fn a_friday_afternoon_runs_into_monday() {
        let c = Calendar::default();
        let opened = at("2026-11-20T16:30");
        assert_eq!(c.due(opened, limit("4wh")), at("2026-11-23T13:30"));
        assert_eq!(c.due(opened, limit("1wd")), at("2026-11-23T16:30"));
        assert_eq!(c.due(opened, limit("4h")), at("2026-11-20T20:30"));
    }

    #[test]
    fn holidays_and_makeup_days_are_kept() {
        let config = Config {
            holidays: vec!["2026-10-01..2026-10-07".into()],
            makeup_days: vec!["2026-10-10".into()],
            ..Config::default()
        };
        let c = Calendar::new(&config).unwrap();
        // Wednesday before the holidays; work goes on on Thursday the 8th, Friday, and Saturday the 10th.
        assert_eq!(c.due(at("2026-09-30T16:00"), limit("1wd")), at("2026-10-08T16:00"));
        assert_eq!(c.due(at("2026-09-30T16:00"), limit("3wd")), at("2026-10-10T16:00"));
        // Without the make-up day it is the Monday after.
        let plain = Calendar::new(&Config { makeup_days: vec![], ..config }).unwrap();
        assert_eq!(plain.due(at("2026-09-30T16:00"), limit("3wd")), at("2026-10-12T16:00"));
    }

    #[test]
    fn the_end_of_a_day_is_not_the_beginning_of_the_next() {
        let c = Calendar::default();
        assert_eq!(c.due(at("2026-11-20T16:00"), limit("1wh")), at("2026-11-20T17:00"));
        assert_eq!(c.due(at("2026-11-21T12:00"), limit("1wh")), at("2026-11-23T10:00"));
        // A year of working days ends on the right one: 260 days are 52 weeks.
        assert_eq!(c.due(at("2026-11-20T16:00"), limit("260wd")), at("2027-11-19T16:00"));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_key() {
        let wrong = |change: &dyn Fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            Calendar::new(&config).unwrap_err().0
        };
        assert_eq!(wrong(&|c| c.utc_offset = "Beijing".into()), "utc_offset");
        assert_eq!(wrong(&|c| c.hours = vec!["9-12h".into()]), "hours");
        assert_eq!(wrong(&|c| c.hours = vec!["09:00-12:00".into(), "11:00-13:00".into()]), "hours");
        assert_eq!(wrong(&|c| c.workdays = vec![]), "workdays");
        assert_eq!(wrong(&|c| c.holidays = vec!["2026-13-01".into()]), "holidays");
    }

    /// A calendar with some holidays and make-up days about, and an instant near them.
    fn calendars() -> impl Strategy<Value = (Calendar, DateTime<Utc>)> {
        let days = || prop::collection::vec(0u64..60, 0..12);
        (days(), days(), 0i64..60 * 24 * 60, -12i32..13).prop_map(|(off, on, minute, offset)| {
            let base = NaiveDate::from_ymd_opt(2026, 9, 1).unwrap();
            let list = |days: Vec<u64>| days.into_iter().map(|d| (base + Days::new(d)).to_string()).collect();
            let utc_offset = format!("{}{:02}:00", if offset < 0 { '-' } else { '+' }, offset.abs());
            let config = Config { utc_offset, holidays: list(off), makeup_days: list(on), ..Config::default() };
            let calendar = Calendar::new(&config).unwrap();
            let from = calendar.begin(base) + chrono::TimeDelta::minutes(minute);
            (calendar, from)
        })
    }

    const MINUTE: i64 = 60_000_000;

    proptest! {
        #[test]
        fn time_added_is_the_time_between((c, from) in calendars(), minutes in 1i64..200_000) {
            let us = minutes * MINUTE;
            let due = c.add(from, us);
            prop_assert_eq!(c.between(from, due), us);
            // The earliest such instant: a moment before it, something is missing.
            prop_assert!(c.between(from, due - chrono::TimeDelta::microseconds(1)) < us);
        }

        #[test]
        fn it_adds_up((c, from) in calendars(), a in 1i64..30_000, b in 1i64..30_000) {
            let (a, b) = (a * MINUTE, b * MINUTE);
            prop_assert_eq!(c.add(c.add(from, a), b), c.add(from, a + b));
        }

        #[test]
        fn later_or_longer_is_never_earlier((c, from) in calendars(), a in 0i64..30_000, more in 0i64..5_000, shift in 0i64..20_000) {
            let (a, more) = (a * MINUTE, more * MINUTE);
            prop_assert!(c.add(from, a) <= c.add(from, a + more));
            prop_assert!(c.add(from, a) <= c.add(from + chrono::TimeDelta::minutes(shift), a));
        }

        #[test]
        fn a_span_is_the_sum_of_its_parts((c, from) in calendars(), a in 0i64..60_000, b in 0i64..60_000) {
            let middle = from + chrono::TimeDelta::minutes(a);
            let end = middle + chrono::TimeDelta::minutes(b);
            prop_assert_eq!(c.between(from, middle) + c.between(middle, end), c.between(from, end));
        }
    }
}
