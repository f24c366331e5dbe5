//! Why a path cannot be used.

use std::io;

/// A path that tasks may not use, or that does not work.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// Nothing, or something that no file system takes.
    #[error("the path is {0}")]
    Malformed(&'static str),
    /// Meant for a shell.
    #[error(
        "path `{0}` begins with `~`, which only shells replace: write the whole path, or `./{0}` for a file of that name"
    )]
    Home(String),
    /// Not below any root.
    #[error(
        "path `{path}` {found} the allowed folders ({}): to allow it too, start the server with {}",
        roots.join(", "),
        options(roots, suggestion),
    )]
    Outside {
        /// As it was sent.
        path: String,
        /// "is outside", or where its links lead.
        found: String,
        /// The allowed folders.
        roots: Vec<String>,
        /// The folder to add.
        suggestion: String,
    },
    /// One of the server's own files.
    #[error("path `{0}` is one of the server's own files, name another one")]
    StateFile(String),
    /// A name that the server gives itself.
    #[error("`{0}` is a name for unfinished outputs of the server, choose another one")]
    PartialName(String),
    /// Writing the output would destroy the input.
    #[error("output `{0}` is the input itself, name another file")]
    OutputIsInput(String),
    /// A file was expected.
    #[error("`{0}` is a folder, expected a file")]
    Folder(String),
    /// A pipe, a socket or a device.
    #[error("`{0}` is not a regular file")]
    NotRegular(String),
    /// There is less room than the input takes.
    #[error("the disk of `{path}` has {free} bytes free, fewer than the {bytes} of the input")]
    DiskFull {
        /// As it was sent.
        path: String,
        /// Bytes that are left.
        free: u64,
        /// Bytes that are expected.
        bytes: u64,
    },
    /// The file system refused.
    #[error("cannot {action} `{path}`")]
    Io {
        /// "open", "create".
        action: &'static str,
        /// As it was sent.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// The options that allow these folders, for a shell.
fn options(roots: &[String], suggestion: &String) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
    let option = |folder: &String| match folder.chars().all(is_plain) {
        true => format!("--root {folder}"),
        false => format!("--root '{}'", folder.replace('\'', r"'\''")),
    };
    roots.iter().chain([suggestion]).map(option).collect::<Vec<_>>().join(" ")
}
