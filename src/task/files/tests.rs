//! Paths of every kind, against real folders.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::task::{Output, OutputKind, TaskId};

/// A root with a file in it, and a file outside.
fn playground() -> (TempDir, Files) {
    let folder = TempDir::new().unwrap();
    fs::create_dir_all(folder.path().join("root/sub")).unwrap();
    fs::write(folder.path().join("root/in.txt"), "inside").unwrap();
    fs::write(folder.path().join("root/state.db"), "ours").unwrap();
    fs::write(folder.path().join("secret"), "outside").unwrap();
    let root = folder.path().join("root");
    let files = Files::open(std::slice::from_ref(&root), &[root.join("state.db")]).unwrap();
    (folder, files)
}

#[test]
fn the_same_file_has_one_key_however_it_is_spelt() {
    let (folder, files) = playground();
    symlink("sub", folder.path().join("root/link")).unwrap();
    let absolute = folder.path().join("root/sub/new/out").display().to_string();
    let keys: Vec<_> = ["sub/new/out", "./sub/../sub/new/out", "link/new/out", &absolute]
        .map(|path| files.check_output(path, OutputKind::File, None).unwrap())
        .into();
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[test]
fn links_do_not_lead_out() {
    let (folder, files) = playground();
    symlink("../secret", folder.path().join("root/link")).unwrap();
    symlink("..", folder.path().join("root/up")).unwrap();
    for path in ["link", "up/secret", "up/root/../secret"] {
        let error = files.open_input(path).unwrap_err().to_string();
        assert!(error.contains("--root"), "{path}: {error}");
        assert!(files.check_input(path).is_err(), "{path}");
    }
    assert!(files.create_output("up/planted", TaskId::new(), 1, CancellationToken::new()).is_err());
    assert!(!folder.path().join("planted").exists());
}

#[test]
fn a_hint_names_where_a_link_leads_and_keeps_the_present_folders() {
    let (folder, files) = playground();
    let root = folder.path().join("root");
    fs::create_dir(folder.path().join("elsewhere")).unwrap();
    symlink("../elsewhere", root.join("away")).unwrap();
    symlink("../nowhere", root.join("dangling")).unwrap();
    let outside = folder.path().canonicalize().unwrap();
    for (path, leads_to, add) in [
        ("away/new/out.txt", "elsewhere/new/out.txt", "elsewhere/new"),
        ("dangling/out.txt", "nowhere/out.txt", "nowhere"),
    ] {
        let error = files.check_output(path, OutputKind::File, None).unwrap_err().to_string();
        let leads_to = format!("leads to `{}`", outside.join(leads_to).display());
        assert!(error.contains(&leads_to), "{error}");
        assert!(error.ends_with(&format!("--root {}", outside.join(add).display())), "{error}");
        assert!(error.contains(&format!("--root {} ", root.display())), "{error}");
    }
    let error = files.check_output("/etc/out.txt", OutputKind::File, None).unwrap_err().to_string();
    assert!(
        error.contains("`/etc/out.txt` is outside") && error.ends_with("--root /etc"),
        "{error}"
    );
}

#[test]
fn a_link_in_place_of_the_output_is_replaced_not_followed() {
    let (folder, files) = playground();
    symlink("in.txt", folder.path().join("root/link")).unwrap();
    let mut output =
        files.create_output("link", TaskId::new(), 1, CancellationToken::new()).unwrap();
    output.write_all(b"new").unwrap();
    let output = Output::File(output);
    output.sync().unwrap();
    output.publish().unwrap();
    assert_eq!(fs::read(folder.path().join("root/in.txt")).unwrap(), b"inside");
    assert_eq!(fs::read(folder.path().join("root/link")).unwrap(), b"new");
}

#[test]
fn the_servers_files_are_known_under_every_name() {
    let (folder, files) = playground();
    let root = folder.path().join("root");
    fs::hard_link(root.join("state.db"), root.join("hard")).unwrap();
    symlink("state.db", root.join("soft")).unwrap();
    for path in ["state.db", "hard", "soft"] {
        let error = files.open_input(path).unwrap_err();
        assert!(matches!(error, PathError::StateFile(_)), "{path}: {error}");
    }
    for path in ["state.db", "soft", "hard"] {
        let error = files.check_output(path, OutputKind::File, None).unwrap_err();
        assert!(matches!(error, PathError::StateFile(_)), "{path}: {error}");
    }
}

#[test]
fn what_is_in_the_servers_folders_is_not_reached_through_a_link() {
    let (folder, _) = playground();
    let root = folder.path().join("root");
    let files = Files::open(std::slice::from_ref(&root), &[root.join("own")]).unwrap();
    fs::create_dir_all(root.join("own/sub")).unwrap();
    fs::write(root.join("own/sub/file"), "ours").unwrap();
    fs::write(root.join("owner"), "not ours").unwrap();
    symlink("own/sub", root.join("link")).unwrap();
    for path in ["own/sub/file", "link/file"] {
        let refusals = [
            files.check_input(path).map(drop),
            files.check_output(path, OutputKind::File, None).map(drop),
            files.open_input(path).map(drop),
            files.create_output(path, TaskId::new(), 1, CancellationToken::new()).map(drop),
        ];
        for refused in refusals {
            // Only Linux tells where an opened file is.
            let is_told = cfg!(target_os = "linux") || refused.is_err();
            assert!(
                !is_told || matches!(refused, Err(PathError::StateFile(_))),
                "{path}: {refused:?}"
            );
        }
    }
    assert!(files.open_input("owner").is_ok());
}

#[test]
fn what_is_no_regular_file_is_not_opened() {
    let (folder, files) = playground();
    let fifo = folder.path().join("root/fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert!(matches!(files.open_input("fifo"), Err(PathError::NotRegular(_))));
    assert!(matches!(files.open_input("sub"), Err(PathError::Folder(_))));
    assert!(matches!(files.open_input("."), Err(PathError::Folder(_))));
    assert!(matches!(
        files.check_output("fifo", OutputKind::File, None),
        Err(PathError::NotRegular(_))
    ));
    assert!(matches!(files.check_output("sub", OutputKind::File, None), Err(PathError::Folder(_))));
    assert!(matches!(
        files.check_output("new/", OutputKind::File, None),
        Err(PathError::Folder(_))
    ));
}

#[test]
fn an_output_that_is_not_published_leaves_nothing() {
    let (folder, files) = playground();
    let id = TaskId::new();
    let output = files.create_output("sub/out", id, 7, CancellationToken::new()).unwrap();
    let partial = folder.path().join(format!("root/sub/.{id}.7.part"));
    assert!(partial.join("out").is_file());
    drop(output);
    assert!(!partial.exists());
}

#[test]
fn what_a_crash_left_is_removed() {
    let (folder, files) = playground();
    let id = TaskId::new();
    let partial = folder.path().join(format!("root/sub/.{id}.7.part"));
    fs::create_dir_all(partial.join("out/more")).unwrap();
    fs::write(partial.join("out/more/file"), "left by a crash").unwrap();
    symlink(folder.path().join("root"), partial.join("link")).unwrap();
    assert!(files.remove_partial("sub/out", id, 7));
    assert!(!partial.exists());
    assert!(!files.remove_partial("sub/out", id, 7));
    assert!(!files.remove_partial("absent/out", id, 7));
    fs::write(&partial, "left by an earlier version").unwrap();
    assert!(files.remove_partial("sub/out", id, 7));
    assert!(!partial.exists());
    assert_eq!(fs::read(folder.path().join("root/in.txt")).unwrap(), b"inside");
}

#[test]
fn what_stands_beside_an_output_is_discarded() {
    let (folder, files) = playground();
    let id = TaskId::new();
    for publishes in [true, false] {
        let output = files.create_output("sub/out", id, 1, CancellationToken::new()).unwrap();
        let partial = folder.path().join(format!("root/sub/.{id}.1.part"));
        fs::create_dir(partial.join("folder")).unwrap();
        fs::write(partial.join("folder/file"), "unwanted").unwrap();
        symlink(folder.path(), partial.join("link")).unwrap();
        let output = Output::File(output);
        match publishes {
            true => output.publish().unwrap(),
            false => output.discard(),
        }
        let left = fs::read_dir(folder.path().join("root/sub")).unwrap().count();
        assert_eq!(left, 1, "the published output");
    }
    assert_eq!(fs::read(folder.path().join("secret")).unwrap(), b"outside");
}

#[test]
fn no_output_may_stand_where_others_are_hidden() {
    let (_folder, files) = playground();
    let hidden = format!(".{}.1.part", TaskId::new());
    for path in [hidden.clone(), format!("sub/{hidden}"), format!("{hidden}/out")] {
        let error = files.check_output(&path, OutputKind::File, None).unwrap_err();
        assert!(matches!(error, PathError::HiddenName(_)), "{path}: {error}");
    }
}

/// Stops the swapping thread, even if the test fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Uses paths in every way while `door` and `file` alternate between entries of the root and links
/// out of it. Returns the number of uses that succeeded and failed.
fn use_while_swapped(files: &Files, outside: &Path) -> (u32, u32) {
    let (mut succeeded, mut failed) = (0, 0);
    let mut count = |success: bool| if success { succeeded += 1 } else { failed += 1 };
    for path in ["door/file", "file", "door/../file", "door/door/../file"] {
        let opened = files.open_input(path);
        count(opened.is_ok());
        if let Ok(mut file) = opened {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "inside", "{path}");
        }
        if let Ok(key) = files.check_input(path) {
            assert!(!key.starts_with(outside), "{key:?}");
        }
    }
    let id = TaskId::new();
    for path in ["door/out", "door/new/out", "file"] {
        if let Ok(key) = files.check_output(path, OutputKind::File, None) {
            assert!(!key.starts_with(outside), "{key:?}");
        }
        let _ = files.try_output(path, OutputKind::File, 1);
        let _ = files.remove_partial(path, id, 1);
        let created = files.create_output(path, id, 1, CancellationToken::new());
        count(created.is_ok());
        if let Ok(mut output) = created {
            output.write_all(b"inside").unwrap();
            // Replacing `file` would end the swapping.
            if path != "file" {
                Output::File(output).publish().unwrap();
            }
        }
    }
    (succeeded, failed)
}

/// `SWAP_TRIES` is the number of rounds; the default only shows that the test works.
#[test]
fn no_link_that_is_swapped_in_leads_out() {
    let tries = std::env::var("SWAP_TRIES").map_or(500, |tries| tries.parse().unwrap());
    let (folder, files) = playground();
    let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
    fs::create_dir_all(root.join("door/door")).unwrap();
    fs::create_dir_all(outside.join("door")).unwrap();
    fs::write(root.join("door/file"), "inside").unwrap();
    fs::write(root.join("file"), "inside").unwrap();
    fs::write(outside.join("file"), "outside").unwrap();
    symlink(&outside, root.join("other-door")).unwrap();
    symlink("../outside/file", root.join("other-file")).unwrap();
    let swap = |name: &str| {
        let (name, other) = (root.join(name), root.join(format!("other-{name}")));
        renameat_with(CWD, name, CWD, other, RenameFlags::EXCHANGE)
    };
    if let Err(error) = swap("door") {
        return println!("skipped: this file system cannot swap two names: {error}");
    }
    let stop = AtomicBool::new(false);
    let (mut done, mut succeeded, mut failed) = (0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                swap("door").unwrap();
                swap("file").unwrap();
            }
        });
        let _stop = StopOnDrop(&stop);
        // On a busy machine it takes a while to see both outcomes.
        while done < tries || succeeded == 0 || failed == 0 {
            let (success, failure) = use_while_swapped(&files, &outside);
            (done, succeeded, failed) = (done + 1, succeeded + success, failed + failure);
        }
    });
    println!("{done} rounds: {succeeded} uses succeeded, {failed} were refused");
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"outside");
    let mut names: Vec<_> =
        fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["door", "file"]);
    assert_eq!(fs::read_dir(outside.join("door")).unwrap().count(), 0);
}

