//! A task server: clients submit long-running work over HTTP, poll its progress and cancel it.
//!
//! # Layers
//! Lower layers never import upper ones; `tests/architecture.rs` enforces that.
//!
//! | module | contents |
//! |---|---|
//! | [`cli`] | the command line, one file per verb |
//! | [`app`] | the only composition root: builds the server and serves it |
//! | [`config`] | flags, environment, file, defaults |
//! | [`http`] | routes, bodies, errors, access; knows the manager, not the store |
//! | [`manager`] | submissions, attempts and reads: a fold over what was committed |
//! | [`store`] | every change and every read: group commit over an engine |
//! | [`tasks`] | one file for each kind of task, and the registry |
//! | [`task`] | what a task is, and what its code can use |
//!
//! # The life of a task
//! 1. `POST /tasks`: the registry makes the task from its parameters, which checks them.
//! 2. The manager reserves a place for it; the store's writer commits it with everything else that waits.
//! 3. The same or a later transaction claims it, if there is a free slot: `running`.
//! 4. The manager folds the commit, and only then is the client answered: the task survives a power cut.
//! 5. The manager spawns the task's code with a [`task::TaskContext`] and watches its deadline.
//! 6. Progress is visible to pollers at once, and stored at most twice a second.
//! 7. A cancellation is noted in memory first, so that the attempt cannot complete any more.
//! 8. When the code returns, its output is synced, renamed into place, and the end committed.
//! 9. An error with attempts left sends it back to `pending`, to be claimed again after a pause.
//! 10. After a crash the next start sends what was `running` back to `pending`.

pub mod app;
pub mod cli;
pub mod config;
pub mod http;
pub mod manager;
pub mod store;
pub mod task;
pub mod tasks;
