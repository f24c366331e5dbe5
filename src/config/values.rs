//! Value types of settings, parsed alike from flags and from the settings file.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

/// Number of tasks of one type that run at once: `tokenize=2`.
#[derive(Clone, Debug, Deserialize)]
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
            _ => Err(format!("invalid limit `{text}`: expected a value such as \"tokenize=2\"")),
        }
    }
}

impl TryFrom<toml::Value> for TypeLimit {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, Self::Error> {
        text(value).parse()
    }
}

/// A duration such as `30s`, `5m`, `1h 30m` or `30d`. A bare number is an error, since it could mean
/// seconds as well as days.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct HumanDuration {
    /// As written.
    span: Span,
    duration: Duration,
}

impl HumanDuration {
    /// Returns the duration, with days of 24 hours.
    pub const fn get(self) -> Duration {
        self.duration
    }
}

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.parse::<f64>().is_ok() {
            return Err(format!(
                "invalid duration `{text}`: a unit is missing, expected a value such as \
                 \"{text}s\", \"{text}m\" or \"{text}d\""
            ));
        }
        let parse = || {
            let span: Span = text.parse()?;
            let duration = span.to_duration(SpanRelativeTo::days_are_24_hours())?.try_into()?;
            Ok(Self { span, duration })
        };
        parse().map_err(|_: jiff::Error| {
            format!(
                "invalid duration `{text}`: expected a value such as \"30s\", \"5m\", \"1h 30m\" \
                 or \"30d\""
            )
        })
    }
}

impl TryFrom<toml::Value> for HumanDuration {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, Self::Error> {
        text(value).parse()
    }
}

/// A size such as `500MB` or `2GiB`. A bare number is an error, since it could mean bytes as well as
/// megabytes.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "toml::Value")]
pub(super) struct HumanSize(u64);

impl HumanSize {
    pub(super) fn bytes(self) -> u64 {
        self.0
    }
}

/// Units of sizes, in bytes.
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

impl FromStr for HumanSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(unit);
        let parse = || {
            let number: u64 = number.trim().parse().ok()?;
            let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit)?;
            number.checked_mul(*bytes)
        };
        parse().map(Self).ok_or_else(|| match unit {
            "" => format!(
                "invalid size `{text}`: a unit is missing, expected a value such as \"{text}MB\" or \
                 \"{text}GiB\""
            ),
            _ => format!("invalid size `{text}`: expected a value such as \"500MB\" or \"2GiB\""),
        })
    }
}

impl TryFrom<toml::Value> for HumanSize {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, Self::Error> {
        text(value).parse()
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.span)
    }
}

/// Returns a string itself, and any other value as TOML.
fn text(value: toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Deserializes a list, or a single value as a list of one.
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
    fn durations_are_parsed_and_displayed_as_written() {
        for (text, seconds) in
            [("30s", 30), ("5m", 300), ("1h 30m", 5400), ("30d", 2_592_000), ("36h", 129_600)]
        {
            let duration: HumanDuration = text.parse().unwrap();
            assert_eq!(duration.get(), Duration::from_secs(seconds), "{text}");
            assert_eq!(duration.to_string(), text);
        }
        assert_eq!("0s".parse::<HumanDuration>().unwrap().get(), Duration::ZERO);
    }

    #[test]
    fn sizes_are_parsed() {
        for (text, bytes) in
            [("500MB", 500_000_000), ("2GiB", 2 << 30), (" 3 KiB", 3072), ("0B", 0)]
        {
            assert_eq!(text.parse::<HumanSize>().unwrap().bytes(), bytes, "{text}");
        }
        for text in ["", "5", "MB", "-1MB", "1.5GB", "5 parsecs", "99999999999TiB"] {
            assert!(text.parse::<HumanSize>().is_err(), "{text}");
        }
        assert!("5".parse::<HumanSize>().unwrap_err().contains("5MB"));
    }

    #[test]
    fn a_duration_needs_a_known_unit() {
        for text in ["30", "0", "1.5", " 30 ", "-5s", "soon", "5x", "30 parsecs"] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text}");
        }
        let error = "30".parse::<HumanDuration>().unwrap_err();
        assert!(error.contains("30s") && error.contains("30d"), "{error}");
    }
}
