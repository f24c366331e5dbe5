//! The file with the API keys: read at the start, and again whenever it has changed.

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

/// How soon a change of the file counts.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Size limit of the file: ten thousand keys, and it is read every second.
const MAX_BYTES: u64 = 1024 * 1024;

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read the API keys in `{path}`")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A line is no key. The line itself is not repeated, it may be almost one.
    #[error("line {line} of `{path}` {problem}")]
    Line {
        /// The file.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// Nobody could get in.
    #[error(
        "`{0}` has no API key in it: make one with `task-server key new --name NAME --file {0}`"
    )]
    Empty(String),
}

/// What stands in a key file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyFile {
    keys: Vec<ApiKey>,
    /// Lines that are no keys, counted from 1, and why not.
    faults: Vec<(usize, &'static str)>,
    /// How the file can be reached by those who should not, if it can.
    exposed: Option<String>,
}

impl KeyFile {
    /// # Errors
    /// If the file cannot be read.
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

    /// A sentence about permissions that are too wide.
    pub(crate) fn exposed(&self) -> Option<&str> {
        self.exposed.as_deref()
    }

    /// The first line that is no key.
    pub(crate) fn fault(&self, path: &Path) -> Option<KeyFileError> {
        let &(line, problem) = self.faults.first()?;
        Some(KeyFileError::Line { path: path.display().to_string(), line, problem })
    }
}

/// Returns the text of the file and its permissions.
fn read(path: &Path) -> io::Result<(String, u32)> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    // The other end of a FIFO may never come.
    let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it is larger than {MAX_BYTES} bytes")));
    }
    Ok((text, about.permissions().mode()))
}

/// The group may read: so a file can be its owner's to change and the server's to read.
fn exposure(path: &Path, mode: u32) -> Option<String> {
    let who = match mode & 0o777 {
        mode if mode & 0o022 != 0 => "changed",
        mode if mode & 0o004 != 0 => "read",
        _ => return None,
    };
    let path = path.display();
    Some(format!("the API keys in `{path}` can be {who} by other users: chmod 600 {path}"))
}

/// The keys that let a request in at this moment.
#[derive(Debug)]
pub(crate) struct KeyRing {
    path: PathBuf,
    keys: watch::Sender<Vec<ApiKey>>,
}

impl KeyRing {
    /// Reads the file for the first time, when it has to be without fault.
    ///
    /// # Errors
    /// If the file cannot be read, has a faulty line, or has no key.
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

    /// What is kept of this key, if it is one of ours.
    pub(super) fn find(&self, given: &str) -> Option<ApiKey> {
        ApiKey::find(&self.keys.borrow(), given).cloned()
    }

    /// Returns once the keys are others than at this call.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut keys = self.keys.subscribe();
        // An error says that there are no keys any more.
        async move { drop(keys.changed().await) }
    }

    /// Follows the changes of the file for ever, so that a key is revoked by erasing its line.
    ///
    /// A faulty line lets nobody in, and the others count all the same: a slip of the pen must
    /// neither keep a revoked key alive nor lock everybody out. While the file cannot be read, the
    /// keys stay as they are.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut known = None;
        loop {
            let path = self.path.clone();
            let read = move || KeyFile::read(&path).map_err(|error| with_causes(&error));
            // It cannot fail but by a panic, which has been reported.
            if let Ok(found) = tokio::task::spawn_blocking(read).await
                && known.as_ref() != Some(&found)
            {
                self.take_over(&found);
                known = Some(found);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn take_over(&self, found: &Result<KeyFile, String>) {
        let file = match found {
            Ok(file) => file,
            Err(error) => return tracing::error!("{error}; those that were in it still count"),
        };
        let path = self.path.display();
        for (line, problem) in &file.faults {
            tracing::error!("line {line} of `{path}` {problem}; it lets nobody in");
        }
        if *self.keys.borrow() == file.keys {
            return;
        }
        self.keys.send_replace(file.keys.clone());
        if let Some(exposed) = file.exposed() {
            tracing::warn!("{exposed}");
        }
        match file.keys.len() {
            0 => tracing::warn!("no API key is left in `{path}`: nobody gets in"),
            count => tracing::info!("the API keys in `{path}` have changed, there are {count} now"),
        }
    }
}
