//! Shared by all benches: a server process and a table.

pub(crate) mod server;
pub(crate) mod table;
