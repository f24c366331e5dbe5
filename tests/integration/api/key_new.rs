//! `task-server key new`: one line in a file, one key on standard output.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use crate::common::run;

fn key_new(folder: &Path, args: &[&str]) -> Output {
    run(folder, &[&["key", "new"], args].concat(), &[])
}

/// Standard output and error of a successful call.
#[track_caller]
fn printed(output: Output) -> (String, String) {
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    (String::from_utf8(output.stdout).unwrap(), said)
}

/// Standard error of a refused call.
#[track_caller]
fn refused(output: Output) -> String {
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{said}");
    said
}

#[test]
fn the_key_alone_is_printed_and_its_hash_alone_is_kept() {
    let folder = TempDir::new().unwrap();
    let (key, said) = printed(key_new(folder.path(), &["--name", "alice"]));
    let secret = key.strip_prefix("ts_").unwrap().strip_suffix('\n').unwrap();
    assert!(secret.len() == 64 && secret.bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
    assert!(said.contains("--api-key-file keys") && said.contains("Authorization"), "{said}");
    assert!(!said.contains(secret), "{said}");

    let (other, _) = printed(key_new(folder.path(), &["--name", "bob", "--read-only"]));
    assert_ne!(key, other);
    let path = folder.path().join("keys");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Vec<_>> = text.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0][1..], ["alice", "read-write"]);
    assert_eq!(lines[1][1..], ["bob", "read-only"]);
    assert!(!text.contains(secret), "{text}");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_stands_in_the_file_stays_as_it_is() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ours");
    // The last line has no newline.
    let before = "# ours\nan old and plain key of ours";
    std::fs::write(&path, before).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let args = ["--name", "alice", "--file", "ours"];
    printed(key_new(folder.path(), &args));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with(&format!("{before}\nsha256:")), "{text}");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);

    let said = refused(key_new(folder.path(), &args));
    assert!(said.contains("alice") && said.contains("another name"), "{said}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn keys_that_are_made_at_the_same_time_are_all_kept() {
    let folder = TempDir::new().unwrap();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let name = format!("key-{number}");
            let folder = folder.path();
            scope.spawn(move || printed(key_new(folder, &["--name", &name])));
        }
    });
    let text = std::fs::read_to_string(folder.path().join("keys")).unwrap();
    assert_eq!(text.lines().count(), 8, "{text}");
}

#[test]
fn a_file_that_others_reach_is_warned_of() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keys");
    for (mode, warning) in
        [(0o644, "read by other users"), (0o620, "changed by other users"), (0o640, "")]
    {
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let (_, said) = printed(key_new(folder.path(), &["--name", "alice"]));
        assert!(said.contains(warning), "{said}");
        assert_eq!(said.contains("chmod 600"), !warning.is_empty(), "{said}");
    }
}

#[test]
fn where_the_keys_are_is_known_from_the_settings() {
    let folder = TempDir::new().unwrap();
    let path = |name| folder.path().join(name);
    std::fs::write(path("task-server.toml"), "api-key-file = 'stored'\n").unwrap();
    printed(key_new(folder.path(), &["--name", "alice"]));
    assert!(path("stored").exists() && !path("keys").exists());
    // Other settings in the environment do not interfere.
    let env = [("TASK_SERVER_API_KEY_FILE", "named"), ("TASK_SERVER_LISTEN", "127.0.0.1:1")];
    printed(run(folder.path(), &["key", "new", "--name", "alice"], &env));
    assert!(path("named").exists());
    std::fs::write(path("ours.toml"), "api-key-file = 'ours'\n").unwrap();
    let env = [("TASK_SERVER_CONFIG", "ours.toml")];
    printed(run(folder.path(), &["key", "new", "--name", "alice"], &env));
    printed(key_new(folder.path(), &["--name", "bob", "--config", "ours.toml"]));
    assert_eq!(std::fs::read_to_string(path("ours")).unwrap().lines().count(), 2);
}

#[test]
fn the_exit_code_says_what_is_wrong() {
    let folder = TempDir::new().unwrap();
    let path = |name| folder.path().join(name);
    printed(key_new(folder.path(), &["--name", "alice"]));
    std::fs::write(path("faulty"), "sha256:oops\n").unwrap();
    std::fs::write(path("other"), [0xff]).unwrap();
    for (args, code) in [
        (&["--name", "two words"][..], 64),
        (&["--name", "bob", "--config", "absent.toml"], 64),
        (&["--name", "bob", "--file", "faulty"], 65),
        (&["--name", "alice"], 73),
        (&["--name", "bob", "--file", "absent/keys"], 73),
        (&["--name", "bob", "--file", "."], 73),
        (&["--name", "bob", "--file", "other"], 74),
    ] {
        let ended = key_new(folder.path(), args);
        assert_eq!(ended.status.code(), Some(code), "{args:?}");
        refused(ended);
    }
}

#[test]
fn what_cannot_be_is_refused_in_a_sentence() {
    let folder = TempDir::new().unwrap();
    for (name, text) in [("faulty", "sha256:oops\n"), ("folder/none", "")] {
        let _ = std::fs::write(folder.path().join(name), text);
        let said = refused(key_new(folder.path(), &["--name", "alice", "--file", name]));
        assert!(said.contains(name) && said.lines().count() == 1, "{said}");
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("faulty")).unwrap(), "sha256:oops\n");
    for name in ["", "two words", "new\nline", &"x".repeat(65)] {
        let said = refused(key_new(folder.path(), &["--name", name]));
        assert!(said.contains("--name") && said.contains("64 letters"), "{said}");
    }
    assert!(!folder.path().join("keys").exists());
    let said = refused(run(folder.path(), &["--listen", "127.0.0.1:0", "key", "new"], &[]));
    assert!(!said.contains("listening"), "{said}");
}
