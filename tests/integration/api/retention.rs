//! `--retention`: ended tasks are erased after a while.

use serde_json::json;

use crate::common::{Server, dummy, endless, run_sql};

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
    server.until_logged(&["erased old tasks tasks=1"]);
    server.until_running(&running).await;
}

/// SQL that inserts rows. A wrong clock leaves tasks that were submitted and ended in 2100, or
/// submitted then and ended in 1970. The test has more of each than one step of the erasure scans,
/// and ordinary old rows after them.
fn rows(first: i64, count: i64, created_at: i64, completed_at: i64) -> String {
    format!(
        "INSERT INTO tasks (seq, id, task_type, status, priority, parameters, tags, max_attempts, \
                            created_at, updated_at, completed_at) \
         WITH RECURSIVE n (seq) AS \
             (SELECT {first} UNION ALL SELECT seq + 1 FROM n WHERE seq + 1 < {first} + {count}) \
         SELECT seq, printf('%08x-0000-7000-8000-000000000000', seq), 'dummy_short', 'completed', 0, \
                '{{}}', '{{}}', 1, {created_at}, {completed_at}, {completed_at} FROM n"
    )
}

#[tokio::test]
async fn a_task_from_a_clock_that_was_ahead_holds_up_no_other() {
    const YEAR_2100: i64 = 4_102_444_800_000_000;
    let mut server = Server::start(&[]);
    let running = server.submit(endless()).await;
    server.kill();
    let past = rows(3001, 600, 1000, 1000);
    let ahead = rows(2, 1200, YEAR_2100, YEAR_2100);
    let put_right = rows(2001, 600, YEAR_2100, 1000);
    run_sql(&server.folder().join("tasks.db"), &[&ahead, &put_right, &past]).await;
    server.restart(&["--retention", "1s"]);
    let left = |answer: &serde_json::Value| answer["counts"]["completed"] == 1200;
    server.until("/stats", left).await;
    // Tasks that end from now on come after them too.
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
    server.until("/stats", left).await;
    assert_eq!(server.get(&format!("/tasks/{id}")).await.status, 404);
    // So does the task that ran all the time.
    server.until_running(&running).await;
    server.delete(&format!("/tasks/{running}")).await;
    let gone = |answer: &serde_json::Value| {
        answer["counts"]["running"] == 0 && answer["counts"]["cancelled"] == 0
    };
    server.until("/stats", gone).await;
    assert_eq!(server.get(&format!("/tasks/{running}")).await.status, 404);
}
