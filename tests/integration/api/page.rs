//! Responses with files of the dashboard.

use reqwest::Method;
use tempfile::TempDir;

use crate::common::{Answer, Server};

async fn get_with(server: &Server, path: &str, name: &str, value: &str) -> Answer {
    server.send(server.request(Method::GET, path).header(name, value)).await
}

#[tokio::test]
async fn a_browser_is_sent_to_the_dashboard_and_programs_are_not() {
    let server = Server::start(&[]);
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let client = client.no_proxy().build().unwrap();
    for (accept, status) in [
        ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", 303),
        ("*/*", 200),
        ("application/json", 200),
    ] {
        let request = client.get(server.url("/")).header("accept", accept);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{accept}");
        assert_eq!(answer.headers()["vary"], "accept", "{accept}");
        if status == 303 {
            assert_eq!(answer.headers()["location"], "/dashboard");
        }
    }
}

#[tokio::test]
async fn the_page_is_open_strict_and_cached_by_its_tag() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("keys"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let server = Server::start_in(folder, &["--api-key-file", "keys"], &[]);
    for (path, content_type) in [
        ("/dashboard", "text/html; charset=utf-8"),
        ("/dashboard/", "text/html; charset=utf-8"),
        ("/dashboard/overview", "text/html; charset=utf-8"),
        ("/dashboard/submit?type=tokenize", "text/html; charset=utf-8"),
        ("/dashboard/tasks/01a1a1a1-0000-7000-8000-000000000000", "text/html; charset=utf-8"),
        ("/dashboard/app.js", "text/javascript; charset=utf-8"),
        ("/dashboard/style.css", "text/css; charset=utf-8"),
        ("/dashboard/icon.svg", "image/svg+xml"),
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer}");
        assert_eq!(answer.header("content-type"), content_type, "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let policy = answer.header("content-security-policy");
        for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.contains(rule), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        let again = get_with(&server, path, "if-none-match", answer.header("etag")).await;
        assert_eq!((again.status, &*again.text), (304, ""), "{path}: {again}");
    }
    for path in
        ["/dashboard/nowhere", "/dashboard/mod.rs", "/dashboard/../Cargo.toml", "/dashboards"]
    {
        let answer = server.get(path).await;
        assert!(matches!(answer.status, 401 | 404), "{path}: {answer}");
    }
}

#[tokio::test]
async fn the_page_loads_only_what_it_has() {
    let server = Server::start(&[]);
    let page = server.get("/dashboard").await.text;
    let mut wanted: Vec<String> = Vec::new();
    for attribute in ["src=\"", "href=\""] {
        let values = page.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap());
        wanted.extend(values.filter(|value| !value.starts_with('#')).map(str::to_owned));
    }
    assert!(wanted.len() > 4, "{wanted:?}");
    while let Some(path) = wanted.pop() {
        assert!(path.starts_with('/'), "{path}");
        let answer = server.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {answer}");
        if path.ends_with(".js") {
            let imports = answer.text.lines().filter(|line| line.starts_with("import "));
            let names = imports.filter_map(|line| line.split("\"./").nth(1)?.split('"').next());
            wanted.extend(names.map(|name| format!("/dashboard/{name}")));
        }
    }
}

#[tokio::test]
async fn an_address_without_a_page_is_a_page_for_people_and_json_for_programs() {
    let server = Server::start(&[]);
    let request = |accept: &str| {
        server.send(server.request(Method::GET, "/dashboard/nosuch").header("accept", accept))
    };
    let page = request("text/html,*/*;q=0.8").await;
    assert_eq!(page.status, 404, "{page}");
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let answer = request("*/*").await;
    assert!(answer.error(404).contains("/dashboard/nosuch"), "{answer}");
}
