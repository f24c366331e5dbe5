//! `GET /tasks/{id}`: long-polls and conditional requests.

use std::time::{Duration, Instant};

use reqwest::Method;

use crate::common::{Answer, Server, dummy, endless};

async fn get_with(server: &Server, path: &str, header: &str, value: &str) -> Answer {
    server.send(server.request(Method::GET, path).header(header, value)).await
}

#[tokio::test]
async fn an_unknown_id_is_not_found() {
    let server = Server::start(&[]);
    let answer = server.get("/tasks/01890a5d-ac96-774b-bcce-b302099a8057").await;
    assert_eq!(answer.error(404), "Task not found");
}

#[tokio::test]
async fn what_is_no_id_is_refused_as_json() {
    let server = Server::start(&[]);
    for id in [
        "nonsense",
        "42",
        "%00",
        "%FF",
        "01890a5d-ac96-774b-bcce",
        "..%2f..%2fetc",
        "x".repeat(2000).as_str(),
    ] {
        for method in [Method::GET, Method::DELETE] {
            let answer = server.send(server.request(method, &format!("/tasks/{id}"))).await;
            assert!([404, 422].contains(&answer.status), "{id}: {answer}");
            assert!(!answer.body["detail"].is_null(), "{id}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_wait_returns_when_the_task_has_ended() {
    let server = Server::start(&[]);
    let id = server.submit(dummy(0.5)).await;
    let task = server.get(&format!("/tasks/{id}?wait=30")).await.body;
    assert_eq!(task["status"], "completed", "{task:#}");

    let id = server.submit(dummy(0.5)).await;
    let task = get_with(&server, &format!("/tasks/{id}"), "prefer", "wait=30").await.body;
    assert_eq!(task["status"], "completed", "{task:#}");
}

#[tokio::test]
async fn a_wait_returns_when_the_task_is_cancelled() {
    let server = Server::start(&[]);
    let id = server.submit(endless()).await;
    server.until_running(&id).await;
    let path = format!("/tasks/{id}?wait=60");
    let plain = format!("/tasks/{id}");
    let (waited, cancelled) = tokio::join!(server.get(&path), server.delete(&plain));
    assert_eq!(cancelled.status, 200, "{cancelled}");
    assert_eq!(waited.body["status"], "cancelled", "{waited}");
}

#[tokio::test]
async fn a_wait_ends_with_its_time() {
    let server = Server::start(&[]);
    let id = server.submit(endless()).await;
    server.until_running(&id).await;
    for (path, prefer) in [(format!("/tasks/{id}?wait=1"), ""), (format!("/tasks/{id}"), "wait=1")]
    {
        let begin = Instant::now();
        let answer = get_with(&server, &path, "prefer", prefer).await;
        assert_eq!((answer.status, &answer.body["status"]), (200, &"running".into()), "{answer}");
        assert!(begin.elapsed() >= Duration::from_millis(990), "{:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn a_wait_for_a_finished_task_does_not_wait() {
    let server = Server::start(&[]);
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
    let begin = Instant::now();
    let answer = server.get(&format!("/tasks/{id}?wait=60")).await;
    assert_eq!(answer.status, 200, "{answer}");
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_wait_for_an_unknown_task_is_not_found_at_once() {
    let server = Server::start(&[]);
    let begin = Instant::now();
    let answer = server.get("/tasks/01890a5d-ac96-774b-bcce-b302099a8057?wait=60").await;
    assert_eq!(answer.error(404), "Task not found");
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_wait_that_is_no_number_of_seconds_is_refused() {
    let server = Server::start(&[]);
    let id = server.submit(dummy(0.0)).await;
    for wait in ["soon", "-1", "NaN", ""] {
        let answer = server.get(&format!("/tasks/{id}?wait={wait}")).await;
        assert!(answer.only_fault().contains(" query.wait: "), "{wait}: {answer}");
    }
}

#[tokio::test]
async fn a_preference_that_makes_no_sense_is_ignored() {
    let server = Server::start(&[]);
    let id = server.submit(endless()).await;
    for prefer in ["wait=soon", "respond-async", "wait", "handling=lenient, wait=0"] {
        let answer = get_with(&server, &format!("/tasks/{id}"), "prefer", prefer).await;
        assert_eq!(answer.status, 200, "{prefer}: {answer}");
    }
}

#[tokio::test]
async fn an_unchanged_task_is_not_sent_again() {
    let server = Server::start(&["--max-running", "1"]);
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    let id = server.submit(dummy(0.0)).await;
    let path = format!("/tasks/{id}");

    let first = server.get(&path).await;
    let etag = first.header("etag");
    assert!(etag.ends_with('"'), "{first}");
    for condition in [etag.to_owned(), format!("\"other\", {etag}")] {
        let again = get_with(&server, &path, "if-none-match", &condition).await;
        assert_eq!((again.status, again.text.as_str()), (304, ""), "{condition}: {again}");
        assert_eq!(again.header("etag"), etag);
    }
    let other = get_with(&server, &path, "if-none-match", "\"other\"").await;
    assert_eq!(other.status, 200, "{other}");

    server.delete(&path).await;
    let changed = get_with(&server, &path, "if-none-match", etag).await;
    assert_eq!((changed.status, &changed.body["status"]), (200, &"cancelled".into()), "{changed}");
    assert_ne!(changed.header("etag"), etag);
}

#[tokio::test]
async fn the_etag_of_a_running_task_follows_its_progress() {
    let server = Server::start(&[]);
    let id = server
        .submit(serde_json::json!({
            "task_type": "dummy_long",
            "parameters": { "duration": 1e3, "steps": 1_000_000 },
        }))
        .await;
    let path = format!("/tasks/{id}");
    server.until_running(&id).await;
    let first = server.get(&path).await;
    let begin = Instant::now();
    loop {
        let again = get_with(&server, &path, "if-none-match", first.header("etag")).await;
        if again.status == 200 {
            assert_ne!(again.body["progress"], first.body["progress"], "{again}");
            break;
        }
        assert_eq!(again.status, 304, "{again}");
        assert!(begin.elapsed() < Duration::from_secs(60), "no progress");
    }
}

#[tokio::test]
async fn a_server_survives_many_waiting_clients_that_go_away() {
    let server = Server::start(&[]);
    let id = server.submit(endless()).await;
    for _ in 0..20 {
        let request = server
            .request(Method::GET, &format!("/tasks/{id}?wait=60"))
            .timeout(Duration::from_millis(20));
        assert!(request.send().await.unwrap_err().is_timeout());
    }
    assert_eq!(server.task(&id).await["status"], "running");
}
