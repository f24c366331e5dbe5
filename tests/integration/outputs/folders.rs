//! Folders that programs write.

use std::fs;
use std::os::unix::fs::symlink;

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::Server;
use crate::outputs::files::{names, until_waiting};
use crate::outputs::program::{FOLDER, OPTIONAL_FOLDER, program};
use crate::outputs::server::{GO, crash, start};

async fn run(server: &Server, task_type: &str, acts: &str, output: &str) -> String {
    let id = server.submit(program(task_type, acts, output)).await;
    server.wait_for(&id, "completed").await;
    id
}

#[tokio::test]
async fn a_folder_appears_whole_and_each_of_its_files_can_be_read() {
    let server = start();
    server.write("in.txt", "outside of the output");
    let id = run(&server, FOLDER, "write litter close", "new/out/").await;
    assert_eq!(names(&server, "new"), ["out"]);
    let marker = fs::read_to_string(server.folder().join("new/out/.task-server.json")).unwrap();
    let marker: Value = serde_json::from_str(&marker).unwrap();
    assert_eq!(marker, json!({ "task_id": id, "task_type": FOLDER }));

    let path = format!("/tasks/{id}/output");
    let list = server.get(&path).await;
    assert_eq!(list.header("content-location"), format!("{path}/"));
    let expected = json!([
        { "path": "b.json", "bytes": 2 },
        { "path": "sub.txt", "bytes": 10 },
        { "path": "sub/.hidden", "bytes": 0 },
        { "path": "sub/a b.txt", "bytes": 10 },
    ]);
    assert_eq!(list.body, expected, "{list}");
    for name in ["sub/a%20b.txt", "sub%2Fa%20b.txt", "sub/link"] {
        let file = server.get(&format!("{path}/{name}")).await;
        assert_eq!((file.status, &*file.text), (200, "0123456789"), "{name}: {file}");
    }
    let file = server.request(Method::GET, &format!("{path}/sub/a%20b.txt"));
    let part = server.send(file.header("range", "bytes=2-4")).await;
    assert_eq!((part.status, &*part.text), (206, "234"), "{part}");
    assert_eq!(part.header("content-type"), "text/plain; charset=utf-8");
    for name in ["absent", "sub", "absolute", "up", "%2e%2e/%2e%2e/in.txt", "..%2Fin.txt", "%00"] {
        let file = server.get(&format!("{path}/{name}")).await;
        assert!(!file.error(404).is_empty(), "{name}: {file}");
        assert!(!file.text.contains("outside of"), "{name}: {file}");
    }
}

#[tokio::test]
async fn a_long_list_has_pages() {
    let server = start();
    let id = run(&server, FOLDER, "write-many", "out").await;
    let first = server.get(&format!("/tasks/{id}/output")).await;
    assert_eq!(first.body.as_array().unwrap().len(), 1000);
    let next = first.next_page().unwrap().to_owned();
    assert_eq!(next, format!("/tasks/{id}/output?after=0999"));
    let second = server.get(&next).await;
    assert_eq!(second.body.as_array().unwrap().len(), 200, "{second}");
    assert_eq!((&second.body[0]["path"], second.next_page()), (&json!("1000"), None));
}

#[tokio::test]
async fn a_folder_replaces_the_one_of_an_earlier_task() {
    let server = start();
    run(&server, FOLDER, "write", "out").await;
    let id = run(&server, FOLDER, "write-less", "out").await;
    assert_eq!(names(&server, "out"), [".task-server.json", "only"]);
    assert_eq!(names(&server, "."), ["out"]);
    assert!(!server.log().contains("discarding"), "{}", server.log());
    let list = server.get(&format!("/tasks/{id}/output")).await;
    assert_eq!(list.body, json!([{ "path": "only", "bytes": 3 }]));
    // An earlier output that stays as it was.
    let id = server.submit(program(FOLDER, "write fail", "out")).await;
    server.wait_for(&id, "failed").await;
    assert_eq!(names(&server, "out"), [".task-server.json", "only"]);
}

