//! Requests and output of each verb.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::program::{Ended, ask, ask_at};
use crate::cli::stub::{answering, response};
use crate::common::{self, Server, dummy, endless};

const QUICK: [&str; 5] = ["submit", "dummy_short", "-p", "duration=0", "-psteps=1"];

#[tokio::test]
async fn submit_prints_the_id_and_sends_every_option() {
    let server = Server::start(&[]);
    server.write("more.json", r#"{"duration": 9, "steps": 2}"#);
    let mut args = vec!["submit", "dummy_short", "--parameters", "@more.json", "-p", "duration=0"];
    args.extend(["--input", "in.txt", "--output", "out.txt", "--tag", "plate=7", "--tag", "a=b=c"]);
    args.extend(["--priority", "-5", "--timeout", "60.5", "--max-attempts", "3"]);
    args.extend(["--run-at", "2020-01-31T15:30:00Z"]);
    let id = ask(&server, &args).with(0).id();
    let task = server.wait_for(&id, "completed").await;
    assert_eq!(task["parameters"], json!({ "duration": 0, "steps": 2 }));
    let path = |name| server.folder().canonicalize().unwrap().join(name);
    assert_eq!(task["input_file_path"], json!(path("in.txt")));
    assert_eq!(task["output_file_path"], json!(path("out.txt")));
    assert_eq!(task["tags"], json!({ "plate": "7", "a": "b=c" }));
    assert_eq!(task["priority"], -5);
    assert_eq!(task["timeout_seconds"], 60.5);
    assert_eq!(task["max_attempts"], 3);
}

/// Submits a task with two relative paths from this folder.
async fn submit_relative(server: &Server, folder: &Path) -> (Ended, Value) {
    let mut args = QUICK.to_vec();
    args.extend(["--input", "./report.txt", "--output", "out.txt"]);
    let ended = ask_at(&server.url(""), folder, &args).with(0);
    let task = server.task(&ended.id()).await;
    (ended, json!([task["input_file_path"], task["output_file_path"]]))
}

#[tokio::test]
async fn relative_paths_start_in_the_shells_folder_where_the_server_may_use_it() {
    let server = Server::start(&[]);
    let root = server.folder().canonicalize().unwrap();
    let data = root.join("data");
    std::fs::create_dir(&data).unwrap();
    let (ended, paths) = submit_relative(&server, &data).await;
    assert_eq!(paths, json!([data.join("report.txt"), data.join("out.txt")]));
    assert!(ended.stderr.contains(&format!("input: {}/report.txt\n", data.display())), "{ended}");
    assert!(ended.stderr.contains(&format!("output: {}/out.txt\n", data.display())), "{ended}");
    // Outside the server's roots.
    let other = TempDir::new().unwrap();
    let (ended, paths) = submit_relative(&server, other.path()).await;
    assert_eq!(paths, json!(["./report.txt", "out.txt"]));
    let input = format!("input: {}/report.txt on the server\n", root.display());
    assert!(ended.stderr.contains(&input), "{ended}");
    // An absolute path is not printed again.
    let path = data.join("report.txt");
    let args = [&QUICK[..], &["--input", path.to_str().unwrap()]].concat();
    let ended = ask_at(&server.url(""), other.path(), &args).with(0);
    assert_eq!(ended.stderr, "");
}

#[test]
fn relative_paths_are_left_to_a_server_on_another_machine() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().canonicalize().unwrap();
    for roots in [
        json!({ "machine": "another", "roots": [root] }),
        json!({ "machine": null, "roots": [root] }),
        json!({ "detail": "Not Found" }),
    ] {
        let url = answering(move |request, body| {
            let answer = match request {
                "GET /roots HTTP/1.1" => roots.clone(),
                _ => json!({ "task_id": body, "message": "" }),
            };
            response("200 OK", "application/json", &answer.to_string())
        });
        let args = ["submit", "tokenize", "--input", "report.txt"];
        let sent = ask_at(&url, folder.path(), &args).with(0);
        let sent: Value = serde_json::from_str(&sent.stdout).unwrap();
        assert_eq!(sent["input_file_path"], "report.txt");
    }
}

