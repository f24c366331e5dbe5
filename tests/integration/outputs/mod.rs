//! Outputs and private folders of tasks that run programs. No shipped task does, so this test binary starts
//! itself as a server with a task that stands for them.

mod private_folders;
mod server;
