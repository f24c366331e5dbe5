//! `GET /tasks`: filters and pages.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::common::{Answer, Server, dummy, endless, give_history};

fn ids(answer: &Answer) -> Vec<&str> {
    assert_eq!(answer.status, 200, "{answer}");
    let tasks = answer.body.as_array().unwrap();
    tasks.iter().map(|task| task["task_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_list_is_filtered_by_status_and_type() {
    let server = Server::start(&["--max-running", "1"]);
    let done = server.submit(dummy(0.0)).await;
    server.wait_for(&done, "completed").await;
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    let pending = server.submit(dummy(0.0)).await;

    for (query, expected) in [
        ("status=completed", vec![&done]),
        ("status=running", vec![&running]),
        ("status=pending,running", vec![&pending, &running]),
        ("status=failed", vec![]),
        ("task_type=dummy_short", vec![&pending, &done]),
        ("task_type=dummy_very_long,tokenize", vec![&running]),
        ("task_type=dummy_short&status=completed,failed", vec![&done]),
        ("status=completed&status=running", vec![&running, &done]),
        ("", vec![&pending, &running, &done]),
    ] {
        let answer = server.get(&format!("/tasks?{query}")).await;
        assert_eq!(ids(&answer), expected, "{query}: {answer}");
    }
}

#[tokio::test]
async fn a_list_is_filtered_by_time() {
    let server = Server::start(&[]);
    let [first, second, third] = [
        server.submit(dummy(0.0)).await,
        server.submit(dummy(0.0)).await,
        server.submit(dummy(0.0)).await,
    ];
    let task = server.task(&second).await;
    let middle = task["created_at"].as_str().unwrap();
    let answer = server.get(&format!("/tasks?created_after={middle}")).await;
    let after = ids(&answer);
    assert!(after.contains(&&*third) && !after.contains(&&*first), "{answer}");
    let answer = server.get(&format!("/tasks?created_before={middle}")).await;
    let before = ids(&answer);
    assert!(before.contains(&&*first) && !before.contains(&&*third), "{answer}");
    let answer = server.get("/tasks?created_after=2020-01-01T00:00:00%2B02:00").await;
    assert_eq!(ids(&answer).len(), 3, "{answer}");
    let answer = server.get("/tasks?created_before=2020-01-01T00:00:00Z").await;
    assert_eq!(ids(&answer).len(), 0, "{answer}");
}

#[tokio::test]
async fn pages_visit_each_task_once_while_others_come_in() {
    let server = Server::start(&["--max-running", "1"]);
    let mut expected = Vec::new();
    for _ in 0..25 {
        expected.insert(0, server.submit(dummy(0.0)).await);
    }
    let mut seen = Vec::new();
    let mut sizes = Vec::new();
    let mut next = Some("/tasks?limit=10".to_owned());
    while let Some(path) = next {
        let page = server.get(&path).await;
        sizes.push(ids(&page).len());
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        next = page.next_page().map(str::to_owned);
        server.submit(dummy(0.0)).await;
    }
    assert_eq!(seen, expected);
    assert_eq!(sizes, [10, 10, 5]);
}

#[tokio::test]
async fn pages_keep_the_filter() {
    let server = Server::start(&[]);
    for body in [dummy(0.0), endless(), dummy(0.0), endless(), dummy(0.0)] {
        server.submit(body).await;
    }
    let mut types = Vec::new();
    let mut next = Some("/tasks?task_type=dummy_short&limit=2".to_owned());
    while let Some(path) = next {
        let page = server.get(&path).await;
        types.extend(page.body.as_array().unwrap().iter().map(|task| task["task_type"].clone()));
        next = page.next_page().map(str::to_owned);
    }
    assert_eq!(types, [json!("dummy_short"), json!("dummy_short"), json!("dummy_short")]);
}

#[tokio::test]
async fn a_page_holds_a_hundred_tasks_unless_told_otherwise() {
    let server = Server::start(&[]);
    let body = dummy(0.0);
    let answers = join_all((0..101).map(|_| server.post("/tasks", &body))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    let page = server.get("/tasks").await;
    assert_eq!(ids(&page).len(), 100);
    assert!(page.next_page().is_some(), "{:?}", page.headers);
    let whole = server.get("/tasks?limit=1000").await;
    assert_eq!(ids(&whole).len(), 101);
    assert_eq!(whole.next_page(), None);
}

#[tokio::test]
async fn a_list_shows_each_task_as_its_own_page_does() {
    let server = Server::start(&["--max-running", "1"]);
    let done = server.submit(dummy(0.0)).await;
    server.wait_for(&done, "completed").await;
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    let pending = server.submit(dummy(0.0)).await;
    let listed = server.get("/tasks").await.body;
    for (index, id) in [pending, running, done].iter().enumerate() {
        assert_eq!(listed[index], server.task(id).await);
    }
}

#[tokio::test]
async fn a_query_that_does_not_fit_is_told_what_would() {
    let server = Server::start(&[]);
    for (query, parameter, said) in [
        ("limit=0", "limit", "1"),
        ("limit=1001", "limit", "1000"),
        ("limit=-1", "limit", "1"),
        ("limit=many", "limit", "number"),
        ("limit=", "limit", ""),
        ("status=done", "status", "completed"),
        ("status=pending,done", "status", "completed"),
        ("task_type=dummy_shrt", "task_type", "dummy_short"),
        ("created_after=yesterday", "created_after", ""),
        ("created_before=2026-13-01T00:00:00Z", "created_before", ""),
        ("cursor=nonsense", "cursor", ""),
        ("cursor=", "cursor", ""),
        ("stauts=pending", "stauts", "did you mean `status`?"),
    ] {
        let answer = server.get(&format!("/tasks?{query}")).await;
        let fault = answer.only_fault();
        assert!(fault.contains(&format!(" query.{parameter}: ")), "{query}: {fault}");
        assert!(fault.contains(said), "{query}: {fault}");
    }
}

#[tokio::test]
async fn all_faults_of_a_query_are_named_at_once() {
    let server = Server::start(&[]);
    let answer = server.get("/tasks?limit=0&status=done&created_after=x").await;
    assert_eq!(answer.faults().len(), 3, "{answer}");
}

#[tokio::test]
async fn the_task_that_started_last_is_the_current_one() {
    let server = Server::start(&["--max-running", "2"]);
    let mut submitted = Vec::new();
    for _ in 0..2 {
        let id = server.submit(endless()).await;
        server.until_running(&id).await;
        submitted.push(id);
    }
    let pending = server.submit(endless()).await;
    let current = server.get("/tasks/current/info").await.body;
    assert_eq!(current["task_id"], *submitted[1], "{current:#}");
    assert_eq!(server.task(&pending).await["status"], "pending");
    assert_eq!(server.task(&pending).await["started_at"], Value::Null);
}

#[tokio::test]
async fn a_page_looks_at_so_many_tasks_and_may_be_empty() {
    let mut server = Server::start(&[]);
    let mut tagged = dummy(0.0);
    tagged["tags"] = json!({ "plate": "7", "well": "A1" });
    let first = server.submit(tagged).await;
    server.wait_for(&first, "completed").await;
    give_history(&mut server, 50_000).await;
    let wanted = "/tasks?tag.plate=7&tag.well=A1";
    let (mut pages, mut found) = (0, Vec::new());
    let mut next = Some(wanted.to_owned());
    while let Some(page) = next {
        let answer = server.get(&page).await;
        found.extend(ids(&answer).into_iter().map(str::to_owned));
        let link = answer.headers.get("link").map(|link| link.to_str().unwrap());
        next = link.map(|link| link.split(['<', '>']).nth(1).unwrap().to_owned());
        pages += 1;
    }
    assert_eq!(found, [first]);
    // 50,000 tasks with the first tag come before it, and a page scans at most 20,000.
    assert!(pages >= 3, "{pages} pages");
}
