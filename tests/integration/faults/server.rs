//! The server this test binary runs when it starts itself.

use std::time::Duration;

use serde_json::json;
use task_server::app::App;
use task_server::config::{Config, Settings};
use task_server::task::{TaskType, task_logs};
use task_server::tasks::TaskRegistry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::{clock, poison, talker};

/// Name of the test that serves if requested.
pub(crate) const SERVER: &str = "faults::server::serves_if_it_is_asked_to";
/// Environment variable that requests it.
pub(crate) const ASK: (&str, &str) = ("SERVE_IN_THIS_FOLDER", "1");
/// Environment variable that makes `dummy_very_long` a [`talker::Talker`].
pub(crate) const TALKING: (&str, &str) = ("TALKING", "1");

#[tokio::test(flavor = "multi_thread")]
async fn serves_if_it_is_asked_to() {
    if std::env::var_os(ASK.0).is_none() {
        return;
    }
    let logging = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let logging = logging.with_filter(LevelFilter::INFO);
    tracing_subscriber::registry().with(logging).with(task_logs()).init();
    let mut config = Config::load(Settings::default(), None).unwrap();
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    config.log_retention =
        number("LOG_RETENTION").map_or(config.log_retention, Duration::from_secs);
    config.log_space = number("LOG_SPACE").unwrap_or(config.log_space);
    config.max_running = number("MAX_RUNNING").map_or(config.max_running, |number| number as usize);
    config.listen = "127.0.0.1:0".to_owned();
    config.shutdown_grace = clock::GRACE;
    let mut registry = TaskRegistry::builtin();
    registry.replace::<poison::Poison>(TaskType::DummyShort, json!({}));
    registry.replace::<poison::Neighbour>(TaskType::DummyLong, json!({}));
    if std::env::var_os(TALKING.0).is_some() {
        registry.replace::<talker::Talker>(TaskType::DummyVeryLong, json!({}));
    }
    registry.replace::<clock::Stubborn>(TaskType::Tokenize, json!({}));
    let app = App::build(config, registry).await.unwrap();
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            terminate.recv().await;
            shutdown.cancel();
        }
    });
    app.serve(shutdown).await;
    // Endless threads do not delay the exit of the real server either.
    std::process::exit(0);
}
