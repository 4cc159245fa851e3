//! Times as people read them, each with its offset: on a terminal in the zone of the machine it is at, in a pipe in
//! UTC, so that what reads it reads the same everywhere. JSON has UTC always and does not come here.

use chrono::{DateTime, Datelike, FixedOffset, Local, SecondsFormat, Utc};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offset {
    Utc,
    /// What `TZ` or /etc/localtime says; UTC if neither says any.
    Machine,
    #[cfg(test)]
    Fixed(FixedOffset),
}

/// Where somebody reads, and in which year: a short time of another year says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    offset: Offset,
    year: i32,
}

impl Default for Zone {
    fn default() -> Zone {
        Zone::utc()
    }
}

impl Zone {
    pub fn utc() -> Zone {
        Zone::utc_in(Utc::now().year())
    }

    pub const fn utc_in(year: i32) -> Zone {
        Zone { offset: Offset::Utc, year }
    }

    pub fn machine() -> Zone {
        Zone { offset: Offset::Machine, year: Local::now().year() }
    }

    pub fn is_utc(self) -> bool {
        self.offset == Offset::Utc
    }

    fn of(self, at: DateTime<Utc>) -> DateTime<FixedOffset> {
        match self.offset {
            Offset::Utc => at.fixed_offset(),
            Offset::Machine => at.with_timezone(&Local).fixed_offset(),
            #[cfg(test)]
            Offset::Fixed(offset) => at.with_timezone(&offset),
        }
    }

    /// RFC 3339: `2026-11-29T13:29:51.123+08:00`.
    pub fn whole(self, at: DateTime<Utc>) -> String {
        self.of(at).to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    /// `2026-11-29 13:29:51+08`
    pub fn with_year(self, at: DateTime<Utc>) -> String {
        self.written(at, "%Y-%m-%d %H:%M:%S")
    }

    /// `11-29 13:29:51+08`, with its year if that is not the one in which it is read.
    pub fn short(self, at: DateTime<Utc>) -> String {
        match self.of(at).year() == self.year {
            true => self.written(at, "%m-%d %H:%M:%S"),
            false => self.with_year(at),
        }
    }

    /// `11-29 13:29:51.123+08`
    pub fn short_ms(self, at: DateTime<Utc>) -> String {
        let is_this_year = self.of(at).year() == self.year;
        self.written(at, if is_this_year { "%m-%d %H:%M:%S%.3f" } else { "%Y-%m-%d %H:%M:%S%.3f" })
    }

    /// `13:29:51+08`
    pub fn time(self, at: DateTime<Utc>) -> String {
        self.written(at, "%H:%M:%S")
    }

    /// `2026-11-29`, without an offset: of what is counted by days.
    pub fn day(self, at: DateTime<Utc>) -> String {
        self.of(at).format("%Y-%m-%d").to_string()
    }

    fn written(self, at: DateTime<Utc>, format: &str) -> String {
        let at = self.of(at);
        let s = at.offset().local_minus_utc();
        let (sign, s) = (if s < 0 { '-' } else { '+' }, s.unsigned_abs());
        let offset = match (s / 3600, s / 60 % 60) {
            (0, 0) => "Z".to_owned(),
            (hours, 0) => format!("{sign}{hours:02}"),
            (hours, minutes) => format!("{sign}{hours:02}:{minutes:02}"),
        };
        format!("{}{offset}", at.format(format))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn east(minutes: i32) -> Zone {
        Zone { offset: Offset::Fixed(FixedOffset::east_opt(minutes * 60).unwrap()), year: 2026 }
    }

    #[test]
    fn a_short_time_of_another_year_says_which() {
        let at: DateTime<Utc> = "2026-12-31T16:29:51.123Z".parse().unwrap();
        assert_eq!(Zone::utc_in(2026).short(at), "12-31 16:29:51Z");
        assert_eq!(Zone::utc_in(2027).short(at), "2026-12-31 16:29:51Z");
        assert_eq!(east(480).short(at), "2027-01-01 00:29:51+08", "where it is read it is the next year already");
        assert_eq!(Zone::utc_in(2027).short_ms(at), "2026-12-31 16:29:51.123Z");
    }

    #[test]
    fn a_time_says_its_offset_in_every_zone() {
        let at: DateTime<Utc> = "2026-11-29T20:29:51.123Z".parse().unwrap();
        let all = |zone: Zone| {
            [zone.whole(at), zone.with_year(at), zone.short(at), zone.short_ms(at), zone.time(at), zone.day(at)]
        };
        let utc = ["2026-11-29T20:29:51.123Z", "2026-11-29 20:29:51Z", "11-29 20:29:51Z", "11-29 20:29:51.123Z"];
        assert_eq!(all(Zone::utc_in(2026))[..4], utc);
        assert_eq!(all(Zone::utc_in(2026))[4..], ["20:29:51Z", "2026-11-29"]);
        let chengdu = ["2026-11-30T04:29:51.123+08:00", "2026-11-30 04:29:51+08", "11-30 04:29:51+08"];
        assert_eq!(all(east(480))[..3], chengdu);
        assert_eq!(all(east(480))[3..], ["11-30 04:29:51.123+08", "04:29:51+08", "2026-11-30"]);
        assert_eq!((east(345).time(at), east(-210).time(at)), ("02:14:51+05:45".into(), "16:59:51-03:30".into()));
        assert_eq!((east(-30).time(at), east(0).time(at)), ("19:59:51-00:30".into(), "20:29:51Z".into()));
    }
}
