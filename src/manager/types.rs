//! Task types that change while the server runs, and their limits.

use super::{ManagerOptions, TaskManager};
use crate::store::{Limits, NewTypes, StoreError, TypeLimit};
use crate::tasks::{TaskRegistry, TypeEntry};

/// The server's limits on running tasks, from which those of each type follow.
#[derive(Debug)]
pub(super) struct TypeLimits {
    total: usize,
    cpus: usize,
    /// By name. The last one of a name counts.
    by_name: Vec<(String, usize)>,
}

impl TypeLimits {
    pub(super) fn of(options: &ManagerOptions) -> Self {
        let ManagerOptions { max_running, cpu_slots, type_limits, .. } = options;
        Self { total: *max_running, cpus: *cpu_slots, by_name: type_limits.clone() }
    }

    /// Limits of the types that can run.
    pub(super) fn apply(&self, registry: &TaskRegistry) -> Limits {
        let runnable = registry.types().into_iter().filter(|(_, task)| task.is_runnable());
        let limit = |(task_type, task): TypeEntry| {
            let name = task_type.name();
            let flag = self.by_name.iter().rfind(|(limited, _)| limited == name);
            let limits = [flag.map(|&(_, limit)| limit), task.about().limit];
            let tasks = limits.into_iter().flatten().fold(self.total, usize::min);
            TypeLimit { name, tasks, cpus: task.about().cpus }
        };
        Limits { total: self.total, cpus: self.cpus, by_type: runnable.map(limit).collect() }
    }
}

impl TaskManager {
    /// Replaces the declared types. Tasks of changed types that could not be run are looked at again.
    ///
    /// # Errors
    /// If the database refuses; the next call repeats it.
    pub(crate) async fn declare(&self, types: Vec<TypeEntry>) -> Result<(), StoreError> {
        let inner = &self.inner;
        let changed = inner.registry.set_declared(types);
        inner.files.protect(inner.registry.programs());
        inner.metrics.add_types(&inner.registry.names());
        let limits = inner.types.apply(&inner.registry);
        inner.store.set_types(NewTypes { limits, changed }).await
    }
}
