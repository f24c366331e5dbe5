//! Files that programs write.

use std::fs;

use serde_json::{Value, json};

use crate::common::Server;
use crate::outputs::program::{FILE, OPTIONAL_FILE, program};
use crate::outputs::server::{GO, crash, start};

/// Names in a folder, without those of the server.
pub(crate) fn names(server: &Server, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(server.folder().join(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> =
        names.filter(|name| !name.starts_with("tasks.db") && name != GO).collect();
    names.sort();
    names
}

/// Waits until the task waits for [`GO`].
pub(crate) async fn until_waiting(server: &Server, id: &str) {
    server.until(&format!("/tasks/{id}"), |task: &Value| task["message"] == "waiting").await;
}

#[tokio::test]
async fn a_program_writes_under_the_real_name_and_the_file_appears_at_the_end() {
    let server = start();
    let id = server.submit(program(FILE, "write wait", "new/out.json")).await;
    until_waiting(&server, &id).await;
    assert_eq!(names(&server, "new"), [format!(".{id}.1.part")]);
    server.write(GO, "");
    let task = server.wait_for(&id, "completed").await;
    let root = server.folder().canonicalize().unwrap();
    let place = root.join(format!("new/.{id}.1.part/out.json"));
    assert_eq!(task["result"]["place"], place.to_str().unwrap());
    assert_eq!(names(&server, "new"), ["out.json"]);
    let answer = server.get(&format!("/tasks/{id}/output")).await;
    assert_eq!((answer.status, &*answer.text), (200, "written"), "{answer}");
}

#[tokio::test]
async fn a_required_output_has_to_be_there_and_an_optional_one_does_not() {
    let server = start();
    let id = server.submit(program(FILE, "nothing", "out.json")).await;
    let task = server.wait_for(&id, "failed").await;
    assert_eq!(task["error"], "the program wrote no output to `out.json`");
    let id = server.submit(program(OPTIONAL_FILE, "litter", "out.json")).await;
    server.wait_for(&id, "completed").await;
    let answer = server.get(&format!("/tasks/{id}/output")).await;
    assert!(answer.error(404).contains("it is optional"), "{answer}");
    let id = server.submit(program(OPTIONAL_FILE, "write", "out.json")).await;
    server.wait_for(&id, "completed").await;
    assert_eq!(server.get(&format!("/tasks/{id}/output")).await.text, "written");
    assert_eq!(names(&server, "."), ["out.json"]);
}

#[tokio::test]
async fn something_else_in_place_of_a_file_is_refused() {
    let server = start();
    for (acts, found) in [("link", "a symbolic link"), ("make-folder", "a folder")] {
        let id = server.submit(program(FILE, acts, "sub/out.json")).await;
        let task = server.wait_for(&id, "failed").await;
        let expected =
            format!("the program left {found} as its output `sub/out.json`, expected a file");
        assert_eq!(task["error"], expected);
        assert_eq!(names(&server, "sub"), Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_a_program_leaves_beside_its_output_is_discarded_and_logged() {
    let server = start();
    let id = server.submit(program(FILE, "write litter", "out.json")).await;
    server.wait_for(&id, "completed").await;
    assert_eq!(names(&server, "."), ["out.json"]);
    server.until_logged(&["discarding", "litter", "out.json"]);
}

#[tokio::test]
async fn nothing_is_left_of_an_output_after_an_error_a_cancellation_and_a_crash() {
    let mut server = start();
    let failed = server.submit(program(FILE, "write litter fail", "out/failed")).await;
    server.wait_for(&failed, "failed").await;
    let cancelled = server.submit(program(FILE, "write litter wait", "out/cancelled")).await;
    until_waiting(&server, &cancelled).await;
    server.delete(&format!("/tasks/{cancelled}")).await;
    server.wait_for(&cancelled, "cancelled").await;
    assert_eq!(names(&server, "out"), Vec::<String>::new());
    let id = server.submit(program(FILE, "write litter wait", "out/out.json")).await;
    until_waiting(&server, &id).await;
    crash(&mut server);
    until_waiting(&server, &id).await;
    assert_eq!(names(&server, "out"), [format!(".{id}.2.part")]);
    server.write(GO, "");
    server.wait_for(&id, "completed").await;
    assert_eq!(names(&server, "out"), ["out.json"]);
}

#[tokio::test]
async fn a_program_is_told_where_its_input_is() {
    let server = start();
    server.write("in.txt", "some text");
    fs::create_dir(server.folder().join("data")).unwrap();
    std::os::unix::fs::symlink("data", server.folder().join("link")).unwrap();
    let root = server.folder().canonicalize().unwrap();
    let with_input = |input: &str| {
        let mut body = program(FILE, "write", "out.json");
        body["input_file_path"] = input.into();
        body
    };
    for (input, expected) in [("./in.txt", "in.txt"), ("data", "data"), ("link", "data")] {
        let id = server.submit(with_input(input)).await;
        let task = server.wait_for(&id, "completed").await;
        assert_eq!(task["result"]["input"], json!(root.join(expected)), "{input}");
    }
    fs::hard_link(root.join("tasks.db"), root.join("hard")).unwrap();
    for (input, expected) in [("absent", "No such file"), ("hard", "server's own files")] {
        let id = server.submit(with_input(input)).await;
        let task = server.wait_for(&id, "failed").await;
        assert!(task["error"].as_str().unwrap().contains(expected), "{task:#}");
    }
}
