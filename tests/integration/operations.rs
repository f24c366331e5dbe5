//! docs/OPERATIONS.md and the files beside it: their settings exist, and their commands work.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::blocks::fenced_blocks;
use crate::common::{Server, dummy, refusal, run};
use reqwest::Method;
use tempfile::TempDir;

const DOCUMENT: &str = include_str!("../../docs/OPERATIONS.md");
const CONTAINERFILE: &str = include_str!("../../docs/operations/Containerfile");
const IGNORED: &str = include_str!("../../docs/operations/Containerfile.dockerignore");
const UNIT: &str = include_str!("../../docs/operations/task-server.service");

/// Block of the document with this file.
fn file(title: &str) -> String {
    let found = fenced_blocks(DOCUMENT).into_iter().find(|block| block.title == Some(title));
    found.unwrap_or_else(|| panic!("the document has no {title}")).text
}

/// Runs a tool in this folder. Skips the test and returns `None` if it is not installed.
fn tool(name: &str, args: &[&str], folder: &Path) -> Option<Output> {
    match Command::new(name).args(args).current_dir(folder).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            crate::common::skips::skip(&format!("{name} is not installed"));
            None
        }
        output => Some(output.unwrap()),
    }
}

/// Value of a setting of the systemd unit.
fn of_unit(name: &str) -> &'static str {
    let found = UNIT.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("the unit sets no {name}"))
}

/// Bracketed arguments of each occurrence of an instruction in the Containerfile.
fn of_container(instruction: &str) -> Vec<Vec<String>> {
    let lines = CONTAINERFILE.lines().filter_map(|line| line.trim().strip_prefix(instruction));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn the_container_serves_those_who_have_a_key() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().to_str().unwrap().to_owned();
    let here = |text: &str| text.replace("/data", &data);
    let settings = CONTAINERFILE.split_once("ENV ").unwrap().1.split_once("\nHEALTHCHECK").unwrap();
    let settings = here(settings.0).replace('\\', "");
    let env: Vec<_> = settings.split_whitespace().map(|one| one.split_once('=').unwrap()).collect();
    assert!(env.contains(&("TASK_SERVER_LISTEN", "0.0.0.0:8000")), "{env:?}");
    assert_eq!(of_container("ENTRYPOINT"), [["/usr/local/bin/task-server"]]);
    let [check, flags] = of_container("CMD").try_into().unwrap();
    assert_eq!(check, ["/usr/local/bin/task-server", "health"]);

    let flags: Vec<_> = flags.iter().map(|flag| here(flag)).collect();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let any_port = ["--listen", "0.0.0.0:0"];
    let (code, said) = refusal(folder.path(), &[&any_port, &flags[..]].concat(), &env);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("keys"), "{said}");

    let line = DOCUMENT.lines().find(|line| line.contains("task-server key new")).unwrap();
    let line = line.split_once("task-server ").unwrap().1.split('#').next().unwrap();
    let made = run(folder.path(), &line.split_whitespace().collect::<Vec<_>>(), &env);
    let key = String::from_utf8(made.stdout).unwrap();
    let server = Server::start_in(folder, &flags, &env);
    let submit =
        |key: &str| server.request(Method::POST, "/tasks").bearer_auth(key).json(&dummy(0.0));
    assert_eq!(server.send(submit("guessed")).await.status, 401);
    assert_eq!(server.send(submit(key.trim())).await.status, 200);

    let port = server.address().rsplit_once(':').unwrap().1;
    let listen = format!("0.0.0.0:{port}");
    let env = [("TASK_SERVER_LISTEN", &*listen)];
    let healthy = run(server.folder(), &["health"], &env);
    assert!(healthy.status.success(), "{healthy:?}");
}

#[test]
fn a_server_that_is_not_there_is_not_healthy() {
    let folder = TempDir::new().unwrap();
    let asked = run(folder.path(), &["health", "--listen", "127.0.0.1:1"], &[]);
    assert_eq!(asked.status.code(), Some(1));
    let said = String::from_utf8(asked.stderr).unwrap();
    assert!(said.contains("cannot reach http://127.0.0.1:1"), "{said}");
    let asked = run(folder.path(), &["health", "--listen", "nonsense"], &[]);
    let said = String::from_utf8(asked.stderr).unwrap();
    assert!(said.contains("`nonsense`: expected HOST:PORT"), "{said}");
}

#[tokio::test]
async fn a_server_of_something_else_is_not_healthy() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let other = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 256];
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await.unwrap();
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
    });
    let folder = TempDir::new().unwrap();
    let asked = tokio::task::spawn_blocking(move || {
        run(folder.path(), &["health", "--listen", &address], &[])
    });
    let asked = asked.await.unwrap();
    other.await.unwrap();
    assert_eq!(asked.status.code(), Some(1));
    let said = String::from_utf8(asked.stderr).unwrap();
    assert!(said.contains("503 Service Unavailable"), "{said}");
}

