//! Event streams.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::common::{Server, dummy, endless, tokenize};

/// One event of a stream.
#[derive(Debug)]
struct Event {
    id: String,
    name: String,
    task: Value,
}

/// An open stream.
struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    async fn open(server: &Server, path: &str) -> Self {
        Self::resume(server, path, None).await
    }

    async fn resume(server: &Server, path: &str, last: Option<&str>) -> Self {
        let mut request = server.request(Method::GET, path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-cache");
        Self { response, text: String::new() }
    }

    /// Next event; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let find = |line: &str| Some(line.strip_prefix(name)?.trim().to_owned());
                    block.lines().find_map(find).unwrap_or_default()
                };
                let (id, name, data) = (field("id:"), field("event:"), field("data:"));
                self.text = rest.to_owned();
                if name.is_empty() {
                    continue;
                }
                return Some(Event { id, name, task: serde_json::from_str(&data).unwrap() });
            }
            let chunk = self.response.chunk().await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Next event that is not about progress.
    async fn next_state(&mut self) -> Option<Event> {
        loop {
            let event = self.next().await?;
            if event.name != "progress" {
                return Some(event);
            }
        }
    }

    /// Task of the next state event, which must have this status.
    async fn state(&mut self, status: &str) -> Value {
        let event = self.next_state().await.expect("the stream has ended");
        assert_eq!((&*event.name, &event.task["status"]), ("state", &json!(status)), "{event:?}");
        event.task
    }
}

fn events_of(id: &str) -> String {
    format!("/tasks/{id}/events")
}

