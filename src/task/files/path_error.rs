//! Errors of paths.

use std::io;

/// A path that tasks may not use, or that the file system rejects.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// A path that no file can have.
    #[error("invalid path: expected {0}")]
    Malformed(&'static str),
    /// A path that only a shell expands.
    #[error(
        "invalid path `{0}`: only shells expand `~`, expected a full path, or `./{0}` for a file of that name"
    )]
    Home(String),
    /// Not below any root.
    #[error(
        "path `{path}` {found} the allowed folders ({}): to allow it too, start the server with {}",
        roots.join(", "),
        options(roots, suggestion),
    )]
    Outside {
        /// The path as sent by the client.
        path: String,
        /// "is outside", or the target of its links.
        found: String,
        /// The allowed folders.
        roots: Vec<String>,
        /// The folder that would have to be allowed.
        suggestion: String,
    },
    /// One of the server's own files.
    #[error("path `{0}` is one of the server's own files, expected another")]
    StateFile(String),
    /// A name that the server reserves.
    #[error("path `{0}` has a name reserved for unfinished outputs and marks, expected another")]
    HiddenName(String),
    /// An output that would overwrite the input.
    #[error("output `{0}` is the input itself, expected another file")]
    OutputIsInput(String),
    /// A folder that would be replaced together with what is in it.
    #[error("output folder `{path}` would replace `{inside}`, expected a folder of its own")]
    Holds {
        /// The path as sent by the client.
        path: String,
        /// The input, an allowed folder or one of the server's files.
        inside: String,
    },
    /// A folder that no task has published.
    #[error(
        "`{0}` is a folder that no task has made, expected a new path, an empty folder, or the output of an \
         earlier task"
    )]
    ForeignFolder(String),
    /// A file in place of a folder.
    #[error("`{0}` is not a folder, expected a new path or a folder")]
    NotAFolder(String),
    /// A folder in place of a file.
    #[error("`{0}` is a folder, expected a file")]
    Folder(String),
    /// A pipe, a socket or a device.
    #[error("`{0}` is not a regular file")]
    NotRegular(String),
    /// Less free space than the input takes.
    #[error(
        "the disk of `{path}` has {free} bytes free, expected at least the {bytes} of the input"
    )]
    DiskFull {
        /// The path as sent by the client.
        path: String,
        /// Free bytes.
        free: u64,
        /// Expected bytes.
        bytes: u64,
    },
    /// An error of the file system.
    #[error("cannot {action} `{path}`")]
    Io {
        /// "open", "create" or "list".
        action: &'static str,
        /// The path as sent by the client.
        path: String,
        /// The error.
        source: io::Error,
    },
}

impl PathError {
    /// Whether there is nothing at the path.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Shell-quoted options that allow these folders.
fn options(roots: &[String], suggestion: &String) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
    let option = |folder: &String| match folder.chars().all(is_plain) {
        true => format!("--root {folder}"),
        false => format!("--root '{}'", folder.replace('\'', r"'\''")),
    };
    roots.iter().chain([suggestion]).map(option).collect::<Vec<_>>().join(" ")
}
