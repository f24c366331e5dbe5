//! `task-server key`: creates API keys.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::exit::{EXIT_CODES, Exit, Failure, Outcome};
use super::settings::SettingsFile;
use super::terminal::print_note;
use crate::http::{Access, KeyFile, KeyName, NewKey};
use crate::task::with_causes;

const DEFAULT_FILE: &str = "keys";

#[derive(Debug, Subcommand)]
pub(super) enum KeyVerb {
    /// Creates an API key: prints it once and adds its hash to the key file
    New(NewArgs),
}

#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub(super) struct NewArgs {
    /// Owner of the key, by which its line in the key file is found to revoke it
    #[arg(long)]
    name: KeyName,

    /// Allow reading only: no submitting, cancelling or retrying
    #[arg(long)]
    read_only: bool,

    /// Key file, created if missing [default: api-key-file of the settings file, else `keys`]
    #[arg(long, env = "TASK_SERVER_API_KEY_FILE", value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    settings: SettingsFile,
}

pub(super) fn run(KeyVerb::New(args): KeyVerb) -> Outcome {
    let path = match args.file {
        Some(file) => file,
        None => args.settings.load()?.api_key_file.unwrap_or_else(|| DEFAULT_FILE.into()),
    };
    let access = if args.read_only { Access::ReadOnly } else { Access::ReadWrite };
    create(&path, &args.name, access)
}

fn create(path: &Path, name: &KeyName, access: Access) -> Outcome {
    let shown = path.display();
    let write_error = |error: io::Error| {
        Failure::new(Exit::Io, format!("cannot add the key to `{shown}`: {error}"))
    };

    let mut options = File::options();
    let file = options.read(true).append(true).create(true).mode(0o600).open(path);
    let file = file.map_err(|error| {
        let message = format!("cannot open the key file `{shown}`: {error}");
        Failure::new(Exit::CannotCreate, message)
    })?;
    // Serializes concurrent runs, so that each sees the names of the others.
    file.lock().map_err(write_error)?;
    let stored =
        KeyFile::read(path).map_err(|error| Failure::new(Exit::Io, with_causes(&error)))?;
    if let Some(fault) = stored.fault(path) {
        return Err(Failure::new(Exit::Data, fault.to_string()));
    }
    if stored.keys().iter().any(|key| key.name() == Some(name)) {
        let message = format!(
            "`{shown}` already has a key named `{name}`: choose another name or erase its line first"
        );
        return Err(Failure::new(Exit::CannotCreate, message));
    }
    let NewKey { secret, line } = NewKey::make(name, access).map_err(|error| {
        Failure::new(Exit::Internal, format!("cannot get random numbers: {error}"))
    })?;
    append(&file, path, &line).map_err(write_error)?;
    writeln!(io::stdout(), "{secret}").map_err(|error| {
        let message =
            format!("cannot print the key: {error}; erase the line of `{name}` in `{shown}`");
        Failure::new(Exit::Io, message)
    })?;

    if let Some(exposed) = stored.exposed() {
        print_note(&format!("warning: {exposed}"));
    }
    print_note(&format!(
        "This key is not shown again. Clients send it as\n  Authorization: Bearer KEY\n\
         Its hash is in `{shown}`; a server with --api-key-file {shown} picks it up within a second.\n\
         To revoke the key, erase its line."
    ));
    Ok(Exit::Done)
}

/// Appends a whole line or nothing. Keeps the file itself, with its owner and permissions.
fn append(mut file: &File, path: &Path, line: &str) -> io::Result<()> {
    let text = std::fs::read(path)?;
    let separator = if text.last().is_none_or(|&last| last == b'\n') { "" } else { "\n" };
    let line = format!("{separator}{line}\n");
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).inspect_err(|_| {
        // If this fails too, part of a line remains. Its key was never printed, so nobody has it.
        let _ = file.set_len(text.len() as u64);
    })
}
