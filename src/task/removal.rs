//! Removal of folders with unknown content: of any depth, with any permissions, full of links.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cap_std::fs::{Dir, Permissions};
use rustix::fs::{AtFlags, Mode, OFlags, fchmod, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::info::new_uuid;

/// Removes a file, a link, or a folder with everything in it. Links are never followed.
///
/// # Errors
/// On an I/O error; [`io::ErrorKind::NotFound`] if there is nothing of this name.
pub(super) fn remove_tree(parent: &Dir, name: impl AsRef<Path>) -> io::Result<()> {
    let name = name.as_ref().as_os_str();
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(error) if is_folder(error) => {}
        removed => return Ok(removed?),
    }
    remove_contents(&open_folder(parent, name)?)?;
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Removes everything in a folder.
///
/// Folders in a subfolder are moved up before that is removed. So two handles suffice at any depth, and the
/// work is linear in the number of entries.
pub(super) fn remove_contents(folder: &Dir) -> io::Result<()> {
    make_writable(folder)?;
    // Not used by anything in the folder.
    let moved = new_uuid();
    let mut moves = 0_u64;
    loop {
        // Entries that were moved up may be missing in a pass that began before.
        let mut is_empty = true;
        for entry in folder.entries()? {
            is_empty = false;
            let name = entry?.file_name();
            if remove_entry(folder, &name)? {
                continue;
            }
            let subfolder = open_folder(folder, &name)?;
            for entry in subfolder.entries()? {
                let inner = entry?.file_name();
                if !remove_entry(&subfolder, &inner)? {
                    moves += 1;
                    move_up(&subfolder, &inner, folder, &format!("{moved}.{moves}"))?;
                }
            }
            drop(subfolder);
            // Fails if its listing was incomplete: then the next pass finds it again.
            let _ = unlinkat(folder, &name, AtFlags::REMOVEDIR);
        }
        if is_empty {
            return Ok(());
        }
    }
}

/// Removes anything but a folder that is not empty. Returns whether it is gone.
fn remove_entry(folder: &Dir, name: &OsStr) -> io::Result<bool> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(error) if is_folder(error) => {}
        Err(error) => return Err(error.into()),
    }
    match unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Errors of `unlink` on a folder: on Linux and elsewhere.
fn is_folder(error: Errno) -> bool {
    matches!(error, Errno::ISDIR | Errno::PERM)
}

fn move_up(from: &Dir, name: &OsStr, to: &Dir, new_name: &str) -> io::Result<()> {
    match renameat(from, name, to, new_name) {
        // Moving a folder changes its `..`, so it has to be writable.
        Err(Errno::ACCESS) => {
            from.set_permissions(name, Permissions::from_std(PermissionsExt::from_mode(0o700)))?;
            Ok(renameat(from, name, to, new_name)?)
        }
        moved => Ok(moved?),
    }
}

/// Opens a folder, not a link to one, so that its entries can be removed.
pub(super) fn open_folder(parent: &Dir, name: &OsStr) -> io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            parent
                .set_permissions(name, Permissions::from_std(PermissionsExt::from_mode(0o700)))?;
            openat(parent, name, flags, Mode::empty())
        }
        opened => opened,
    };
    let folder = Dir::from_std_file(File::from(folder?));
    make_writable(&folder)?;
    Ok(folder)
}

/// Lets the owner of a folder use it.
fn make_writable(folder: &Dir) -> io::Result<()> {
    let mode = Mode::from_raw_mode(fstat(folder)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        fchmod(folder, mode | Mode::RWXU)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use cap_std::ambient_authority;
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    fn open(folder: &TempDir) -> Dir {
        Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap()
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let (folder, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        fs::write(outside.path().join("precious"), "kept").unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("sub")).unwrap();
        symlink(outside.path(), tree.join("folder")).unwrap();
        symlink(outside.path(), tree.join("sub/folder")).unwrap();
        symlink(outside.path().join("precious"), tree.join("sub/file")).unwrap();
        symlink(&tree, tree.join("itself")).unwrap();
        symlink(outside.path(), folder.path().join("link")).unwrap();
        for name in ["tree", "link"] {
            remove_tree(&open(&folder), name).unwrap();
            assert!(folder.path().join(name).symlink_metadata().is_err(), "{name}");
        }
        assert_eq!(fs::read(outside.path().join("precious")).unwrap(), b"kept");
        let absent = remove_tree(&open(&folder), "tree").unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn permissions_do_not_keep_anything() {
        let folder = TempDir::new().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("closed/inner/innermost")).unwrap();
        fs::create_dir_all(tree.join("read-only/inner")).unwrap();
        fs::write(tree.join("closed/inner/innermost/file"), "text").unwrap();
        fs::write(tree.join("read-only/inner/file"), "text").unwrap();
        for (name, mode) in [
            ("closed/inner/innermost", 0),
            ("closed/inner", 0o500),
            ("closed", 0),
            ("read-only/inner", 0),
            ("read-only", 0o500),
            ("", 0),
        ] {
            set_mode(&tree.join(name), mode);
        }
        remove_tree(&open(&folder), "tree").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// A recursive removal would need a handle, and a stack frame, per level.
    #[test]
    fn depth_does_not_matter() {
        const DEPTH: usize = 5_000;
        let folder = TempDir::new().unwrap();
        // Longer than any path may be.
        let mut inner = open(&folder);
        for _ in 0..DEPTH {
            inner.create_dir("deeper").unwrap();
            inner.write("file", "text").unwrap();
            inner = inner.open_dir("deeper").unwrap();
        }
        drop(inner);
        remove_tree(&open(&folder), "deeper").unwrap();
        remove_contents(&open(&folder)).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn nothing_is_left_of_any_tree(
            entries in prop::collection::vec(("[ab]{1,2}(/[ab]{1,2}){0,4}", 0..4_u8), 0..24)
        ) {
            let (folder, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
            fs::write(outside.path().join("precious"), "kept").unwrap();
            let tree = folder.path().join("tree");
            fs::create_dir(&tree).unwrap();
            for (path, kind) in entries {
                let path = tree.join(path);
                // Fails if a file is in the way. A name of their own keeps links out of the way.
                let _ = fs::create_dir_all(path.parent().unwrap());
                let _ = match kind {
                    0 => fs::create_dir(&path),
                    1 => fs::write(&path, "text"),
                    2 => symlink(outside.path(), path.with_extension("link")),
                    _ => symlink("..", path.with_extension("link")),
                };
            }
            remove_tree(&open(&folder), "tree").unwrap();
            prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
            prop_assert_eq!(fs::read(outside.path().join("precious")).unwrap(), b"kept");
        }
    }
}
