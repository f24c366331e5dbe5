//! The closed list of task types.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};

/// Type of a task, in snake case on the wire.
#[allow(missing_docs, reason = "each type is described by its task in the registry")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum TaskType {
    DummyShort,
    DummyLong,
    DummyVeryLong,
    Tokenize,
    ImageProcess,
}

impl TaskType {
    /// All types, in the order in which they are listed to users.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// Name on the wire, such as `dummy_short`.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Names of all types, in the order of [`ALL`](Self::ALL).
    pub fn names() -> impl ExactSizeIterator<Item = &'static str> + Clone {
        Self::ALL.iter().map(|task_type| task_type.name())
    }

    /// Looks up a type by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}
