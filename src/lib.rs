//! A task server: clients submit long-running work over HTTP, poll its progress and cancel it.
//!
//! # The house
//! Lower rooms never import upper ones; `tests/architecture.rs` holds that.
//!
//! | room | what is in it |
//! |---|---|
//! | [`cli`] | the command line, one file per verb |
//! | [`app`] | the only place that knows everyone: builds the server and serves it |
//! | [`config`] | flags, environment, file, defaults |
//! | [`http`] | routes, bodies, errors, who may come in; knows the manager alone |
//! | [`manager`] | takes tasks in, runs what is claimed, answers who asks |
//! | [`store`] | the database: one writer with group commit, separate readers |
//! | [`tasks`] | one file for each kind of task, and the registry |
//! | [`task`] | the ground floor: what a task is and what its code may lean on |
//!
//! # The life of a task
//! 1. `POST /tasks`: the registry makes the task from its parameters, which checks them.
//! 2. The manager counts it in; the store's writer commits it together with whatever else waits.
//! 3. Only then is the client answered: the task survives a power cut.
//! 4. In the same or a later transaction the writer claims it, if there is room: `running`.
//! 5. The manager's runner spawns the task's code with a [`task::TaskContext`] and watches it.
//! 6. Progress is seen by pollers at once and written down twice a second at the most.
//! 7. A cancellation is noted in memory first, so that the task cannot complete any more.
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
