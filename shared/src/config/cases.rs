//! `[[category]]`, `[calendar]`, `[cases]`: what cases are about, by when they are due, how they are
//! counted.

use crate::address::Tier;
use crate::case::Kind;
use chrono::NaiveDate;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// What a case is about, who deals with it, by when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Category {
    /// Unique; such as `SJ0102`. Events name a category by its code or its name.
    pub code: String,
    pub name: String,
    /// What it is for, as residents are told it; Open311's description of the service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What residents might look for it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keywords: Vec<String>,
    #[serde(default)]
    pub department: String,
    /// The tier that handles it: a case is handed to that ancestor at once. Default: where it enters.
    #[serde(default)]
    pub tier: Option<Tier>,
    #[serde(default = "appeal")]
    pub kind: Kind,
    /// `party`, `autonomy`, `virtue`, `law`.
    #[serde(default)]
    pub governance: Option<String>,
    /// From submission until somebody has signed for it and called the resident.
    #[serde(default)]
    pub response: Option<Limit>,
    /// From acceptance until dispatch.
    #[serde(default)]
    pub dispatch: Option<Limit>,
    /// From dispatch until the handler's answer.
    #[serde(default)]
    pub solution: Option<Limit>,
    /// From the handler's answer until the resident's word, or why there is none.
    #[serde(default)]
    pub call_back: Option<Limit>,
    /// What the handler must show: `photo-after` asks for `--evidence photo-after=URL`.
    #[serde(default)]
    pub evidence: Vec<String>,
    /// What it asks whoever reports it; Open311's attributes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub form: Vec<super::services::Field>,
    /// The highest tier that is told whom to call. Default: only nodes that have the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact_reach: Option<Tier>,
    /// Are such cases in the rates? What is not is excluded 剔除, and counted as that.
    #[serde(default = "yes")]
    pub counted: bool,
    /// The highest tier that sees such cases.
    #[serde(default = "city")]
    pub reach: Tier,
}

fn yes() -> bool {
    true
}

fn appeal() -> Kind {
    Kind::Appeal
}

fn city() -> Tier {
    Tier::City
}

/// When people work. Times are local, at `utc_offset`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Calendar {
    /// `+08:00`
    pub utc_offset: String,
    /// `09:00-12:00`, in order.
    pub hours: Vec<String>,
    /// `mon` to `sun`.
    pub workdays: Vec<String>,
    /// Days off: `2026-10-01`, or `2026-10-01..2026-10-07`.
    pub holidays: Vec<String>,
    /// Working days in spite of the week or a holiday (调休).
    pub makeup_days: Vec<String>,
    /// More of both, a line each: `2026-10-01..2026-10-07,holiday,国庆节`, `2026-10-10,makeup`.
    pub days_file: Option<PathBuf>,
}

impl Calendar {
    /// Adds the days of a [`Calendar::days_file`]. Empty lines and those that begin with `#` are none.
    ///
    /// # Errors
    /// The number of the first line that is not one, and why. Nothing is added then.
    pub fn add_days(&mut self, text: &str) -> Result<(), (usize, String)> {
        let (mut holidays, mut makeup_days) = (Vec::new(), Vec::new());
        // Spreadsheets write a mark in front that says that it is UTF-8.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut cells = line.split(',').map(str::trim);
            let days = cells.next().unwrap_or_default().to_owned();
            days_of(&days).map_err(|why| (i + 1, why))?;
            match cells.next() {
                Some("holiday") => holidays.push(days),
                Some("makeup") => makeup_days.push(days),
                _ => {
                    return Err((
                        i + 1,
                        format!("`{line}` is no line of it: write 2026-10-01,holiday or 2026-10-10,makeup"),
                    ));
                }
            }
        }
        self.holidays.append(&mut holidays);
        self.makeup_days.append(&mut makeup_days);
        Ok(())
    }
}

/// First and last of `2026-10-01..2026-10-07`, or of one day; 367 days at most.
///
/// # Errors
/// In words: how to write them.
pub fn days_of(text: &str) -> Result<(NaiveDate, NaiveDate), String> {
    let wrong = || format!("`{text}` is no day: write 2026-10-01, or 2026-10-01..2026-10-07");
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let day = |t: &str| t.trim().parse::<NaiveDate>().map_err(|_| wrong());
    let (first, last) = (day(first)?, day(last)?);
    if (0..=366).contains(&(last - first).num_days()) { Ok((first, last)) } else { Err(wrong()) }
}

impl Default for Calendar {
    fn default() -> Self {
        let words = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect();
        Calendar {
            utc_offset: "+08:00".into(),
            hours: words(&["09:00-12:00", "13:00-17:00"]),
            workdays: words(&["mon", "tue", "wed", "thu", "fri"]),
            holidays: Vec::new(),
            makeup_days: Vec::new(),
            days_file: None,
        }
    }
}

