//! The second stage: this process becomes the program.

use std::convert::Infallible;
use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Signal, getppid, set_parent_process_death_signal, setsid};
use rustix::thread::set_no_new_privs;

use super::protocol::{Program, READY};

/// Score that makes the kernel kill the program rather than the server when memory runs out.
const OOM_SCORE_ADJ: &str = "500";
/// Exit code after a failure. The supervisor gets the reason over the socket.
const FAILED: u8 = 127;

/// Reads an order from standard input and becomes its program. Returns only if that fails.
pub(crate) fn exec_program() -> ExitCode {
    // The copy is closed on exec, and the program's standard input replaces the original.
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::from(FAILED);
    };
    let socket = UnixStream::from(socket);
    let Err(error) = become_program(&socket);
    // Fails only if the supervisor is gone.
    let _ = (&socket).write_all(error.as_bytes());
    ExitCode::from(FAILED)
}

fn become_program(socket: &UnixStream) -> Result<Infallible, String> {
    prepare().map_err(|error| format!("cannot prepare the process: {error}"))?;
    let mut socket = BufReader::new(socket);
    let (Program { argv, env, folder, .. }, stdin) =
        receive(&mut socket).map_err(|error| format!("cannot read the order: {error}"))?;
    let [program, arguments @ ..] = &argv[..] else {
        return Err("the command is empty".to_owned());
    };
    env::set_current_dir(&folder)
        .map_err(|error| format!("cannot enter `{}`: {error}", folder.display()))?;
    let _ = socket.get_mut().write_all(&[READY]);
    let error = Command::new(program).args(arguments).env_clear().envs(env).stdin(stdin).exec();
    Err(format!("`{}`: {}", program.display(), explain(Path::new(program), &error)))
}

/// Ties this process to the supervisor, and makes it the leader of a session of its own.
fn prepare() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Checked after the call above: a supervisor that died earlier sends no signal.
    let supervisor = env::args().nth(2).and_then(|pid| pid.parse().ok());
    if getppid().map(|pid| pid.as_raw_pid()) != supervisor {
        return Err(io::Error::other("the supervisor is gone"));
    }
    setsid()?;
    // Exec of a set-user-ID program would clear the death signal, and the supervisor could not kill it.
    set_no_new_privs(true)?;
    // Best effort: a container may forbid it.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    Ok(())
}

/// Reads the order. Standard input becomes an anonymous file, so that a program need not read it.
fn receive(socket: &mut impl BufRead) -> io::Result<(Program, File)> {
    let mut line = String::new();
    socket.read_line(&mut line)?;
    let program: Program = serde_json::from_str(&line)?;
    let mut stdin = File::from(memfd_create("stdin", MemfdFlags::CLOEXEC)?);
    let length = program.stdin as u64;
    if io::copy(&mut socket.take(length), &mut stdin)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    stdin.rewind()?;
    Ok((program, stdin))
}

/// Explains why exec failed. The kernel reports a missing interpreter as a missing program.
fn explain(program: &Path, error: &io::Error) -> String {
    let is_path = program.components().nth(1).is_some();
    if error.kind() == io::ErrorKind::NotFound && is_path && program.is_file() {
        return "the interpreter in its first line does not exist".to_owned();
    }
    error.to_string()
}
