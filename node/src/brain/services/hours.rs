//! Opening hours and the appointments in them. Local time, by the node's calendar.

use crate::brain::cases::calendar::Calendar;
use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, TimeDelta, Utc, Weekday};

/// Appointments of one day, and free ones that one answer lists.
pub const SLOTS_MAX: usize = 500;

/// `mon-fri 09:00-11:30`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    text: String,
    days: On,
    /// Seconds since midnight.
    from_s: u32,
    to_s: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum On {
    /// By number from Monday.
    Week([bool; 7]),
    /// Working days of the calendar: holidays and make-up days count.
    Workdays,
}

impl Hours {
    /// # Errors
    /// What is wrong, with an example.
    pub fn parse(text: &str) -> Result<Hours, String> {
        let wrong =
            || format!("`{text}` are no hours: write `mon-fri 09:00-11:30`, `workdays 14:00-17:00` or `09:00-17:00`");
        let mut words = text.split_whitespace();
        let (days, span) = match (words.next(), words.next(), words.next()) {
            (Some(span), None, None) => (On::Week([true; 7]), span),
            (Some("workdays"), Some(span), None) => (On::Workdays, span),
            (Some(days), Some(span), None) => (On::Week(week(days).ok_or_else(wrong)?), span),
            _ => return Err(wrong()),
        };
        let (from, to) = span.split_once('-').ok_or_else(wrong)?;
        let (from_s, to_s) = (seconds(from).ok_or_else(wrong)?, seconds(to).ok_or_else(wrong)?);
        if from_s > to_s {
            return Err(format!("`{text}` goes over midnight: write two, `{from}-24:00` and `00:00-{to}`"));
        }
        if from_s == to_s { Err(wrong()) } else { Ok(Hours { text: text.to_owned(), days, from_s, to_s }) }
    }

    fn opens(&self, day: NaiveDate, calendar: &Calendar) -> bool {
        match &self.days {
            On::Week(week) => week[day.weekday().num_days_from_monday() as usize],
            On::Workdays => calendar.works(day),
        }
    }
}

/// As they were written.
pub fn in_words(hours: &[Hours]) -> String {
    hours.iter().map(|h| h.text.as_str()).collect::<Vec<_>>().join(", ")
}

/// The first moment from `at` on that lies within them; `None`: within 400 days there is none.
pub fn next_open(hours: &[Hours], at: DateTime<Utc>, calendar: &Calendar) -> Option<DateTime<Utc>> {
    calendar.day(at).iter_days().take(400).find_map(|day| {
        let midnight = calendar.begin(day);
        let spans = hours.iter().filter(|h| h.opens(day, calendar));
        let moment = |s: u32| midnight + TimeDelta::seconds(s.into());
        spans.filter(|h| at < moment(h.to_s)).map(|h| at.max(moment(h.from_s))).min()
    })
}

fn week(text: &str) -> Option<[bool; 7]> {
    let mut week = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |t: &str| t.parse::<Weekday>().ok().map(|d| d.num_days_from_monday() as usize);
        let (first, last) = (number(first)?, number(last)?);
        // `sat-mon` goes over the week's end.
        let mut day = first;
        loop {
            week[day] = true;
            if day == last {
                break;
            }
            day = (day + 1) % 7;
        }
    }
    Some(week)
}

fn seconds(text: &str) -> Option<u32> {
    if text == "24:00" {
        return Some(86_400);
    }
    let time = NaiveTime::parse_from_str(text, "%H:%M").ok()?;
    u32::try_from((time - NaiveTime::MIN).num_seconds()).ok()
}

