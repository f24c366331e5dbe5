//! The closed list of task types.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};

/// Every type of task that this server can run, named in snake case on the wire.
#[allow(missing_docs, reason = "each type is described by the task that the registry gives it")]
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum TaskType {
    DummyShort,
    DummyLong,
    DummyVeryLong,
    Tokenize,
    ImageProcess,
}

impl TaskType {
    /// All of them, in the order in which they are listed to users.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// The name on the wire, such as `dummy_short`.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The names of all of them, in that order.
    pub fn names() -> impl ExactSizeIterator<Item = &'static str> + Clone {
        Self::ALL.iter().map(|task_type| task_type.name())
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}