#[tokio::test]
async fn a_stream_tells_how_a_task_stands_and_each_change_until_it_ends() {
    let server = Server::start(&["--max-running", "1"]);
    let first = server.submit(endless()).await;
    let mut body = dummy(0.3);
    body["parameters"]["steps"] = 3.into();
    let id = server.submit(body).await;
    let mut stream = Stream::open(&server, &events_of(&id)).await;
    let present = stream.state("pending").await;
    assert_eq!(present, server.task(&id).await);
    server.delete(&format!("/tasks/{first}")).await;
    let running = stream.state("running").await;
    assert_eq!((&running["attempt"], &running["progress"]), (&json!(1), &json!(0.0)));
    let mut seen = Vec::new();
    let last = loop {
        let event = stream.next().await.unwrap();
        if event.name == "state" {
            break event.task;
        }
        assert_eq!(event.name, "progress");
        seen.push(event.task["progress"].as_f64().unwrap());
    };
    assert!(!seen.is_empty() && seen.is_sorted(), "{seen:?}");
    assert_eq!(last, server.task(&id).await);
    assert_eq!(last["status"], "completed");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn every_end_is_told_as_it_is_stored() {
    let server = Server::start(&["--max-running", "2"]);
    server.write("in.txt", "some text");
    let mut stream = Stream::open(&server, "/events").await;
    let completed = server.submit(tokenize("in.txt", "out.json")).await;
    server.wait_for(&completed, "completed").await;
    let failed = server.submit(tokenize("absent.txt", "out2.json")).await;
    server.wait_for(&failed, "failed").await;
    let mut again = tokenize("absent.txt", "out3.json");
    again["max_attempts"] = 2.into();
    let retried = server.submit(again).await;
    server.wait_for(&retried, "failed").await;
    let running = [server.submit(endless()).await, server.submit(endless()).await];
    for id in &running {
        server.until_running(id).await;
    }
    let pending = server.submit(dummy(0.0)).await;
    server.delete(&format!("/tasks/{pending}")).await;
    for id in &running {
        server.delete(&format!("/tasks/{id}")).await;
        server.wait_for(id, "cancelled").await;
    }
    let mut ended = 0;
    let mut between = Vec::new();
    while ended < 6 {
        let event = stream.next_state().await.unwrap();
        let id = event.task["task_id"].as_str().unwrap();
        if event.task["completed_at"].is_string() {
            ended += 1;
            assert_eq!(event.task, server.task(id).await);
        } else if id == retried || id == pending {
            between.push((event.task["status"].clone(), event.task["attempt"].clone()));
        }
    }
    let states = [("running", 1), ("pending", 1), ("running", 2), ("pending", 0)]
        .map(|(s, n)| (json!(s), json!(n)));
    assert_eq!(between, states);
}

#[tokio::test]
async fn a_stream_of_many_is_filtered_and_tells_what_leaves_it() {
    let server = Server::start(&["--max-running", "1"]);
    let first = server.submit(endless()).await;
    let mut tagged = dummy(0.0);
    tagged["tags"] = json!({ "wanted": "yes" });
    let by_tag = server.submit(tagged).await;
    let other = server.submit(dummy(0.0)).await;
    let mut by_tags = Stream::open(&server, "/events?tag.wanted=yes").await;
    let mut by_type = Stream::open(&server, "/events?task_type=dummy_very_long").await;
    let mut pending = Stream::open(&server, "/events?status=pending&limit=1").await;
    assert_eq!(by_tags.state("pending").await["task_id"], by_tag);
    assert_eq!(by_type.state("running").await["task_id"], first);
    assert_eq!(pending.state("pending").await["task_id"], other);
    server.delete(&format!("/tasks/{first}")).await;
    server.wait_for(&other, "completed").await;
    by_tags.state("running").await;
    by_tags.state("completed").await;
    assert_eq!(by_type.state("cancelled").await["task_id"], first);
    for id in [&by_tag, &other] {
        assert_eq!(pending.state("running").await["task_id"], **id);
    }
    for (query, field) in [("cursor=1-1", "query.cursor"), ("stauts=pending", "query.stauts")] {
        let answer = server.get(&format!("/events?{query}")).await;
        assert!(answer.only_fault().contains(field), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_comes_back_misses_nothing() {
    let mut server = Server::start(&["--max-running", "1"]);
    let first = server.submit(endless()).await;
    let second = server.submit(dummy(0.0)).await;
    let mut of_many = Stream::open(&server, "/events").await;
    let mut of_one = Stream::open(&server, &events_of(&second)).await;
    of_many.state("running").await;
    let seen_of_many = of_many.next_state().await.unwrap().id;
    let seen_of_one = of_one.next_state().await.unwrap().id;
    drop((of_many, of_one));
    server.delete(&format!("/tasks/{first}")).await;
    server.wait_for(&second, "completed").await;

    let mut of_many = Stream::resume(&server, "/events", Some(&seen_of_many)).await;
    for (id, status) in [(&first, "cancelled"), (&second, "running"), (&second, "completed")] {
        assert_eq!(of_many.state(status).await["task_id"], **id);
    }
    let mut of_one = Stream::resume(&server, &events_of(&second), Some(&seen_of_one)).await;
    of_one.state("running").await;
    let last = of_one.next_state().await.unwrap();
    assert_eq!(last.task["status"], "completed");
    assert!(of_one.next().await.is_none());
    let request = server.request(Method::GET, &events_of(&second));
    let over = request.header("last-event-id", &last.id).send().await.unwrap();
    assert_eq!(over.status(), 204);

    // A browser that was cut off within the initial events has not seen all of them.
    let mut begun = Stream::open(&server, "/events").await;
    assert_eq!(begun.next().await.unwrap().id, "");
    assert!(!begun.next().await.unwrap().id.is_empty());

    server.restart(&[]);
    for unknown in [&*seen_of_one, "nonsense"] {
        let mut stream = Stream::resume(&server, &events_of(&second), Some(unknown)).await;
        assert_eq!(stream.next().await.unwrap().name, "reset");
        stream.state("completed").await;
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test]
async fn a_stream_of_a_task_that_is_not_there_is_not_found() {
    let server = Server::start(&[]);
    let answer = server.get(&events_of("01a1a1a1-0000-7000-8000-000000000000")).await;
    assert_eq!(answer.error(404), "Task not found");
}

#[tokio::test]
async fn progress_is_told_ten_times_a_second_and_the_last_of_it_always() {
    let server = Server::start(&[]);
    let begin = Instant::now();
    let body = json!({ "task_type": "dummy_short", "parameters": { "duration": 1, "steps": 500 } });
    let id = server.submit(body).await;
    let mut stream = Stream::open(&server, &events_of(&id)).await;
    let mut told = 0;
    while let Some(event) = stream.next().await {
        told += usize::from(event.name == "progress");
    }
    let most = begin.elapsed().as_millis() as usize / 100 + 2;
    assert!((1..=most).contains(&told), "{told} of at most {most}");

    // This task reports once, and then not for seconds.
    let body = json!({ "task_type": "dummy_short", "parameters": { "duration": 6, "steps": 2 } });
    let mut stream = Stream::open(&server, &events_of(&server.submit(body).await)).await;
    stream.state("running").await;
    let event = stream.next().await.unwrap();
    assert_eq!((&*event.name, &event.task["progress"]), ("progress", &json!(50.0)), "{event:?}");
}

#[tokio::test]
async fn a_request_to_stop_is_told() {
    let server = Server::start(&[]);
    let id = server.submit(endless()).await;
    server.until_running(&id).await;
    let mut stream = Stream::open(&server, &events_of(&id)).await;
    stream.state("running").await;
    server.delete(&format!("/tasks/{id}")).await;
    assert!(stream.state("cancelled").await["cancel_requested_at"].is_string());
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn streams_end_when_the_server_does() {
    let mut server = Server::start(&["--shutdown-grace", "0s"]);
    let id = server.submit(endless()).await;
    server.until_running(&id).await;
    let mut of_one = Stream::open(&server, &events_of(&id)).await;
    let mut of_many = Stream::open(&server, "/events").await;
    of_one.state("running").await;
    server.terminate();
    // Interrupted, so it runs again after the next start.
    of_one.state("pending").await;
    assert!(of_one.next().await.is_none());
    while of_many.next().await.is_some() {}
    assert!(server.wait_exit().success());
}

#[tokio::test]
async fn streams_take_no_connection_from_others() {
    let server = Server::start(&[]);
    let mut streams = Vec::new();
    for _ in 0..1100 {
        streams.push(Stream::open(&server, "/events").await);
    }
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
    for stream in &mut streams {
        while stream.next_state().await.unwrap().task["status"] != "completed" {}
    }
}

#[tokio::test]
async fn a_reader_who_does_not_read_is_let_go_of() {
    let server = Server::start(&[]);
    let mut reader = TcpStream::connect(server.address()).unwrap();
    write!(
        reader,
        "GET /events HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        server.address()
    )
    .unwrap();
    let mut begin = [0; 16];
    reader.read_exact(&mut begin).unwrap();
    let mut body = dummy(0.0);
    // Two events per task exceed all buffers on the way.
    body["input_file_path"] = "x".repeat(4000).into();
    let mut last = String::new();
    for _ in 0..2500 {
        last = server.submit(body.clone()).await;
    }
    server.wait_for(&last, "completed").await;
    let mut told = Vec::new();
    // The stream ends, although the server runs and has more events.
    reader.read_to_end(&mut told).unwrap();
    assert!(!String::from_utf8(told).unwrap().contains(&last));
    assert_eq!(server.get("/health/live").await.status, 200);
}