/// Begins of appointments of a local day, in order.
pub fn slots_of(hours: &[Hours], length_s: u32, day: NaiveDate, calendar: &Calendar) -> Vec<DateTime<Utc>> {
    let mut all = Vec::new();
    let midnight = calendar.begin(day);
    for span in hours.iter().filter(|h| h.opens(day, calendar)) {
        let mut at = span.from_s;
        while at + length_s <= span.to_s && all.len() < SLOTS_MAX {
            all.push(midnight + TimeDelta::seconds(at.into()));
            at += length_s.max(1);
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Does that time lie whole within the hours of its day?
pub fn lie_around(hours: &[Hours], from: DateTime<Utc>, to: DateTime<Utc>, calendar: &Calendar) -> bool {
    let day = calendar.day(from);
    let midnight = calendar.begin(day);
    let moment = |s: u32| midnight + TimeDelta::seconds(s.into());
    hours.iter().any(|h| h.opens(day, calendar) && moment(h.from_s) <= from && to <= moment(h.to_s))
}

/// Begins of appointments that lie ahead, in order: from now on, not more than so many days.
pub fn slots_ahead(
    hours: Vec<Hours>,
    length_s: u32,
    now: DateTime<Utc>,
    days: u32,
    calendar: &Calendar,
) -> impl Iterator<Item = DateTime<Utc>> {
    let first = calendar.day(now);
    let days = (0..=u64::from(days)).map(move |n| first + Days::new(n));
    let all = days.flat_map(move |day| slots_of(&hours, length_s, day, calendar));
    all.filter(move |at| *at > now)
}

/// A moment as people write it: with an offset, or local: `2026-11-28 10:00`, `2026-11-28T10:00`.
pub fn moment(text: &str, calendar: &Calendar) -> Option<DateTime<Utc>> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.to_utc());
    }
    let (day, time) = text.trim().split_once([' ', 'T'])?;
    let day: NaiveDate = day.parse().ok().filter(|day: &NaiveDate| (1..=9999).contains(&day.year()))?;
    Some(calendar.begin(day) + TimeDelta::seconds(seconds(time)?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use citybrain_shared::config::cases::Calendar as Config;

    fn local(at: DateTime<Utc>) -> String {
        (at + TimeDelta::hours(8)).format("%a %d %H:%M").to_string()
    }

    fn calendar() -> Calendar {
        Calendar::new(&Config { holidays: vec!["2026-11-23".into()], ..Config::default() }).unwrap()
    }

    #[test]
    fn appointments_fit_whole_into_the_hours_of_their_days() {
        let hours = [Hours::parse("mon-fri 09:00-10:10").unwrap(), Hours::parse("sat,sun 14:00-15:00").unwrap()];
        let now: DateTime<Utc> = "2026-11-20T01:15:00Z".parse().unwrap(); // Friday 09:15
        let all: Vec<String> = slots_ahead(hours.into(), 1800, now, 3, &calendar()).map(local).collect();
        assert_eq!(
            all,
            [
                "Fri 20 09:30",
                "Sat 21 14:00",
                "Sat 21 14:30",
                "Sun 22 14:00",
                "Sun 22 14:30",
                "Mon 23 09:00",
                "Mon 23 09:30"
            ]
        );
    }

    #[test]
    fn working_days_are_those_of_the_calendar() {
        let hours = [Hours::parse("workdays 09:00-10:00").unwrap()];
        let day = |d: &str| slots_of(&hours, 3600, d.parse().unwrap(), &calendar()).len();
        assert_eq!((day("2026-11-20"), day("2026-11-21"), day("2026-11-23")), (1, 0, 0));
    }

    #[test]
    fn hours_that_do_not_read_are_refused() {
        for bad in ["", "mon", "mon 9-12", "mon 12:00-09:00", "fun 09:00-10:00", "mon tue 09:00-10:00", "09:00"] {
            assert!(Hours::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            Hours::parse("sat-mon 09:00-24:00").unwrap().days,
            On::Week([true, false, false, false, false, true, true])
        );
    }

    #[test]
    fn moments_are_local_unless_they_say_otherwise() {
        for none in ["-262143-01-01 00:00", "+262142-12-31 23:59", "0000-01-01 00:00", "10000-01-01 00:00"] {
            assert_eq!(moment(none, &calendar()), None, "{none}");
        }
        let at = |t: &str| moment(t, &calendar()).map(local);
        assert_eq!(at("2026-11-28 10:00").as_deref(), Some("Sat 28 10:00"));
        assert_eq!(at("2026-11-28T10:00+09:00"), None);
        assert_eq!(at("2026-11-28T10:00:00+09:00").as_deref(), Some("Sat 28 09:00"));
        assert_eq!(at("tomorrow"), None);
    }
}
