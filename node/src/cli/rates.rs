//! `citybrain rates`

use super::{At, Fail, Output};
use citybrain_shared::Address;
use citybrain_shared::view::GroupBy;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

/// 响应率, 解决率, 满意率
#[derive(Debug, Args)]
pub struct Rates {
    /// A row for each …
    #[arg(long, default_value = "node", value_parser = by())]
    pub by: GroupBy,
    /// … and each period of the first dispatch, in the calendar's zone
    #[arg(long, default_value = "all")]
    pub period: Period,
    /// Only what was first dispatched then: `2026-11-23`, `2026-11`, `2026`
    #[arg(long, value_name = "PERIOD")]
    pub of: Option<String>,
    /// Only cases owned by this node or one below it
    #[arg(long, value_name = "ADDRESS", value_parser = Address::parse)]
    pub under: Option<Address>,
    /// Code or name
    #[arg(long)]
    pub category: Option<String>,
    /// With the period before 环比 and a year before 同比
    #[arg(long)]
    pub compare: bool,
    /// Which columns, and by what rows are ranked; `--json` has all, by score
    #[arg(long, default_value = "rates")]
    pub show: Show,
    #[command(flatten)]
    pub at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Show {
    /// Response, solution, satisfaction, score: the best score first
    Rates,
    /// Cases whose limit has passed, 结案率, 按期结案率: the most in time first
    Closing,
    /// 万人诉求比 (by child, where nodes have the label `population`) and 准确派单率: the fewest appeals first
    Appeals,
}

/// What `--by` takes, and what it means where the word does not say it.
const BY: [(&str, GroupBy, &str); 11] = [
    ("node", GroupBy::Node, "Who owns the case"),
    ("child", GroupBy::Child, "The nodes directly below, each with all below it"),
    ("district", GroupBy::District, "The label `district` of the owner, or of the nearest node above it that has one"),
    ("category", GroupBy::Category, ""),
    ("department", GroupBy::Department, ""),
    ("unit", GroupBy::Unit, "Who was sent last"),
    ("governance", GroupBy::Governance, ""),
    ("channel", GroupBy::Channel, ""),
    ("kind", GroupBy::Kind, ""),
    ("status", GroupBy::Status, ""),
    ("all", GroupBy::All, ""),
];

pub(super) fn by() -> impl TypedValueParser<Value = GroupBy> {
    let shown = BY.map(|(word, _, about)| match about {
        "" => PossibleValue::new(word),
        about => PossibleValue::new(word).help(about),
    });
    let named = |word: String| BY.iter().find(|(known, ..)| *known == word).map(|(_, by, _)| *by);
    PossibleValuesParser::new(shown).map(move |word| named(word).expect("it takes only these words"))
}

pub(super) fn word(by: GroupBy) -> String {
    BY.iter().find(|(_, known, _)| *known == by).map(|(word, ..)| (*word).to_owned()).unwrap_or_default()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Period {
    Day,
    Month,
    Year,
    All,
}

impl Rates {
    pub fn act(self) -> Result<Output, Fail> {
        let period = self.period.to_possible_value().map(|w| w.get_name().to_owned()).unwrap_or_default();
        let mut query = vec![("by", word(self.by)), ("period", period)];
        query.extend(self.of.map(|of| ("of", of)));
        query.extend(self.under.map(|u| ("under", u.to_string())));
        query.extend(self.category.map(|c| ("category", c)));
        if self.compare {
            query.push(("compare", "true".into()));
        }
        let show = match self.show {
            Show::Rates => |a| Output::Rates(Box::new(a), Show::Rates),
            Show::Closing => |a| Output::Rates(Box::new(a), Show::Closing),
            Show::Appeals => |a| Output::Rates(Box::new(a), Show::Appeals),
        };
        self.at.ask("/v1/rates", &query, show)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_by_are_the_apis() {
        for (text, by, _) in BY {
            assert_eq!(serde_json::from_value::<GroupBy>(text.into()).unwrap(), by, "{text}");
            assert_eq!(word(by), text);
        }
    }
}
