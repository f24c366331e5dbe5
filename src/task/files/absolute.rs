//! Resolution of absolute paths, inside or outside the roots.

use std::io;
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};

/// Follows the links of a path as far as it exists.
pub(super) fn follow_links(absolute: &Path) -> PathBuf {
    for existing in absolute.ancestors() {
        let rest = absolute.strip_prefix(existing).unwrap_or(Path::new(""));
        let real = existing.canonicalize().or_else(|_| {
            // A dangling link.
            let target = std::fs::read_link(existing)?;
            Ok::<_, io::Error>(normalize(&existing.parent().unwrap_or(existing).join(target)))
        });
        if let Ok(real) = real {
            return joined(real, rest);
        }
    }
    absolute.to_owned()
}

/// Joins without the trailing slash that `Path::join` adds for an empty path.
pub(super) fn joined(mut base: PathBuf, rest: &Path) -> PathBuf {
    base.extend(rest);
    base
}

/// Removes `.` and `..` without access to the file system.
pub(super) fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

/// Canonical path of a file that may not exist yet, in an existing folder.
pub(super) fn canonical_target(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().or_else(|| {
        let absolute = std::path::absolute(path).ok()?;
        Some(absolute.parent()?.canonicalize().ok()?.join(absolute.file_name()?))
    })
}

/// Path of an open file or folder, where the system tells: on Linux.
pub(super) fn path_of(opened: &impl AsRawFd) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).ok()
}
