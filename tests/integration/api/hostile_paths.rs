//! Paths that lead out of the roots or to something other than a regular file.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::common::{Server, tokenize};

/// Its length distinguishes it from all readable files.
const SECRET: &str = "the secret, 31 characters long.";

/// Starts a server whose only root lies among forbidden files.
fn walled_server() -> Server {
    let folder = TempDir::new().unwrap();
    for name in ["root/sub", "root-evil", "state"] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    for name in ["secret.txt", "root-evil/secret.txt", "state/secret.txt"] {
        fs::write(folder.path().join(name), SECRET).unwrap();
    }
    fs::write(folder.path().join("root/in.txt"), "some text").unwrap();
    Server::start_in(folder, &["--root", "root", "--database", "state/tasks.db"], &[])
}

/// Path and content of everything in a folder except the root and the state.
fn outside(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            match path.is_dir() {
                _ if name == "root" || name.starts_with("tasks.db") => {}
                true => folders.push(path),
                false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
            }
        }
    }
    found
}

/// Paths that lead out of the root.
fn escapes(folder: &Path) -> Vec<String> {
    let root = folder.join("root").display().to_string();
    let mut paths: Vec<String> = [
        "..",
        "../",
        "/",
        "//",
        "../secret.txt",
        "./../secret.txt",
        "sub/../../secret.txt",
        "sub//../..//secret.txt",
        "in.txt/../../secret.txt",
        "absent/../../secret.txt",
        "../root-evil/secret.txt",
        "../state/tasks.db",
        "../../../../../../../../../../../../etc/passwd",
        "/etc/passwd",
        "//etc/passwd",
        "///etc///passwd",
        "/./etc/passwd",
        "/etc/../etc/passwd",
        "/proc/self/root/etc/passwd",
        "/proc/self/cwd/secret.txt",
        "/proc/self/environ",
        "/proc/self/fd/0",
        "/dev/null",
        "/dev/zero",
        "/dev/stdin",
        "/dev/fd/1",
        "/dev/../etc/shadow",
    ]
    .map(str::to_owned)
    .into();
    paths.push(format!("{root}-evil/secret.txt"));
    paths.push(format!("{root}/../secret.txt"));
    paths.push(format!("/proc/self/root{root}/in.txt"));
    paths.push(folder.join("secret.txt").display().to_string());
    paths
}

/// Paths that another file system, web server or editor would read as `..`, truncate, or fail on.
/// Here they are odd names below the root, or do not exist.
fn oddities() -> Vec<String> {
    let mut paths: Vec<String> = [
        "",
        " ",
        ".",
        "./",
        "in.txt/",
        "in.txt/.",
        "in.txt/..",
        "sub/",
        "sub/..",
        "~",
        "~root/secret.txt",
        "$HOME/secret.txt",
        "`id`",
        "$(id)",
        "| id",
        "-rf",
        "file:///etc/passwd",
        "http://localhost/secret.txt",
        "%2e%2e/secret.txt",
        "%2e%2e%2fsecret.txt",
        "..%2fsecret.txt",
        "..%c0%afsecret.txt",
        "..%00/secret.txt",
        "..\\secret.txt",
        "..\\..\\secret.txt",
        "C:\\secret.txt",
        "\\\\server\\share\\secret.txt",
        "in.txt\0",
        "in.txt\0.png",
        "\0",
        "..\0/secret.txt",
        "..\n/secret.txt",
        "../secret.txt\n\0",
        ".. /secret.txt",
        ".../secret.txt",
        "..../secret.txt",
        "..;/secret.txt",
        "\u{ff0e}\u{ff0e}/secret.txt",
        "\u{2025}/secret.txt",
        "\u{2024}\u{2024}/secret.txt",
        "..\u{2215}secret.txt",
        "..\u{ff0f}secret.txt",
        "\u{202e}txt.terces/..",
        "\u{feff}../secret.txt",
        "\u{200b}../secret.txt",
        "\u{1b}[2J",
        "\u{7f}\u{80}\u{9b}",
        "\r\nSet-Cookie: a=b",
        ".part",
        ".01a20732-f200-71ab-9765-8f3e7d9d31d8.1.part",
        "sub/.01a20732-f200-71ab-9765-8f3e7d9d31d8.1.part",
    ]
    .map(str::to_owned)
    .into();
    paths.push("x".repeat(255));
    paths.push("x".repeat(256));
    paths.push("x/".repeat(2048));
    paths.push("../".repeat(1365));
    paths.push(format!("{}in.txt", "sub/../".repeat(500)));
    paths.push("\u{1f600}".repeat(1024));
    paths.push("x".repeat(4097));
    paths
}

#[tokio::test]
async fn no_path_leads_out_of_the_root() {
    let server = walled_server();
    let before = outside(server.folder());
    for path in escapes(server.folder()) {
        for (input, output) in [(path.as_str(), "out.json"), ("in.txt", &path)] {
            let fault = server.post("/tasks", &tokenize(input, output)).await.only_fault();
            assert!(fault.contains("--root ") || fault.contains("folder"), "{path:?}: {fault}");
        }
    }
    assert_eq!(outside(server.folder()), before);
}

