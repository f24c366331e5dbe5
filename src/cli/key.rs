//! Makes API keys.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::exit::{EXIT_CODES, Exit, Failure, Outcome};
use super::settings::SettingsFile;
use super::terminal::print_note;
use crate::http::{Access, KeyFile, KeyFileError, KeyName, NewKey};
use crate::task::with_causes;

/// Where keys go if no file was named.
const DEFAULT_FILE: &str = "keys";

#[derive(Debug, Subcommand)]
pub(super) enum KeyVerb {
    /// Makes an API key: adds its hash to the key file, and prints the key, which is kept nowhere
    New(NewArgs),
}

#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub(super) struct NewArgs {
    /// Who the key is for; to be found in the key file when it has to go
    #[arg(long)]
    name: KeyName,

    /// A key that may look at everything, and neither submit, cancel nor retry
    #[arg(long)]
    read_only: bool,

    /// The key file, made if it is absent [default: api-key-file of the settings file, else
    /// `keys`]
    #[arg(long, env = "TASK_SERVER_API_KEY_FILE", value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    settings: SettingsFile,
}

/// Why there is no new key.
#[derive(Debug, thiserror::Error)]
enum KeyError {
    #[error("cannot open the key file `{path}`")]
    Open { path: String, source: io::Error },
    #[error(transparent)]
    File(#[from] KeyFileError),
    #[error("`{path}` has a key named `{name}`: choose another name, or erase its line first")]
    NameTaken { path: String, name: KeyName },
    #[error("the system has no random numbers")]
    Random(#[from] getrandom::Error),
    #[error("cannot add the key to `{path}`")]
    Write { path: String, source: io::Error },
    #[error("cannot print the key, so erase the line of `{name}` in `{path}`")]
    Print { path: String, name: KeyName, source: io::Error },
}

pub(super) fn run(KeyVerb::New(args): KeyVerb) -> Outcome {
    let path = match args.file {
        Some(file) => file,
        None => args.settings.load()?.api_key_file.unwrap_or_else(|| DEFAULT_FILE.into()),
    };
    let access = if args.read_only { Access::ReadOnly } else { Access::ReadWrite };
    match new(&path, args.name, access) {
        Ok(()) => Ok(Exit::Done),
        Err(error) => Err(Failure::new(exit(&error), with_causes(&error))),
    }
}

fn exit(error: &KeyError) -> Exit {
    match error {
        KeyError::Open { .. } | KeyError::NameTaken { .. } => Exit::CannotCreate,
        KeyError::File(KeyFileError::Line { .. } | KeyFileError::Empty(_)) => Exit::Data,
        KeyError::Random(_) => Exit::Internal,
        KeyError::File(KeyFileError::Unreadable { .. })
        | KeyError::Write { .. }
        | KeyError::Print { .. } => Exit::Io,
    }
}

fn new(path: &Path, name: KeyName, access: Access) -> Result<(), KeyError> {
    let shown = path.display().to_string();
    let write_error = |source| KeyError::Write { path: shown.clone(), source };

    let mut options = File::options();
    let file = options.read(true).append(true).create(true).mode(0o600).open(path);
    let file = file.map_err(|source| KeyError::Open { path: shown.clone(), source })?;
    // Of two who make a key at once the second sees the first one's.
    file.lock().map_err(write_error)?;
    let stored = KeyFile::read(path)?;
    if let Some(fault) = stored.fault(path) {
        return Err(fault.into());
    }
    if stored.keys().iter().any(|key| key.name() == Some(&name)) {
        return Err(KeyError::NameTaken { path: shown, name });
    }
    let NewKey { secret, line } = NewKey::make(&name, access)?;
    append(&file, path, &line).map_err(write_error)?;
    writeln!(io::stdout(), "{secret}").map_err(|source| KeyError::Print {
        path: shown.clone(),
        name,
        source,
    })?;

    if let Some(exposed) = stored.exposed() {
        print_note(&format!("warning: {exposed}"));
    }
    print_note(&format!(
        "This is the only time that the key is shown: keep it where its user finds it, and send it as\n  \
         Authorization: Bearer KEY\n\
         Its hash is in `{shown}`, where a server that runs with --api-key-file {shown} looks every second.\n\
         Erase its line there to revoke it."
    ));
    Ok(())
}

/// Adds a line, whole or not at all. The file stays the same one, with its owner and permissions.
fn append(mut file: &File, path: &Path, line: &str) -> io::Result<()> {
    let text = std::fs::read(path)?;
    let separator = if text.last().is_none_or(|&last| last == b'\n') { "" } else { "\n" };
    let line = format!("{separator}{line}\n");
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).inspect_err(|_| {
        // Should this fail too, a part of the line is left. Nobody has its key, which is printed only
        // when the whole line is on the disk.
        let _ = file.set_len(text.len() as u64);
    })
}
