//! Values of manifests that people write with a unit.

use std::time::Duration;

use jiff::SignedDuration;

/// Parses a duration such as `10s` or `1m 30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    parsed.ok_or_else(|| format!("invalid duration `{text}`: expected a value such as \"10s\""))
}

/// Parses a size such as `512M` or `8G`, in bytes. Units are powers of 1024, as for systemd.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let invalid = || format!("invalid size `{text}`: expected a value such as \"512M\" or \"8G\"");
    let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic()).trim_end();
    let unit = match text[digits.len()..].trim_start() {
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(invalid()),
    };
    let number: f64 = digits.parse().map_err(|_| invalid())?;
    let bytes = number * (1_u64 << unit) as f64;
    if bytes >= 1.0 && bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(invalid()) }
}

/// Writes a number of bytes as `bytes` reads it, rounded to a tenth of its unit.
pub(super) fn human_bytes(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    let unit = units.into_iter().find(|(power, _)| bytes >> power > 0).unwrap_or((10, "K"));
    let number = (bytes as f64 / (1_u64 << unit.0) as f64 * 10.0).round() / 10.0;
    format!("{number}{}", unit.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_unit() {
        assert_eq!(bytes("8G"), Ok(8 << 30));
        assert_eq!(bytes("1.5 K"), Ok(1536));
        for text in ["", "8", "G", "8GB", "-1G", "0M", "1e30T", "NaNG", "8 giga", "ä"] {
            assert!(bytes(text).unwrap_err().contains("expected a value such as"), "{text}");
        }
        for text in ["8G", "1.5K", "512M", "3T"] {
            assert_eq!(human_bytes(bytes(text).unwrap()), text);
        }
    }

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        for text in ["", "10", "-1s", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
