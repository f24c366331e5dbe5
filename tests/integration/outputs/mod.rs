//! Outputs and private folders of tasks that run programs. No shipped task does, so this test binary starts
//! itself as a server with tasks that stand for them.

mod files;
mod folders;
mod overlaps;
mod private_folders;
mod program;
mod server;
