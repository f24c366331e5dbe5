//! The command line, tried on the real binary against a real server.

mod backup;
mod exit_codes;
mod lists;
mod program;
mod run;
mod stub;
mod tls;
mod unheard;
mod verbs;
mod watch;
