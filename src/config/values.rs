//! Values of settings, as flags and the settings file write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo, SpanRound, Unit};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

/// Number of tasks of one type that run at once: `tokenize=2`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub(super) struct TypeLimit {
    pub(super) task_type: String,
    pub(super) limit: usize,
}

impl FromStr for TypeLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('=');
        let parsed = parts.and_then(|(name, limit)| Some((name, limit.trim().parse().ok()?)));
        match parsed {
            Some((name, limit @ 1..)) => Ok(Self { task_type: name.trim().to_owned(), limit }),
            _ => Err(format!("invalid limit `{text}`: expected a value such as tokenize=2")),
        }
    }
}

impl TryFrom<toml::Value> for TypeLimit {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, Self::Error> {
        match value {
            toml::Value::String(text) => text.parse(),
            other => Err(format!(
                "invalid limit `{other}`: expected texts such as limit = [\"tokenize=2\", \"image_process=4\"]"
            )),
        }
    }
}

/// A duration as people write it: `30s`, `5m`, `1h 30m`, `30d`. A number alone could be seconds or days, so it
/// needs its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct HumanDuration(Duration);

impl HumanDuration {
    /// The exact time.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.trim();
        if number.parse::<f64>().is_ok() {
            return Err(format!(
                "invalid duration `{number}`: a unit is missing, expected a value such as {number}s, {number}m or {number}d"
            ));
        }
        let expected = || {
            format!("invalid duration `{text}`: expected a value such as 30s, 5m, 1h 30m or 30d")
        };
        let span: Span = text.parse().map_err(|_| expected())?;
        let time = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| expected())?;
        Duration::try_from(time).map(Self).map_err(|_| expected())
    }
}

impl TryFrom<toml::Value> for HumanDuration {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, Self::Error> {
        match value {
            toml::Value::String(text) => text.parse(),
            toml::Value::Integer(number) => Err(format!(
                "invalid duration {number}: a unit is missing, expected a text such as \"{number}s\", \"{number}m\" or \"{number}d\""
            )),
            other => Err(format!(
                "invalid duration `{other}`: expected a text such as \"30s\", \"5m\" or \"30d\""
            )),
        }
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_day = SpanRound::new().largest(Unit::Day).days_are_24_hours();
        let span = SignedDuration::try_from(self.0).and_then(Span::try_from);
        match span.and_then(|span| span.round(by_day)) {
            Ok(span) => write!(f, "{span:#}"),
            // Too long for a span: some twenty thousand years.
            Err(_) => write!(f, "{:?}", self.0),
        }
    }
}

/// A list, or a single value in place of a list of one.
pub(super) fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let values = match toml::Value::deserialize(deserializer)? {
        toml::Value::Array(values) => values,
        one => vec![one],
    };
    let read = |value: toml::Value| {
        value.try_into::<T>().map_err(|error| D::Error::custom(error.message()))
    };
    values.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_as_people_write_them() {
        for (text, seconds, written) in [
            ("30s", 30, "30s"),
            ("300s", 300, "5m"),
            ("1h 30m", 5400, "1h 30m"),
            ("30d", 2_592_000, "30d"),
            ("36h", 129_600, "1d 12h"),
            ("0s", 0, "0s"),
        ] {
            let duration = text.parse();
            assert_eq!(duration, Ok(HumanDuration(Duration::from_secs(seconds))), "{text}");
            assert_eq!(duration.unwrap().to_string(), written);
        }
    }

    #[test]
    fn a_duration_needs_its_unit() {
        for text in ["30", "0", "1.5", " 30 ", "-5s", "soon"] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text}");
        }
        let said = "30".parse::<HumanDuration>().unwrap_err();
        assert!(said.contains("30s") && said.contains("30d"), "{said}");
    }
}
