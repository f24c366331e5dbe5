//! API keys, and their lines in a key file.
//!
//! A line `sha256:HASH NAME read-only` or `sha256:HASH NAME read-write` holds the hash of a key. A hash
//! alone is rejected: it may be a truncated read-only line. Any other line is a read-write key in plain
//! text. Empty lines and lines that begin with `#` are ignored.

use std::fmt;

use sha2::digest::Output;
use sha2::{Digest, Sha256};
use strum::{EnumString, IntoStaticStr};
use subtle::ConstantTimeEq;

/// Prefix of a hash; a key in plain text cannot begin with it.
const HASH_PREFIX: &str = "sha256:";
/// Prefix of new keys, by which secret scanners recognise them.
const KEY_PREFIX: &str = "ts_";
/// Shorter keys are too easy to guess.
const MIN_KEY_LENGTH: usize = 16;
const MAX_NAME_LENGTH: usize = 64;

/// Permissions of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

/// A stored key. Keys are random, so a slow hash would add no protection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiKey {
    /// In lower-case hexadecimal.
    hash: String,
    name: Option<KeyName>,
    access: Access,
}

/// A newly generated key.
#[derive(Debug)]
pub(crate) struct NewKey {
    /// The key itself, which is stored nowhere.
    pub(crate) secret: String,
    /// Its line in a key file.
    pub(crate) line: String,
}

impl NewKey {
    /// Generates a key.
    ///
    /// # Errors
    /// If the system provides no random numbers.
    pub(crate) fn make(name: &KeyName, access: Access) -> Result<Self, getrandom::Error> {
        let mut random = Output::<Sha256>::default();
        getrandom::fill(&mut random)?;
        let secret = format!("{KEY_PREFIX}{random:x}");
        let access: &str = access.into();
        let line = format!("{HASH_PREFIX}{} {name} {access}", hash(&secret));
        Ok(Self { secret, line })
    }
}

impl ApiKey {
    /// Parses a line of a key file; `None` if the line is ignored.
    ///
    /// # Errors
    /// The problem, as the predicate of a sentence. It never quotes the line, which may be a mistyped key.
    pub(super) fn parse(line: &str) -> Result<Option<Self>, &'static str> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let Some(rest) = line.strip_prefix(HASH_PREFIX) else {
            if line.len() < MIN_KEY_LENGTH {
                return Err("is too short for a key: expected at least 16 characters");
            }
            return Ok(Some(Self { hash: hash(line), name: None, access: Access::ReadWrite }));
        };
        let words: Vec<_> = rest.split_whitespace().collect();
        let [hex, name, access] = words[..] else {
            return Err("is not of the form sha256:HASH NAME read-only (or read-write)");
        };
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("has no SHA-256 hash: expected 64 hexadecimal digits after `sha256:`");
        }
        let name = name.parse().map_err(|_| "has an invalid key name")?;
        let access = access.parse().map_err(|_| "does not end in read-only or read-write")?;
        Ok(Some(Self { hash: hex.to_ascii_lowercase(), name: Some(name), access }))
    }

    pub(crate) fn name(&self) -> Option<&KeyName> {
        self.name.as_ref()
    }

    pub(super) fn access(&self) -> Access {
        self.access
    }

    /// Constant-time lookup of a key.
    pub(super) fn find<'a>(keys: &'a [Self], given: &str) -> Option<&'a Self> {
        let hash = hash(given);
        // Compares with all of them: where the search ends would reveal the position of the key.
        keys.iter().fold(None, |found, key| {
            if key.hash.as_bytes().ct_eq(hash.as_bytes()).into() { Some(key) } else { found }
        })
    }
}

/// Name of a key, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyName(String);

impl std::str::FromStr for KeyName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        if (1..=MAX_NAME_LENGTH).contains(&text.len()) && text.chars().all(fits) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("expected up to {MAX_NAME_LENGTH} letters, digits or characters of -_.@"))
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn hash(key: &str) -> String {
    format!("{:x}", Sha256::digest(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(line: &str) -> ApiKey {
        ApiKey::parse(line).unwrap().unwrap()
    }

    #[test]
    fn a_new_key_is_known_by_its_line() {
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let name = "a.b-c_d@e".parse().unwrap();
            let NewKey { secret, line } = NewKey::make(&name, access).unwrap();
            assert!(secret.starts_with("ts_") && secret.len() == 67, "{secret}");
            assert!(!line.contains(&secret["ts_".len()..]), "{line}");
            let read = key(&line);
            assert_eq!((read.name(), read.access()), (Some(&name), access));
            let keys = [key("another key altogether"), read, key("and yet another key")];
            assert_eq!(ApiKey::find(&keys, &secret), Some(&keys[1]));
            assert_eq!(ApiKey::find(&keys, &format!("{secret}0")), None);
        }
    }

    #[test]
    fn a_line_that_was_cut_off_lets_nobody_do_more() {
        let name = "dashboard".parse().unwrap();
        let NewKey { secret, line } = NewKey::make(&name, Access::ReadOnly).unwrap();
        for end in 0..line.len() {
            let left = ApiKey::parse(&line[..end]);
            let found = left
                .iter()
                .flatten()
                .any(|key| ApiKey::find(std::slice::from_ref(key), &secret).is_some());
            assert!(!found, "{}", &line[..end]);
            assert!(end <= HASH_PREFIX.len() || left.is_err(), "{}", &line[..end]);
        }
    }

    #[test]
    fn a_line_is_a_key_or_the_hash_of_one() {
        let hashed = format!("sha256:{} bob read-write", hash("the second key of them"));
        let keys = [key("the first key of them"), key(&hashed), key(&hashed.to_uppercase())];
        assert_eq!(ApiKey::find(&keys, "the first key of them"), Some(&keys[0]));
        assert_eq!(ApiKey::find(&keys, "the second key of them"), Some(&keys[1]));
        assert_eq!(ApiKey::find(&keys, ""), None);
        // Only the small letters are the prefix: this one is a plain key.
        assert_eq!(ApiKey::find(&keys, &hashed.to_uppercase()), Some(&keys[2]));
        assert_eq!(ApiKey::parse("# ours"), Ok(None));
        assert_eq!(ApiKey::parse("  "), Ok(None));
    }

    #[test]
    fn a_faulty_line_is_rejected() {
        let hashed = format!("sha256:{}", hash("a key"));
        for (line, problem) in [
            ("short", "too short"),
            ("sha256:abc bob read-only", "64"),
            (&format!("sha256:+{} bob read-only", "a".repeat(63)), "64"),
            (&hashed, "form"),
            (&format!("{hashed} read-only"), "form"),
            (&format!("{hashed} alice bob read-only"), "form"),
            (&format!("{hashed} alice write"), "read-write"),
            (&format!("{hashed} al/ice read-only"), "name"),
            ("sha256:", "form"),
        ] {
            let error = ApiKey::parse(line).unwrap_err();
            assert!(error.contains(problem), "{line}: {error}");
        }
    }
}
