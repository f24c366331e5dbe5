//! The API key file: read at start, and reloaded when it changes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::sync::watch;

use super::api_key::ApiKey;
use crate::task::with_causes;

/// Interval of checks for changes.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Size limit of the file, which is read every second. Enough for ten thousand keys.
const MAX_BYTES: u64 = 1024 * 1024;

/// Unusable key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("cannot read the API keys in `{path}`")]
    Unreadable {
        /// Path of the file.
        path: String,
        /// Cause.
        source: io::Error,
    },
    /// A line is not a key. The error does not quote the line, which may be a mistyped key.
    #[error("line {line} of `{path}` {problem}")]
    Line {
        /// Path of the file.
        path: String,
        /// Line number, from 1.
        line: usize,
        /// Problem, as the predicate of a sentence.
        problem: &'static str,
    },
    /// The file has no keys, so no request could be authorized.
    #[error("no API key in `{0}`: create one with `task-server key new --name NAME --file {0}`")]
    Empty(String),
}

/// Content of a key file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyFile {
    keys: Vec<ApiKey>,
    /// Numbers of invalid lines, from 1, and their problems.
    faults: Vec<(usize, &'static str)>,
    /// Warning about permissions that are too wide.
    exposed: Option<String>,
}

impl KeyFile {
    /// Reads and parses the file.
    ///
    /// # Errors
    /// If the file cannot be read. Invalid lines are reported by [`Self::fault`].
    pub(crate) fn read(path: &Path) -> Result<Self, KeyFileError> {
        let unreadable =
            |source| KeyFileError::Unreadable { path: path.display().to_string(), source };
        let (text, mode) = read(path).map_err(unreadable)?;
        let mut file = Self { keys: Vec::new(), faults: Vec::new(), exposed: exposure(path, mode) };
        for (index, line) in text.lines().enumerate() {
            match ApiKey::parse(line) {
                Ok(key) => file.keys.extend(key),
                Err(problem) => file.faults.push((index + 1, problem)),
            }
        }
        Ok(file)
    }

    pub(crate) fn keys(&self) -> &[ApiKey] {
        &self.keys
    }

    /// Warning about permissions that are too wide.
    pub(crate) fn exposed(&self) -> Option<&str> {
        self.exposed.as_deref()
    }

    /// Error for the first invalid line.
    pub(crate) fn fault(&self, path: &Path) -> Option<KeyFileError> {
        let &(line, problem) = self.faults.first()?;
        Some(KeyFileError::Line { path: path.display().to_string(), line, problem })
    }
}

/// Returns the text of the file and its permissions.
fn read(path: &Path) -> io::Result<(String, u32)> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    // Opening a FIFO would otherwise block until it has a writer.
    let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("larger than {MAX_BYTES} bytes")));
    }
    Ok((text, metadata.permissions().mode()))
}

/// Allows reading by the group, so that the server can use a file that somebody else maintains.
fn exposure(path: &Path, mode: u32) -> Option<String> {
    let verb = match mode & 0o777 {
        mode if mode & 0o022 != 0 => "changed",
        mode if mode & 0o004 != 0 => "read",
        _ => return None,
    };
    let path = path.display();
    Some(format!("API keys in `{path}` can be {verb} by other users: chmod 600 {path}"))
}

/// The current keys. [`Self::follow`] replaces them when the file changes; the gate reads them.
#[derive(Debug)]
pub(crate) struct KeyRing {
    path: PathBuf,
    keys: watch::Sender<Vec<ApiKey>>,
}

impl KeyRing {
    /// Reads the file at the start of the server, where any fault is an error.
    ///
    /// # Errors
    /// If the file cannot be read, has an invalid line, or has no key.
    pub(crate) fn read(path: &Path) -> Result<Self, KeyFileError> {
        let file = KeyFile::read(path)?;
        if let Some(fault) = file.fault(path) {
            return Err(fault);
        }
        if file.keys.is_empty() {
            return Err(KeyFileError::Empty(path.display().to_string()));
        }
        if let Some(exposed) = file.exposed() {
            tracing::warn!("{exposed}");
        }
        Ok(Self { path: path.to_owned(), keys: watch::Sender::new(file.keys) })
    }

    /// Returns the stored key that matches `given`.
    pub(super) fn find(&self, given: &str) -> Option<ApiKey> {
        ApiKey::find(&self.keys.borrow(), given).cloned()
    }

    /// Resolves when the key set changes.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut keys = self.keys.subscribe();
        // An error means that the key ring was dropped.
        async move { drop(keys.changed().await) }
    }

    /// Reloads the file whenever it changes, so that deleting a line revokes its key. Never returns.
    ///
    /// An invalid line is skipped and the others apply: a typo must neither keep a revoked key alive nor
    /// lock everybody out. While the file cannot be read, the last keys stay valid.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut known = None;
        loop {
            let path = self.path.clone();
            let read = move || KeyFile::read(&path).map_err(|error| with_causes(&error));
            // Fails only by a panic, which is in the log already.
            if let Ok(found) = tokio::task::spawn_blocking(read).await
                && known.as_ref() != Some(&found)
            {
                self.replace(&found);
                known = Some(found);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn replace(&self, found: &Result<KeyFile, String>) {
        let file = match found {
            Ok(file) => file,
            Err(error) => return tracing::error!("{error}; the last keys stay valid"),
        };
        let path = self.path.display();
        for (line, problem) in &file.faults {
            tracing::error!("line {line} of `{path}` {problem}; skipped it");
        }
        if *self.keys.borrow() == file.keys {
            return;
        }
        self.keys.send_replace(file.keys.clone());
        if let Some(exposed) = file.exposed() {
            tracing::warn!("{exposed}");
        }
        match file.keys.len() {
            0 => tracing::warn!("no API key left in `{path}`: every request will be rejected"),
            count => tracing::info!(count, "reloaded API keys from `{path}`"),
        }
    }
}
