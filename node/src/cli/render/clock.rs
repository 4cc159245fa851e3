//! Times as people read them, each with its offset: on a terminal in the zone of the machine it is at, in a pipe in
//! UTC, so that what reads it reads the same everywhere. JSON has UTC always and does not come here.

use chrono::{DateTime, FixedOffset, Local, SecondsFormat, Utc};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zone {
    #[default]
    Utc,
    /// What `TZ` or /etc/localtime says; UTC if neither says any.
    Machine,
    #[cfg(test)]
    Fixed(FixedOffset),
}

impl Zone {
    fn of(self, at: DateTime<Utc>) -> DateTime<FixedOffset> {
        match self {
            Zone::Utc => at.fixed_offset(),
            Zone::Machine => at.with_timezone(&Local).fixed_offset(),
            #[cfg(test)]
            Zone::Fixed(offset) => at.with_timezone(&offset),
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

    /// `11-29 13:29:51+08`
    pub fn short(self, at: DateTime<Utc>) -> String {
        self.written(at, "%m-%d %H:%M:%S")
    }

    /// `11-29 13:29:51.123+08`
    pub fn short_ms(self, at: DateTime<Utc>) -> String {
        self.written(at, "%m-%d %H:%M:%S%.3f")
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
        Zone::Fixed(FixedOffset::east_opt(minutes * 60).unwrap())
    }

    #[test]
    fn a_time_says_its_offset_in_every_zone() {
        let at: DateTime<Utc> = "2026-11-29T20:29:51.123Z".parse().unwrap();
        let all = |zone: Zone| {
            [zone.whole(at), zone.with_year(at), zone.short(at), zone.short_ms(at), zone.time(at), zone.day(at)]
        };
        let utc = ["2026-11-29T20:29:51.123Z", "2026-11-29 20:29:51Z", "11-29 20:29:51Z", "11-29 20:29:51.123Z"];
        assert_eq!(all(Zone::Utc)[..4], utc);
        assert_eq!(all(Zone::Utc)[4..], ["20:29:51Z", "2026-11-29"]);
        let chengdu = ["2026-11-30T04:29:51.123+08:00", "2026-11-30 04:29:51+08", "11-30 04:29:51+08"];
        assert_eq!(all(east(480))[..3], chengdu);
        assert_eq!(all(east(480))[3..], ["11-30 04:29:51.123+08", "04:29:51+08", "2026-11-30"]);
        assert_eq!((east(345).time(at), east(-210).time(at)), ("02:14:51+05:45".into(), "16:59:51-03:30".into()));
        assert_eq!((east(-30).time(at), east(0).time(at)), ("19:59:51-00:30".into(), "20:29:51Z".into()));
    }
}
