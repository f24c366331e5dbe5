//! `--retention`: what is finished is erased after a while.

use serde_json::json;

use crate::common::{Server, dummy, endless};

#[tokio::test]
async fn finished_tasks_are_erased_while_the_server_works() {
    let mut server = Server::start(&[]);
    let mut tagged = dummy(0.0);
    tagged["tags"] = json!({ "run": "a" });
    let done = server.submit(tagged).await;
    let running = server.submit(endless()).await;
    server.wait_for(&done, "completed").await;
    server.restart(&["--retention", "1s"]);
    let gone = |tasks: &serde_json::Value| tasks.as_array().unwrap().len() == 1;
    server.until("/tasks", gone).await;
    assert_eq!(server.get(&format!("/tasks/{done}")).await.error(404), "Task not found");
    assert_eq!(server.get("/tasks?tag.run=a").await.body, json!([]));
    server.until_running(&running).await;
}
