//! Makes API keys.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::terminal::print_note;
use crate::config::{Config, ConfigError, Settings};
use crate::http::{Access, ApiKey, KeyFile, KeyFileError, KeyName};

/// Where keys go if no file was named.
const DEFAULT_FILE: &str = "keys";

#[derive(Debug, Subcommand)]
pub(super) enum KeyVerb {
    /// Makes an API key: adds its hash to the key file, and prints the key, which is kept nowhere
    New(NewArgs),
}

#[derive(Args, Debug)]
pub(super) struct NewArgs {
    /// Who the key is for; to be found in the key file when it has to go
    #[arg(long)]
    name: KeyName,

    /// A key that may look at everything, and neither submit, cancel nor retry
    #[arg(long)]
    read_only: bool,

    /// The key file, made if it is absent [default: api-key-file of task-server.toml, else `keys`]
    #[arg(long, env = "TASK_SERVER_API_KEY_FILE", value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Why there is no new key.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    #[error(transparent)]
    Config(#[from] ConfigError),
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

pub(super) fn run(verb: KeyVerb) -> Result<(), KeyError> {
    match verb {
        KeyVerb::New(args) => new(args),
    }
}

fn new(NewArgs { name, read_only, file }: NewArgs) -> Result<(), KeyError> {
    let path = match file {
        Some(file) => file,
        None => Config::load(Settings::default(), None)?
            .api_key_file
            .unwrap_or_else(|| DEFAULT_FILE.into()),
    };
    let shown = path.display().to_string();
    let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
    let write_error = |source| KeyError::Write { path: shown.clone(), source };

    let mut options = File::options();
    let file = options.read(true).append(true).create(true).mode(0o600).open(&path);
    let file = file.map_err(write_error)?;
    // Of two who make a key at once the second sees the first one's.
    file.lock().map_err(write_error)?;
    let stored = KeyFile::read(&path)?;
    if let Some(fault) = stored.fault(&path) {
        return Err(fault.into());
    }
    if stored.keys().iter().any(|key| key.name() == Some(&name)) {
        return Err(KeyError::NameTaken { path: shown, name });
    }
    let (key, secret) = ApiKey::make(name.clone(), access)?;
    append(&file, &path, &key).map_err(write_error)?;
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
fn append(mut file: &File, path: &Path, key: &ApiKey) -> io::Result<()> {
    let text = std::fs::read(path)?;
    let separator = if text.last().is_none_or(|&last| last == b'\n') { "" } else { "\n" };
    let line = format!("{separator}{key}\n");
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).inspect_err(|_| {
        // Should this fail too, half a line is left, which is no key.
        let _ = file.set_len(text.len() as u64);
    })
}