#[tokio::test]
async fn a_folder_of_the_user_is_not_touched() {
    let server = start();
    for folder in ["mine", "empty", "later"] {
        fs::create_dir(server.folder().join(folder)).unwrap();
    }
    server.write("mine/precious", "kept");
    server.write("file", "kept");
    symlink("mine", server.folder().join("link")).unwrap();
    for (output, expected) in
        [("mine", "no task has made"), ("file", "not a folder"), ("link", "not a folder")]
    {
        let fault = server.post("/tasks", &program(FOLDER, "write", output)).await.only_fault();
        assert!(fault.contains("body.output_file_path") && fault.contains(expected), "{fault}");
    }
    run(&server, FOLDER, "write", "empty").await;
    let id = server.submit(program(FOLDER, "write wait", "later")).await;
    until_waiting(&server, &id).await;
    server.write("later/precious", "kept");
    server.write(GO, "");
    let task = server.wait_for(&id, "failed").await;
    let error = task["error"].as_str().unwrap();
    assert!(error.starts_with("cannot replace `later`: no task has made"), "{error}");
    assert_eq!(
        (names(&server, "mine"), names(&server, "later")),
        ([(); 1].map(|()| "precious".to_owned()).to_vec(), vec!["precious".to_owned()])
    );
    assert_eq!(names(&server, "."), ["empty", "file", "later", "link", "mine"]);
}

#[tokio::test]
async fn a_folder_contains_neither_its_input_nor_a_root_nor_the_servers_files() {
    let server = start();
    fs::create_dir(server.folder().join("data")).unwrap();
    server.write("data/in.txt", "some text");
    for (output, inside) in [("data", "data/in.txt"), (".", "."), ("data/in.txt", "the input")] {
        let mut body = program(FOLDER, "write", output);
        body["input_file_path"] = "data/in.txt".into();
        let fault = server.post("/tasks", &body).await.only_fault();
        assert!(fault.contains("body.output_file_path"), "{fault}");
        let expected = ["would replace", "not a folder", "no task has made"];
        assert!(expected.iter().any(|text| fault.contains(text)), "{output} {inside}: {fault}");
    }
    for output in ["data/.task-server.json", ".task-server.json/out"] {
        let fault = server.post("/tasks", &program(FOLDER, "write", output)).await.only_fault();
        assert!(fault.contains("reserved"), "{fault}");
    }
}

#[tokio::test]
async fn a_missing_or_unexpected_folder_is_explained() {
    let server = start();
    for (acts, expected) in [
        ("remove", "the program wrote no output to `out`"),
        ("remove make-file", "the program left a file as its output `out`, expected a folder"),
        ("remove link", "the program left a symbolic link as its output `out`, expected a folder"),
    ] {
        let id = server.submit(program(FOLDER, acts, "out")).await;
        assert_eq!(server.wait_for(&id, "failed").await["error"], expected);
    }
    for acts in ["remove", "nothing"] {
        let id = run(&server, OPTIONAL_FOLDER, acts, "out").await;
        let answer = server.get(&format!("/tasks/{id}/output")).await;
        assert!(answer.error(404).contains("it is optional"), "{acts}: {answer}");
    }
    assert_eq!(names(&server, "."), Vec::<String>::new());
    // Required and empty: that may be the result.
    let id = run(&server, FOLDER, "nothing", "out").await;
    assert_eq!(server.get(&format!("/tasks/{id}/output")).await.body, json!([]));
}

#[tokio::test]
async fn a_crash_leaves_the_earlier_folder_and_nothing_else() {
    let mut server = start();
    run(&server, FOLDER, "write-less", "out").await;
    let id = server.submit(program(FOLDER, "write litter wait", "out")).await;
    until_waiting(&server, &id).await;
    crash(&mut server);
    assert_eq!(names(&server, "out"), [".task-server.json", "only"]);
    until_waiting(&server, &id).await;
    assert_eq!(names(&server, "."), [format!(".{id}.2.part"), "out".to_owned()]);
    server.write(GO, "");
    server.wait_for(&id, "completed").await;
    assert_eq!(names(&server, "."), ["out"]);
    assert!(server.folder().join("out/sub/a b.txt").exists());
}
