//! Lists as tables and CSV, and the ways to name a task.

use serde_json::json;

use crate::cli::program::ask;
use crate::common::{Server, dummy, endless, tokenize};

#[tokio::test]
async fn a_list_shows_inputs_and_the_columns_that_are_asked_for() {
    let server = Server::start(&[]);
    server.write("in.txt", "some text");
    let mut body = tokenize("in.txt", "out.json");
    body["tags"] = json!({ "plate": "7" });
    let id = server.submit(body).await;
    server.wait_for(&id, "completed").await;
    let listed = ask(&server, &["list"]).with(0);
    let header: Vec<_> = listed.stdout.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["ID", "STATUS", "TYPE", "PROGRESS", "AGE", "INPUT", "MESSAGE"]);
    assert!(listed.stdout.contains(" in.txt "), "{listed}");
    let columns = "output,tags.plate,result.token_count,priority,error";
    let listed = ask(&server, &["list", "--columns", columns]).with(0);
    let row: Vec<_> = listed.stdout.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["out.json", "7", "2", "0"], "{listed}");
    let refused = ask(&server, &["list", "--columns", "id,colour"]).with(64);
    assert!(refused.stderr.contains("unknown column `colour`"), "{refused}");
}

#[tokio::test]
async fn nothing_is_cut_off_where_a_program_reads() {
    let server = Server::start(&[]);
    let name = format!("{}.txt", "absent".repeat(30));
    let id = server.submit(tokenize(&name, "out.json")).await;
    server.wait_for(&id, "failed").await;
    let listed = ask(&server, &["list"]).with(0);
    assert!(listed.stdout.contains(&name) && !listed.stdout.contains('…'), "{listed}");
    assert!(listed.stdout.contains(&id), "{listed}");
}

#[tokio::test]
async fn csv_has_whole_values_in_quotes_where_needed() {
    let server = Server::start(&[]);
    let mut body = endless();
    body["tags"] = json!({ "note": "a \"b\", c\nd" });
    let id = server.submit(body).await;
    server.until_running(&id).await;
    let args = ["list", "--format", "csv", "--columns", "id,status,tags.note,completed_at"];
    let listed = ask(&server, &args).with(0);
    let expected =
        format!("id,status,tags.note,completed_at\r\n{id},running,\"a \"\"b\"\", c\nd\",\r\n");
    assert_eq!(listed.stdout, expected);
}

#[tokio::test]
async fn the_last_digits_of_an_id_name_a_task() {
    let server = Server::start(&[]);
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
    let short = &id[id.len() - 8..];
    let shown = ask(&server, &["get", short, "--json"]).with(0);
    assert_eq!(shown.json()["task_id"], id.as_str());
    ask(&server, &["watch", short]).with(0);
    let again = ask(&server, &["retry", short]).with(0).id();
    assert_eq!(server.task(&again).await["retry_of"], id.as_str());
    let refused = ask(&server, &["cancel", short]).with(65);
    assert!(refused.stderr.contains("already completed"), "{refused}");
    let unknown = ask(&server, &["get", "00000000"]).with(65);
    assert!(unknown.stderr.contains("ends in 00000000"), "{unknown}");
    ask(&server, &["get", "0000"]).with(64);
}

#[tokio::test]
async fn a_filtered_retry_submits_what_has_none() {
    let server = Server::start(&["--max-running", "1", "--max-pending", "1"]);
    let mut body = tokenize("absent.txt", "out.json");
    body["tags"] = json!({ "run": "a" });
    let id = server.submit(body).await;
    server.wait_for(&id, "failed").await;
    let retry = ["retry", "--status", "failed", "--tag", "run=a"];
    let retried = ask(&server, &retry).with(0);
    assert_eq!(retried.stdout, "1 matched, 1 submitted again\n");
    let second = server.task(&id).await["retried_by"].as_str().unwrap().to_owned();
    server.wait_for(&second, "failed").await;
    let left = ask(&server, &["list", "--retried", "false", "--json"]).with(0).json();
    assert_eq!(left.as_array().unwrap().len(), 1);
    assert_eq!(left[0]["task_id"], second.as_str());

    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    server.submit(endless()).await;
    let full = ask(&server, &retry).with(75);
    assert!(full.stderr.contains("submitted 0 tasks"), "{full}");
    ask(&server, &["retry"]).with(64);
}

#[tokio::test]
async fn output_writes_the_file_of_a_task() {
    let server = Server::start(&[]);
    server.write("in.txt", "some text");
    let id = server.submit(tokenize("in.txt", "out.json")).await;
    server.wait_for(&id, "completed").await;
    let written = std::fs::read_to_string(server.folder().join("out.json")).unwrap();
    assert_eq!(ask(&server, &["output", &id]).with(0).stdout, written);
    ask(&server, &["output", &id[id.len() - 8..], "--to", "copy.json"]).with(0);
    assert_eq!(std::fs::read_to_string(server.folder().join("copy.json")).unwrap(), written);
    let refused = ask(&server, &["output", &id, "--to", "copy.json"]).with(73);
    assert!(refused.stderr.contains("copy.json"), "{refused}");
    let none = server.submit(dummy(0.0)).await;
    server.wait_for(&none, "completed").await;
    let refused = ask(&server, &["output", &none, "--to", "none.json"]).with(65);
    assert!(refused.stderr.contains("no output_file_path"), "{refused}");
    assert!(!server.folder().join("none.json").exists());
}

#[tokio::test]
async fn stats_and_health_ask_the_server() {
    let server = Server::start(&[]);
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
    let stats = ask(&server, &["stats"]).with(0);
    let completed = stats.stdout.lines().find(|line| line.starts_with("completed")).unwrap();
    assert_eq!(completed.split_whitespace().collect::<Vec<_>>(), ["completed", "1", "1"]);
    let json = ask(&server, &["stats", "--json"]).with(0).json();
    assert_eq!(json["counts"]["completed"], 1);
    ask(&server, &["health", "--url", &server.url("")]).with(0);
    ask(&server, &["health", "--url", "http://127.0.0.1:1"]).with(69);
}

#[tokio::test]
async fn watch_follows_what_matches_and_nothing_to_do_is_success() {
    let server = Server::start(&[]);
    let mut body = dummy(0.2);
    body["tags"] = json!({ "run": "a" });
    let (first, second) = (server.submit(body.clone()).await, server.submit(body).await);
    let watched = ask(&server, &["watch", "--tag", "run=a"]).with(0);
    for id in [first, second] {
        // A task may have ended before it was listed.
        server.wait_for(&id, "completed").await;
    }
    let none = ask(&server, &["watch", "--tag", "run=a"]).with(0);
    assert!(none.stderr.contains("nothing to watch"), "{none} after {watched}");
    assert_eq!(none.stdout, "");
    ask(&server, &["watch"]).with(64);
}

#[tokio::test]
async fn shells_get_scripts_that_complete_every_command() {
    let server = Server::start(&[]);
    for shell in ["bash", "zsh", "fish"] {
        let script = ask(&server, &["completions", shell]).with(0).stdout;
        for verb in ["submit", "retry", "stats", "completions"] {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
    }
    ask(&server, &["completions", "tcsh"]).with(64);
}
