//! Tasks as JSON.

use std::hash::{DefaultHasher, Hasher};

use bytes::Bytes;

use crate::task::TaskInfo;

/// A task as JSON, with its entity tag.
#[derive(Clone, Debug)]
pub(crate) struct Rendered {
    pub(crate) json: Bytes,
    /// Equal for equal JSON.
    pub(crate) tag: u64,
    pub(crate) is_final: bool,
}

impl Rendered {
    pub(super) fn new(info: &TaskInfo) -> Self {
        let json = serde_json::to_vec(info).expect("a task has no keys that JSON cannot express");
        let mut hasher = DefaultHasher::new();
        hasher.write(&json);
        Self { json: json.into(), tag: hasher.finish(), is_final: info.status.is_final() }
    }
}
