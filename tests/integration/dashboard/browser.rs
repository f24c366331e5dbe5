//! A real browser, driven over WebDriver (a W3C standard; `chromedriver` speaks it).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Timeout of every wait for the browser.
const PATIENCE: Duration = Duration::from_secs(100);

/// A headless Chromium. Dropping it ends the browser and its driver.
pub(crate) struct Browser {
    driver: Child,
    client: Client,
    session: String,
    /// Address of the server under test; unchanged by its restart.
    site: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser for the pages of this server. Skips the test and returns `None` on a
    /// machine without one.
    pub(crate) async fn start(address: &str) -> Option<Self> {
        let Some((driver, port)) = drive() else {
            crate::common::skips::skip(
                "no chromedriver here (apt install chromium chromium-driver)",
            );
            return None;
        };
        let profile = TempDir::new().unwrap();
        let options = json!({
            "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--disable-dev-shm-usage", "--window-size=1280,900",
                format!("--user-data-dir={}", profile.path().display()),
            ],
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": PATIENCE.as_millis() as u64 },
        } } });
        let client = Client::builder().no_proxy().timeout(2 * PATIENCE).build().unwrap();
        let driver_url = format!("http://127.0.0.1:{port}/session");
        let mut browser = Self {
            driver,
            client,
            session: driver_url,
            site: format!("http://{address}"),
            _profile: profile,
        };
        let opened = match browser.ask(Method::POST, "", wanted).await {
            Err(error) if error.contains("cannot find Chrome binary") => {
                crate::common::skips::skip("chromium is not installed (apt install chromium)");
                return None;
            }
            opened => opened.unwrap(),
        };
        browser.session = format!("{}/{}", browser.session, opened["sessionId"].as_str().unwrap());
        Some(browser)
    }

    async fn ask(&self, method: Method, command: &str, body: Value) -> Result<Value, String> {
        let url = format!("{}{command}", self.session);
        let mut request = self.client.request(method.clone(), url);
        if method == Method::POST {
            request = request.json(&body);
        }
        let mut answer: Value = request.send().await.unwrap().json().await.unwrap();
        match answer["value"]["error"].is_string() {
            true => Err(answer["value"].to_string()),
            false => Ok(answer["value"].take()),
        }
    }

    /// Opens a page of the server.
    pub(crate) async fn open(&self, path: &str) {
        let url = json!({ "url": format!("{}{path}", self.site) });
        self.ask(Method::POST, "/url", url).await.unwrap();
    }

    /// Path and query of the open page.
    pub(crate) async fn path(&self) -> String {
        let path = self.run("return location.pathname + location.search", json!([])).await;
        path.as_str().unwrap().to_owned()
    }

    /// Goes back in the history.
    pub(crate) async fn back(&self) {
        self.ask(Method::POST, "/back", json!({})).await.unwrap();
    }

    /// Runs a function body in the page; returns its result.
    pub(crate) async fn run(&self, script: &str, args: Value) -> Value {
        let body = json!({ "script": script, "args": args });
        self.ask(Method::POST, "/execute/sync", body).await.unwrap()
    }

    /// Runs an async function body in the page; returns its result.
    pub(crate) async fn run_async(&self, script: &str) -> Value {
        let script = format!(
            "const done = arguments[arguments.length - 1];
             (async () => {{ {script} }})().then(done, (error) => done(`failed: ${{error}}`));"
        );
        let body = json!({ "script": script, "args": [] });
        self.ask(Method::POST, "/execute/async", body).await.unwrap()
    }

    /// Waits until this expression is true in the page.
    pub(crate) async fn until(&self, expression: &str) {
        let script = format!(
            "const done = arguments[arguments.length - 1];
             const look = () => {{
                 if ({expression}) done(true);
                 else setTimeout(look, 20);
             }};
             look();"
        );
        let begin = Instant::now();
        let mut last = String::new();
        while begin.elapsed() < PATIENCE {
            let body = json!({ "script": script, "args": [] });
            match self.ask(Method::POST, "/execute/async", body).await {
                Ok(_) => return,
                // Another page was opened meanwhile.
                Err(error) => last = error,
            }
        }
        let text = self.run("return document.body.innerText", json!([])).await;
        panic!("still not so: {expression}\n{last}\nThe page says:\n{}", text.as_str().unwrap());
    }

    /// Waits until the page shows this text.
    pub(crate) async fn until_text(&self, text: &str) {
        self.until(&format!("document.body.innerText.includes({})", json!(text))).await;
    }

    /// Waits until the page does not show this text.
    pub(crate) async fn until_no_text(&self, text: &str) {
        self.until(&format!("!document.body.innerText.includes({})", json!(text))).await;
    }

    /// Waits until an element is clickable, and clicks on it.
    pub(crate) async fn click(&self, css: &str) {
        self.on_element("css selector", css, "/click", json!({})).await;
    }

    /// Clicks on the button or link with this text.
    pub(crate) async fn press(&self, text: &str) {
        let xpath = format!("//*[(self::button or self::a) and normalize-space(.)='{text}']");
        self.on_element("xpath", &xpath, "/click", json!({})).await;
    }

    /// Selects an option by its text.
    pub(crate) async fn choose(&self, css: &str, text: &str) {
        let wanted = json!(text);
        self.until(&format!("document.querySelector({}) !== null", json!(format!("{css} option"))))
            .await;
        self.until(&format!(
            "[...document.querySelectorAll({})].some((one) => one.textContent === {wanted})",
            json!(format!("{css} option"))
        ))
        .await;
        let script = "const list = document.querySelector(arguments[0]);
            const option = [...list.options].find((one) => one.textContent === arguments[1]);
            list.value = option.value;
            for (const name of ['input', 'change']) list.dispatchEvent(new Event(name, { bubbles: true }));";
        self.run(script, json!([css, text])).await;
    }

    /// Replaces the text of a field.
    pub(crate) async fn fill(&self, css: &str, text: &str) {
        self.on_element("css selector", css, "/clear", json!({})).await;
        self.on_element("css selector", css, "/value", json!({ "text": text })).await;
    }

    /// Types a key or a text into the focused element.
    pub(crate) async fn keys(&self, text: &str) {
        let active = self.ask(Method::GET, "/element/active", Value::Null).await.unwrap();
        let id = element_id(&active);
        let body = json!({ "text": text });
        self.ask(Method::POST, &format!("/element/{id}/value"), body).await.unwrap();
    }

    async fn on_element(&self, using: &str, selector: &str, command: &str, body: Value) {
        let begin = Instant::now();
        loop {
            let problem = match self.try_on_element(using, selector, command, &body).await {
                Ok(()) => return,
                Err(problem) => problem,
            };
            assert!(begin.elapsed() < PATIENCE, "{selector}: {problem}");
        }
    }

    async fn try_on_element(
        &self,
        using: &str,
        selector: &str,
        command: &str,
        body: &Value,
    ) -> Result<(), String> {
        let find = json!({ "using": using, "value": selector });
        let element = self.ask(Method::POST, "/element", find).await?;
        let command = format!("/element/{}{command}", element_id(&element));
        self.ask(Method::POST, &command, body.clone()).await.map(drop)
    }

    /// Sets the window size in pixels.
    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Sets the preferred colour scheme: "light" or "dark".
    pub(crate) async fn prefer(&self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    async fn devtools(&self, command: &str, params: Value) {
        let body = json!({ "cmd": command, "params": params });
        self.ask(Method::POST, "/goog/cdp/execute", body).await.unwrap();
    }

    /// Errors in the browser's log, except about responses other than 200.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.ask(Method::POST, "/se/log", json!({ "type": "browser" })).await.unwrap();
        let messages = log.as_array().unwrap().iter().filter(|entry| entry["source"] != "network");
        messages.map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }
}

/// Starts a driver; returns its port, or `None` on a machine without one.
fn drive() -> Option<(Child, String)> {
    // A driver exits at once if its port is in use over IPv6: tries another.
    for _ in 0..10 {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = command.spawn().ok()?;
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });
        match port {
            Some(port) => return Some((driver, port)),
            None => drop(driver.wait()),
        }
    }
    panic!("chromedriver does not start");
}

fn element_id(element: &Value) -> &str {
    element.as_object().and_then(|fields| fields.values().next()?.as_str()).expect("an element")
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser, which does not exit with its driver.
        if let Some((address, session)) =
            self.session.strip_prefix("http://").and_then(|rest| rest.split_once('/'))
            && let Ok(mut driver) = TcpStream::connect(address)
        {
            let request = format!(
                "DELETE /{session} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
            );
            let _ = driver.write_all(request.as_bytes());
            // The response comes after the browser has exited; the connection stays open.
            let _ = driver.read(&mut [0; 1024]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
