//! API keys and the lines that stand for them in a key file.
//!
//! A line `sha256:HASH NAME read-only` or `sha256:HASH NAME read-write` is the hash of a key. A hash
//! alone is refused: it may be what is left of a read-only line. Every other line is a key itself, which
//! may write. Empty lines and those that begin with `#` do not count.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What begins a line that holds the hash of a key; no other line can begin like that.
const HASH_PREFIX: &str = "sha256:";
/// What begins a new key, so that tools that look for secrets in public places know one.
const KEY_PREFIX: &str = "ts_";
/// Keys shorter than this are too easily guessed.
const MIN_KEY_LENGTH: usize = 16;
const MAX_NAME_LENGTH: usize = 64;

/// What a key is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

impl Access {
    const ALL: [Self; 2] = [Self::ReadOnly, Self::ReadWrite];

    fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::ReadWrite => "read-write",
        }
    }
}

/// What is kept of a key. Keys are random, so that a slow hash would protect nothing more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiKey {
    hash: [u8; 32],
    name: Option<KeyName>,
    access: Access,
}

/// A key that was just made.
#[derive(Debug)]
pub(crate) struct NewKey {
    /// The key itself, which is kept nowhere else.
    pub(crate) secret: String,
    /// Its line in a key file.
    pub(crate) line: String,
}

impl NewKey {
    /// Makes a key.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub(crate) fn make(name: &KeyName, access: Access) -> Result<Self, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let secret = format!("{KEY_PREFIX}{}", Hex(&random));
        let line = format!("{HASH_PREFIX}{} {name} {}", Hex(&hash(&secret)), access.name());
        Ok(Self { secret, line })
    }
}

impl ApiKey {
    /// The key on this line of a file; `None` if the line does not count.
    ///
    /// # Errors
    /// What is wrong with it, without quoting it: it may be almost a key.
    pub(super) fn parse(line: &str) -> Result<Option<Self>, &'static str> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let Some(rest) = line.strip_prefix(HASH_PREFIX) else {
            if line.len() < MIN_KEY_LENGTH {
                return Err("is shorter than 16 characters, too short for a key");
            }
            return Ok(Some(Self { hash: hash(line), name: None, access: Access::ReadWrite }));
        };
        let words: Vec<_> = rest.split_whitespace().collect();
        let [hex, name, access] = words[..] else {
            return Err("is not of the form sha256:HASH NAME read-only (or read-write)");
        };
        let hash = unhex(hex)
            .ok_or("has no SHA-256 hash: expected 64 hexadecimal digits after `sha256:`")?;
        let name = name.parse().map_err(|_| "has a name that a key cannot have")?;
        let access = Access::ALL.into_iter().find(|known| known.name() == access);
        let access = access.ok_or("does not end in read-only or read-write")?;
        Ok(Some(Self { hash, name: Some(name), access }))
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
        let mut found = Choice::from(0);
        let mut place = 0_u64;
        for (index, key) in (0_u64..).zip(keys) {
            let same = key.hash.ct_eq(&hash);
            subtle::ConditionallySelectable::conditional_assign(&mut place, &index, same);
            found |= same;
        }
        usize::try_from(place).ok().filter(|_| found.into()).and_then(|place| keys.get(place))
    }
}

/// Tells people which key a line stands for.
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

struct Hex<'a>(&'a [u8; 32]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn unhex(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(line: &str) -> ApiKey {
        ApiKey::parse(line).unwrap().unwrap()
    }

    #[test]
    fn a_new_key_is_known_by_its_line() {
        for access in Access::ALL {
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
        let hashed = format!("sha256:{} bob read-write", Hex(&hash("the second key of them")));
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
    fn a_faulty_line_is_no_key() {
        let hashed = format!("sha256:{}", Hex(&hash("a key")));
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