/// What follows from a limit that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missed {
    /// 督办: the tier above is told and watches; the case stays where it is.
    Supervise,
    /// 提级: the tier above takes it.
    HandOver,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cases {
    /// A press climbs one tier each time this passes without anybody accepting it, seconds.
    pub sos_climb_s: u32,
    pub missed: Missed,
    /// A hand-over that nobody has taken this long calls the responders of the node that gave it and of
    /// the node above both, seconds; of an urgent case it is `sos_climb_s`. A wish that has had no answer for so long is
    /// asked after, then again, each time after twice as long, and at last once a day.
    pub on_its_way_s: u32,
    /// A closed case may be reopened this long, days; one that is closed already as long as it was then.
    pub reopen_days: u32,
    /// Names and telephone numbers go with a case to the node that takes it.
    pub contact_travels: bool,
    /// What each rate weighs in the score.
    pub weight_response: f64,
    pub weight_solution: f64,
    pub weight_satisfaction: f64,
    /// What 部分解决 counts, 0 to 1.
    pub partly_solved: f64,
    /// 基本满意 counts as satisfied.
    pub mostly_is_satisfied: bool,
}

impl Default for Cases {
    fn default() -> Self {
        Cases {
            sos_climb_s: 30,
            missed: Missed::Supervise,
            on_its_way_s: 3_600,
            reopen_days: 15,
            contact_travels: true,
            weight_response: 0.2,
            weight_solution: 0.4,
            weight_satisfaction: 0.4,
            partly_solved: 0.5,
            mostly_is_satisfied: true,
        }
    }
}

/// Which time a limit runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// 工作时
    WorkingHours,
    /// 工作日: a day's working hours each
    WorkingDays,
    /// 紧急工作时: round the clock, in the unit as it was written
    Clock(&'static str, i64),
}

/// `4wh`, `2wd`, `24h`, `30m`, `90s`, `3d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub amount: u32,
    pub unit: Unit,
}

impl Limit {
    /// # Errors
    /// In words: how to write one.
    pub fn parse(text: &str) -> Result<Limit, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = match unit {
            "wh" => Unit::WorkingHours,
            "wd" => Unit::WorkingDays,
            "s" => Unit::Clock("s", 1_000_000),
            "m" => Unit::Clock("m", 60_000_000),
            "h" => Unit::Clock("h", 3_600_000_000),
            "d" => Unit::Clock("d", 86_400_000_000),
            _ => {
                return Err(format!(
                    "`{text}` is no limit: write 4wh (working hours), 2wd (working days), or 24h, 30m, 90s, 3d (round the clock)"
                ));
            }
        };
        match number.parse::<u32>() {
            Ok(amount) if (1..=10_000).contains(&amount) => Ok(Limit { amount, unit }),
            _ => Err(format!("`{text}` is out of bounds: 1 to 10000 of a unit")),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::WorkingHours => "wh",
            Unit::WorkingDays => "wd",
            Unit::Clock(word, _) => word,
        };
        write!(f, "{}{unit}", self.amount)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Limit, D::Error> {
        let text = String::deserialize(d)?;
        Limit::parse(&text).map_err(de::Error::custom)
    }
}

impl Serialize for Limit {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_days_names_the_line_of_a_day_that_is_none() {
        let read = |text: &str| {
            let mut calendar = Calendar::default();
            let read = calendar.add_days(text);
            (read, calendar.holidays, calendar.makeup_days)
        };
        let good = "# 2026\n2026-10-01..2026-10-07,holiday,国庆节\n\n2026-10-10,makeup\n";
        assert_eq!(read(good), (Ok(()), vec!["2026-10-01..2026-10-07".to_owned()], vec!["2026-10-10".to_owned()]));
        assert_eq!(read(&format!("\u{feff}{good}")), read(good), "as a spreadsheet writes it");
        for (line, said) in [
            ("2026-02-30,holiday", "`2026-02-30` is no day"),
            ("2026-10-07..2026-10-01,holiday", "`2026-10-07..2026-10-01` is no day"),
            ("2026-10-01..2027-12-01,holiday", "is no day"),
            ("2026-10-01,free", "is no line of it"),
        ] {
            let (read, holidays, _) = read(&format!("2026-01-01,holiday\n{line}\n"));
            let (at, why) = read.unwrap_err();
            assert!(at == 2 && why.contains(said) && holidays.is_empty(), "{at}: {why}");
        }
    }

    #[test]
    fn limits_print_as_they_were_written() {
        for text in ["4wh", "2wd", "24h", "30m", "90s", "3d"] {
            assert_eq!(Limit::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "4", "wh", "0h", "4 wh", "1.5h", "10001d", "-1h"] {
            assert!(Limit::parse(bad).is_err(), "{bad}");
        }
    }
}
