//! Task types: those that are compiled in, and those that are declared at run time.

use std::collections::HashSet;
use std::sync::LazyLock;

use parking_lot::Mutex;
use strum::{EnumIter, EnumString, IntoEnumIterator, IntoStaticStr};

/// Type of a task, in snake case on the wire.
#[allow(missing_docs, reason = "each type is described by its task in the registry")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum TaskType {
    DummyShort,
    DummyLong,
    DummyVeryLong,
    Tokenize,
    ImageProcess,
    /// Declared by a file in the tasks folder.
    #[strum(disabled)]
    Declared(DeclaredName),
}

impl TaskType {
    /// The compiled-in types, in the order in which they are listed to users.
    pub fn builtin() -> impl Iterator<Item = Self> {
        Self::iter()
    }

    /// Name on the wire, such as `dummy_short`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Declared(name) => name.0,
            builtin => builtin.into(),
        }
    }

    /// Looks up a compiled-in type by its name.
    pub fn builtin_named(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}

/// Name of a declared type. Interned, so that it is as cheap to copy and compare as a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeclaredName(&'static str);

/// Maximum length of a name.
const MAX_NAME_BYTES: usize = 64;

/// All names since the start. They are never freed: a name is at most 64 bytes, and a new one takes a
/// new file in the tasks folder.
static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);

impl DeclaredName {
    /// Interns a name. `None` unless it is a lower-case letter, followed by up to 63 lower-case letters,
    /// digits and underscores.
    pub fn new(name: &str) -> Option<Self> {
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let valid = name.len() <= MAX_NAME_BYTES
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.bytes().all(is_word);
        valid.then(|| {
            let mut names = NAMES.lock();
            Self(names.get(name).copied().unwrap_or_else(|| {
                let name: &'static str = String::leak(name.to_owned());
                names.insert(name);
                name
            }))
        })
    }

    /// The name.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_name_is_the_same_each_time() {
        let named = |name| TaskType::Declared(DeclaredName::new(name).unwrap());
        assert_eq!(named("segment_2"), named("segment_2"));
        assert_ne!(named("segment_2"), named("segment_3"));
        assert_eq!(named("segment_2").name(), "segment_2");
        let longest = "a".repeat(MAX_NAME_BYTES);
        assert_eq!(named(&longest).name(), longest);
    }

    #[test]
    fn a_name_is_a_lower_case_word() {
        for name in ["", "_a", "1a", "Segment", "a-b", "a b", "ä", "a.b", &"a".repeat(65)] {
            assert_eq!(DeclaredName::new(name), None, "{name}");
        }
    }

    #[test]
    fn builtin_types_are_found_by_their_names() {
        assert!(TaskType::builtin().count() >= 5);
        for task_type in TaskType::builtin() {
            assert_eq!(TaskType::builtin_named(task_type.name()), Some(task_type));
        }
        assert_eq!(TaskType::builtin_named("declared"), None);
    }
}