#[test]
fn the_container_is_built_from_what_cargo_asks_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept: Vec<_> = IGNORED.lines().filter_map(|line| line.strip_prefix('!')).collect();
    for path in &kept {
        assert!(root.join(path).exists(), "there is no {path}");
    }
    let manifest: toml::Table =
        fs::read_to_string(root.join("Cargo.toml")).unwrap().parse().unwrap();
    let targets = ["bin", "bench", "example"].iter().flat_map(|kind| manifest[*kind].as_array());
    for target in targets.flatten() {
        let path = target["path"].as_str().unwrap();
        let copied = kept.iter().any(|kept| path == *kept || path.starts_with(&format!("{kept}/")));
        assert!(copied, "{path} is not copied, but cargo needs it");
    }
    let rust = manifest["package"]["rust-version"].as_str().unwrap();
    assert!(
        CONTAINERFILE.contains(&format!("rust:{rust}-")),
        "the image has a different Rust version"
    );
}

#[tokio::test]
async fn the_service_starts_with_the_settings_of_the_document() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_str().unwrap();
    let settings = file("task-server.toml").replace("/var/lib/task-server", path);
    fs::write(folder.path().join("settings.toml"), settings).unwrap();
    let command = of_unit("ExecStart").strip_prefix("/usr/local/bin/task-server ").unwrap();
    let command = command.replace("/etc/task-server/task-server.toml", "settings.toml");
    let server = Server::start_in(folder, &command.split(' ').collect::<Vec<_>>(), &[]);
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;

    let grace =
        include_str!("../../README.md").split_once("TASK_SERVER_SHUTDOWN_GRACE` | `").unwrap().1;
    let grace: u32 = grace.split_once("s`").unwrap().0.parse().unwrap();
    assert!(of_unit("TimeoutStopSec").parse::<u32>().unwrap() > grace);
}

#[test]
fn systemd_understands_the_unit() {
    let folder = TempDir::new().unwrap();
    let unit = UNIT.replace("/usr/local/bin/task-server", env!("CARGO_BIN_EXE_task-server"));
    fs::write(folder.path().join("task-server.service"), unit).unwrap();
    let args = ["verify", "--man=no", "./task-server.service"];
    let Some(said) = tool("systemd-analyze", &args, folder.path()) else { return };
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let about_it: Vec<_> = said.lines().filter(|line| line.contains("task-server")).collect();
    assert!(about_it.is_empty(), "{said}");
}

#[tokio::test]
async fn the_alerts_ask_for_metrics_that_there_are() {
    let server = Server::start(&[]);
    let metrics = server.get("/metrics").await.text;
    let alerts = file("alerts.yml");
    let words = [alerts.as_str(), DOCUMENT].join("\n");
    let words = words.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let named: Vec<_> = words.filter(|word| word.starts_with("task_server_")).collect();
    assert!(named.len() > 5, "{named:?}");
    for name in named {
        let metric = name.strip_suffix("_total").unwrap_or(name);
        assert!(
            metrics.contains(&format!("# TYPE {metric} ")),
            "{name} is not a metric:\n{metrics}"
        );
    }
    server.write("alerts.yml", alerts);
    server.write("prometheus.yml", file("prometheus.yml"));
    let checks = [["check", "rules", "alerts.yml"], ["check", "config", "--syntax-only"]];
    for args in checks {
        let args = if args[1] == "config" {
            [&args[..], &["prometheus.yml"]].concat()
        } else {
            args.to_vec()
        };
        let Some(said) = tool("promtool", &args, server.folder()) else { return };
        assert!(said.status.success(), "{said:?}");
    }
}

#[tokio::test]
async fn a_backup_of_a_running_server_is_whole() {
    let server = Server::start(&[]);
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
    let script = fenced_blocks(DOCUMENT).into_iter().find(|block| block.language == "bash");
    let script =
        format!("set -eu\ncommand -v sqlite3 > /dev/null || exit 127\n{}", script.unwrap().text);
    let Some(said) = tool("sh", &["-c", &script], server.folder()) else { return };
    if said.status.code() == Some(127) {
        return crate::common::skips::skip("sqlite3 is not installed");
    }
    assert_eq!(String::from_utf8_lossy(&said.stdout), "ok\n", "{said:?}");

    let restored = TempDir::new().unwrap();
    fs::copy(server.folder().join("tasks-backup.db"), restored.path().join("tasks.db")).unwrap();
    let restored = Server::start_in(restored, &[], &[]);
    assert_eq!(restored.task(&id).await["status"], "completed");
}
