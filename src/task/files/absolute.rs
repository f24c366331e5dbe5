//! Paths outside of any root: made absolute, their links followed.

use std::io;
use std::path::{Component, Path, PathBuf};

/// Where a path leads: its links are followed as far as anything exists.
pub(super) fn follow_links(absolute: &Path) -> PathBuf {
    for existing in absolute.ancestors() {
        let rest = absolute.strip_prefix(existing).unwrap_or(Path::new(""));
        let real = existing.canonicalize().or_else(|_| {
            // A link that leads nowhere yet.
            let target = std::fs::read_link(existing)?;
            Ok::<_, io::Error>(normalize(&existing.parent().unwrap_or(existing).join(target)))
        });
        match real {
            Ok(real) if rest.as_os_str().is_empty() => return real,
            Ok(real) => return real.join(rest),
            Err(_) => {}
        }
    }
    absolute.to_owned()
}

/// Takes out `.` and `..` without asking the file system.
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

/// The path of a file that may not exist yet, in a folder that does.
pub(super) fn canonical_target(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().or_else(|| {
        let absolute = std::path::absolute(path).ok()?;
        Some(absolute.parent()?.canonicalize().ok()?.join(absolute.file_name()?))
    })
}
