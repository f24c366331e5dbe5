//! The command line, tested with the real binary and a real server.

mod backup;
mod exit_codes;
mod lists;
mod log;
mod program;
mod run;
mod stub;
mod tls;
mod unheard;
mod verbs;
mod watch;