#[tokio::test]
async fn odd_paths_stay_below_the_root() {
    let server = walled_server();
    let before = outside(server.folder());
    for (number, path) in oddities().iter().enumerate() {
        for (input, output) in [(path.as_str(), &*format!("out-{number}")), ("in.txt", path)] {
            let answer = server.post("/tasks", &tokenize(input, output)).await;
            if answer.status == 422 {
                assert!(answer.faults()[0].contains("file_path"), "{path:?}: {answer}");
                continue;
            }
            assert_eq!(answer.status, 200, "{path:?}: {answer}");
            let id = answer.body["task_id"].as_str().unwrap();
            let task = server.get(&format!("/tasks/{id}?wait=60")).await.body;
            assert!(task["completed_at"].is_string(), "{path:?}: {task:#}");
            assert_eq!(task["input_file_path"], input);
            assert_eq!(task["output_file_path"], output);
            assert_ne!(task["result"]["char_count"], SECRET.len(), "{path:?}: {task:#}");
        }
    }
    assert_eq!(outside(server.folder()), before);
}

#[tokio::test]
async fn the_name_of_an_unfinished_output_is_not_for_clients() {
    let server = walled_server();
    let running = server.submit(crate::common::endless()).await;
    for name in [format!(".{running}.1.part"), format!("sub/.{running}.2.part")] {
        let fault = server.post("/tasks", &tokenize("in.txt", &name)).await.only_fault();
        assert!(fault.contains("unfinished outputs"), "{fault}");
    }
}

/// Creates a device; returns false without the necessary privileges.
fn make_device(path: &Path) -> bool {
    let made = Command::new("mknod").arg(path).args(["c", "1", "5"]).status();
    let made = made.is_ok_and(|status| status.success());
    if !made {
        crate::common::skips::skip("only root can create a device");
    }
    made
}

#[tokio::test]
async fn pipes_sockets_and_devices_are_refused_and_hold_nobody_up() {
    let server = walled_server();
    let root = server.folder().join("root");
    assert!(Command::new("mkfifo").arg(root.join("fifo")).status().unwrap().success());
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    symlink("fifo", root.join("fifo-link")).unwrap();
    let mut names = vec!["fifo", "socket", "fifo-link"];
    if make_device(&root.join("device")) {
        names.push("device");
    }
    for name in names {
        for task_type in ["tokenize", "image_process"] {
            let mut body = tokenize(name, "out.json");
            body["task_type"] = task_type.into();
            if task_type == "image_process" {
                body["parameters"] = serde_json::json!({});
            }
            let id = server.submit(body).await;
            let task = server.wait_for(&id, "failed").await;
            assert!(task["error"].as_str().unwrap().contains(name), "{task:#}");
        }
        // A link at the output path is replaced, whatever its target.
        if name != "fifo-link" {
            let fault = server.post("/tasks", &tokenize("in.txt", name)).await.only_fault();
            assert!(fault.contains("not a regular file"), "{fault}");
        }
    }
    for (link, target) in [("zero", "/dev/zero"), ("tty", "/dev/tty"), ("fd", "/proc/self/fd/0")] {
        symlink(target, root.join(link)).unwrap();
        let fault = server.post("/tasks", &tokenize(link, "out.json")).await.only_fault();
        assert!(fault.contains("file_path"), "{fault}");
    }
}

#[tokio::test]
async fn the_servers_files_are_neither_read_nor_written_under_any_name() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("keys"), "0123456789abcdef0123456789abcdef\n").unwrap();
    fs::write(folder.path().join("conf.toml"), "api-key-file = 'keys'\n").unwrap();
    fs::write(folder.path().join("in.txt"), "some text").unwrap();
    let server = Server::start_in(folder, &["--config", "conf.toml"], &[]);
    let root = server.folder();
    fs::create_dir(root.join("sub")).unwrap();
    symlink(".", root.join("here")).unwrap();
    let names = ["tasks.db", "tasks.db-wal", "tasks.db-shm", "tasks.db.lock", "keys", "conf.toml"];
    let before = ["keys", "conf.toml"].map(|name| fs::read(root.join(name)).unwrap());
    for name in names {
        assert!(root.join(name).exists(), "{name}");
        fs::hard_link(root.join(name), root.join(format!("hard-{name}"))).unwrap();
        fs::hard_link(root.join(name), root.join(format!("sub/hard-{name}"))).unwrap();
        symlink(name, root.join(format!("soft-{name}"))).unwrap();
        symlink(format!("hard-{name}"), root.join(format!("soft-hard-{name}"))).unwrap();
        for path in [
            name.to_owned(),
            format!("./{name}"),
            format!("sub/../{name}"),
            format!("here/{name}"),
            format!("here/here/sub/../{name}"),
            format!("hard-{name}"),
            format!("sub/hard-{name}"),
            format!("soft-{name}"),
            root.join(name).display().to_string(),
            root.canonicalize().unwrap().join(name).display().to_string(),
        ] {
            let send = |input: &str, output: &str| {
                let request = server.request(reqwest::Method::POST, "/tasks");
                let request = request.bearer_auth("0123456789abcdef0123456789abcdef");
                request.json(&tokenize(input, output))
            };
            let fault = server.send(send("in.txt", &path)).await.only_fault();
            assert!(fault.contains("server's own files"), "{path} as output: {fault}");
            let answer = server.send(send(&path, "out.json")).await;
            if answer.status == 422 {
                assert!(answer.only_fault().contains("server's own files"), "{path}: {answer}");
                continue;
            }
            // A hard link as input is detected when it is opened.
            let id = answer.body["task_id"].as_str().unwrap();
            let request = server.request(reqwest::Method::GET, &format!("/tasks/{id}?wait=60"));
            let request = request.bearer_auth("0123456789abcdef0123456789abcdef");
            let task = server.send(request).await.body;
            assert_eq!(task["status"], "failed", "{path}: {task:#}");
            let error = task["error"].as_str().unwrap();
            assert!(error.contains("server's own files"), "{path}: {error}");
        }
    }
    assert_eq!(["keys", "conf.toml"].map(|name| fs::read(root.join(name)).unwrap()), before);
}