proptest! {
    #[test]
    fn no_path_leads_out_of_the_root(parts in prop::collection::vec(
        prop_oneof![
            Just(".."), Just("."), Just(""), Just("sub"), Just("in.txt"), Just("secret"),
            Just("root"), Just("up"), Just("\u{202e}"), Just("~"), Just("%2e%2e"),
        ],
        0..8,
    ), absolute: bool) {
        let (folder, files) = playground();
        symlink("..", folder.path().join("root/up")).unwrap();
        let mut path = parts.join("/");
        if absolute {
            path = format!("{}/root/{path}", folder.path().display());
        }
        if let Ok(mut file) = files.open_input(&path) {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            prop_assert_eq!(text, "inside");
        }
        if let Ok(key) = files.check_output(&path, OutputKind::File, None) {
            prop_assert!(key.starts_with(folder.path().canonicalize().unwrap().join("root")));
        }
    }
}

#[test]
fn an_output_folder_replaces_nothing_that_others_need() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().canonicalize().unwrap();
    for name in ["data/inner", "data/empty", "state/logs", "input"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let roots = [root.clone(), root.join("data/inner")];
    let files = Files::open(&roots, &[root.join("state/tasks.db")]).unwrap();
    let input = root.join("input/sub/in.txt");
    let check = |path: &str| files.check_output(path, OutputKind::Folder, Some(&input));
    for path in
        ["data", "data/inner", ".", "", "state", "state/", "input", "input/sub", "input/sub/in.txt"]
    {
        assert!(check(path).is_err(), "{path}");
    }
    for (path, inside) in
        [("data", "data/inner"), ("state", "state/tasks.db"), ("input", "input/sub/in.txt")]
    {
        let error = check(path).unwrap_err().to_string();
        assert!(error.contains(&root.join(inside).display().to_string()), "{error}");
    }
    for path in ["data/empty", "data/empty/", "input/out", "state/logs/new", "new/folder/"] {
        let key = check(path).unwrap();
        assert_eq!(key, root.join(path.trim_end_matches('/')));
    }
}
