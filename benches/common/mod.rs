//! What all benches need: a server to measure, and a table to print.

pub(crate) mod server;
pub(crate) mod table;