#[test]
fn a_parameter_is_text_where_the_task_expects_text() {
    let folder = TempDir::new().unwrap();
    let url = answering(|request, body| {
        let answer = match request {
            "GET /task-types HTTP/1.1" => json!([{
                "task_type": "label",
                "description": "",
                "parameters": { "properties": { "name": { "type": "string" } } },
                "defaults": {},
                "input_file_path": "unused",
                "output_file_path": "unused",
            }]),
            _ => json!({ "task_id": body, "message": "" }),
        };
        response("200 OK", "application/json", &answer.to_string())
    });
    let args = ["submit", "label", "-p", "name=7", "-p", "other=7", "-p", "odd=7 km"];
    let sent = ask_at(&url, folder.path(), &args).with(0);
    let sent: Value = serde_json::from_str(&sent.stdout).unwrap();
    assert_eq!(sent["parameters"], json!({ "name": "7", "other": 7, "odd": "7 km" }));
    // Options that are not given are left to the server.
    assert_eq!(sent.as_object().unwrap().len(), 2, "{sent}");
}

#[tokio::test]
async fn the_same_key_is_the_same_task_and_a_dry_run_is_none() {
    let server = Server::start(&[]);
    let dry = ask(&server, &[&QUICK[..], &["--dry-run"]].concat()).with(0);
    assert!(dry.stdout.contains("The submission is valid"), "{dry}");
    assert!(dry.stdout.contains(r#"{"duration":0,"steps":1}"#), "{dry}");
    let dry = ask(&server, &[&QUICK[..], &["--dry-run", "--json"]].concat()).with(0);
    assert_eq!(dry.json()["parameters"]["steps"], 1);
    let keyed = [&QUICK[..], &["--idempotency-key", "k1"]].concat();
    let first = ask(&server, &keyed).with(0).id();
    assert_eq!(ask(&server, &[&keyed[..], &["--json"]].concat()).json()["task_id"], first);
    assert_eq!(server.get("/tasks").await.body.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn get_shows_a_task() {
    let server = Server::start(&[]);
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
    let shown = ask(&server, &["get", &id]).with(0);
    for line in [format!("task_id       {id}"), "status        completed".to_owned()] {
        assert!(shown.stdout.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    assert!(!shown.stdout.contains("null"), "{shown}");
    assert!(!shown.stdout.contains('\x1b'), "colours without a terminal: {shown}");
    assert_eq!(ask(&server, &["get", &id, "--json"]).with(0).json(), server.task(&id).await);
}

#[tokio::test]
async fn list_filters_and_pages() {
    let server = Server::start(&["--max-running", "1"]);
    assert_eq!(ask(&server, &["list", "--json"]).with(0).json(), json!([]));
    let running = server.submit(endless()).await;
    let mut tagged = endless();
    tagged["tags"] = json!({ "plate": "7" });
    let pending = server.submit(tagged).await;
    let listed = ask(&server, &["list"]).with(0);
    let rows: Vec<Vec<_>> =
        listed.stdout.lines().map(|row| row.split_whitespace().take(4).collect()).collect();
    assert_eq!(rows[0], ["ID", "STATUS", "TYPE", "PROGRESS"], "{listed}");
    assert_eq!(rows[1], [&pending, "pending", "dummy_very_long", "0%"], "{listed}");
    assert_eq!(rows[2][..3], [&running, "running", "dummy_very_long"], "{listed}");
    for filter in [
        &["--status", "pending"][..],
        &["--tag", "plate=7"],
        &["--status", "pending", "--type", "dummy_long,dummy_very_long"],
        &["--created-after", "2020-01-01T00:00:00Z", "--tag", "plate=7"],
        &["--limit", "1"],
    ] {
        let listed = ask(&server, &[&["list", "--json"], filter].concat()).with(0).json();
        assert_eq!(listed.as_array().unwrap().len(), 1, "{filter:?}: {listed:#}");
        assert_eq!(listed[0]["task_id"], *pending, "{filter:?}");
    }
    let more = ask(&server, &["list", "--limit", "1"]).with(0);
    assert!(more.stderr.contains("--all"), "{more}");
}

#[tokio::test]
async fn list_all_goes_through_every_page() {
    let server = Server::start(&["--max-running", "1"]);
    let mut blocking = endless();
    blocking["priority"] = json!(1);
    server.submit(blocking).await;
    for _ in 0..1000 {
        server.submit(dummy(0.0)).await;
    }
    let listed = ask(&server, &["list", "--all", "--json"]).with(0).json();
    assert_eq!(listed.as_array().unwrap().len(), 1001);
    let listed = ask(&server, &["list", "--all"]).with(0);
    assert_eq!(listed.stdout.lines().count(), 1002, "a header, and one line per task");
    // Like `task-server list --all | head`.
    let url = server.url("");
    let mut cut = common::piped(server.folder(), &["list", "--all"], &[("TASK_SERVER_URL", &url)]);
    drop(cut.stdout.take());
    let cut: Ended = cut.wait_with_output().unwrap().into();
    assert_eq!(cut.with(0).stderr, "");
}

#[tokio::test]
async fn list_goes_on_where_a_page_is_short() {
    let mut server = Server::start(&[]);
    let mut tagged = dummy(0.0);
    tagged["tags"] = json!({ "plate": "7", "well": "A1" });
    let id = server.submit(tagged).await;
    server.wait_for(&id, "completed").await;
    common::give_history(&mut server, 50_000).await;
    let filter = ["list", "--json", "--tag", "plate=7", "--tag", "well=A1"];
    let listed = ask(&server, &filter).with(0).json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed:#}");
    let listed = ask(&server, &["list", "--limit", "2500"]).with(0);
    assert_eq!(listed.stdout.lines().count(), 2501, "a header, and one line per task");
    assert!(listed.stderr.contains("--all"), "{}", listed.stderr);
}

#[tokio::test]
async fn cancel_takes_ids_or_filters() {
    let server = Server::start(&["--max-running", "1"]);
    let running = server.submit(endless()).await;
    let pending = server.submit(endless()).await;
    let cancelled = ask(&server, &["cancel", &pending]).with(0);
    assert_eq!(cancelled.stdout, format!("{pending} Task cancelled successfully\n"));
    let again = ask(&server, &["cancel", &pending, &running, "--json"]).with(65);
    assert!(again.stderr.contains("already cancelled"), "{again}");
    assert_eq!(again.json_lines()[0]["task_id"], *running, "the others stay cancelled");
    server.wait_for(&running, "cancelled").await;

    server.submit(endless()).await;
    server.submit(endless()).await;
    let all = ask(&server, &["cancel", "--type", "dummy_very_long", "--json"]).with(0);
    assert_eq!(all.json()["matched"], 2, "{all}");
    let none = ask(&server, &["cancel", "--tag", "plate=8"]).with(0);
    assert_eq!(none.stdout, "0 matched, 0 cancelled, 0 asked to stop\n");
    ask(&server, &["cancel"]).with(64);
    ask(&server, &["cancel", &running, "--status", "pending"]).with(64);
}

#[tokio::test]
async fn retry_prints_the_new_ids() {
    let server = Server::start(&[]);
    let first = server.submit(dummy(0.0)).await;
    let second = server.submit(dummy(0.0)).await;
    server.wait_for(&first, "completed").await;
    server.wait_for(&second, "completed").await;
    let retried = ask(&server, &["retry", &first, &second]).with(0);
    let ids: Vec<_> = retried.stdout.lines().collect();
    assert_eq!(server.task(ids[0]).await["retry_of"], *first);
    assert_eq!(server.task(ids[1]).await["retry_of"], *second);
}

#[tokio::test]
async fn types_and_openapi_tell_what_the_server_does() {
    let server = Server::start(&[]);
    let types = ask(&server, &["types"]).with(0);
    assert!(types.stdout.lines().any(|line| line.starts_with("tokenize ")), "{types}");
    assert_eq!(ask(&server, &["types", "--json"]).json(), server.get("/task-types").await.body);
    let one = ask(&server, &["types", "dummy_short"]).with(0);
    assert!(one.stdout.lines().any(|line| line.starts_with("duration ")), "{one}");
    let one = ask(&server, &["types", "dummy_short", "--json"]).with(0).json();
    assert_eq!(one["defaults"], json!({ "duration": 5, "steps": 5 }));
    let unknown = ask(&server, &["types", "dummy_shirt"]).with(64);
    assert!(unknown.stderr.contains("did you mean `dummy_short`?"), "{unknown}");
    let openapi = ask(&server, &["openapi"]).with(0).json();
    assert!(openapi["paths"]["/tasks"].is_object());
}

#[tokio::test]
async fn nothing_that_a_terminal_obeys_is_printed() {
    let server = Server::start(&[]);
    let refused = ask(&server, &["submit", "\x1b[31mred\u{9b}"]).with(64);
    assert!(refused.stderr.contains(r"\u{1b}[31mred\u{9b}"), "{refused}");
    let mut body = dummy(0.0);
    body["tags"] = json!({ "note": "\u{1b}[2J\u{9b}2J\u{202e}\n" });
    body["input_file_path"] = json!("\u{1b}]0;title\u{7}");
    let id = server.submit(body).await;
    let shown = ask(&server, &["get", &id]).with(0);
    let listed = ask(&server, &["list"]).with(0);
    let json = ask(&server, &["get", &id, "--json"]).with(0);
    for ended in [&refused, &shown, &listed, &json] {
        let said = format!("{}{}", ended.stdout, ended.stderr);
        let obeyed = |c: char| c != '\n' && c.is_control() || c == '\u{202e}';
        assert!(!said.contains(obeyed), "{said:?}");
    }
    assert_eq!(json.json()["tags"]["note"], "\u{1b}[2J\u{9b}2J\u{202e}\n");
}

#[test]
fn an_answer_that_makes_no_sense_is_quoted_without_harm() {
    let folder = TempDir::new().unwrap();
    let id = "01a20732-f5d8-72b0-90ab-6e8c0dbec33e";
    let mut task = json!({
        "task_id": id,
        "task_type": "dummy_short",
        "status": "running",
        "progress": 50,
        "message": "",
        "created_at": "\u{1b}]0;title\u{7}\ntask-server: all is well",
    });
    let url = answering({
        let task = task.to_string();
        move |request, _| {
            let body = if request.contains("/tasks?") { format!("[{task}]") } else { task.clone() };
            response("200 OK", "application/json", &body)
        }
    });
    for args in [&["get", id][..], &["list"], &["watch", id]] {
        let ended = ask_at(&url, folder.path(), args).with(76);
        assert!(ended.stderr.contains(r"\u{1b}]0;title\u{7}\ntask-server: all"), "{ended}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended}");
    }
    // The parser also quotes from a response of a different shape.
    task["task_id"] = task["created_at"].take();
    let url = answering(move |_, _| {
        let counts = json!({ "matched": task["task_id"] });
        response("200 OK", "application/json", &counts.to_string())
    });
    let ended = ask_at(&url, folder.path(), &["cancel", "--status", "pending"]).with(76);
    assert!(!ended.stderr.trim_end().contains(char::is_control), "{ended}");
}

#[test]
fn types_tells_required_parameters_from_optional_ones() {
    let folder = TempDir::new().unwrap();
    let url = answering(|_, _| {
        let types = json!([{
            "task_type": "label",
            "description": "Labels a plate.",
            "parameters": {
                "properties": { "name": {}, "note": {}, "count": {} },
                "required": ["name", "count"],
            },
            "defaults": { "count": 1 },
            "input_file_path": "unused",
            "output_file_path": "unused",
        }]);
        response("200 OK", "application/json", &types.to_string())
    });
    let told = ask_at(&url, folder.path(), &["types", "label"]).with(0);
    for (name, default) in [("name", "required"), ("note", "optional"), ("count", "1")] {
        let line = told.stdout.lines().find(|line| line.starts_with(name)).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some(default), "{told}");
    }
}
