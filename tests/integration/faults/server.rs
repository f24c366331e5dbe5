//! The server this test binary runs when it starts itself.

use serde_json::json;
use task_server::app::App;
use task_server::config::{Config, Settings};
use task_server::task::TaskType;
use task_server::tasks::TaskRegistry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{clock, poison};

/// Name of the test that serves if requested.
pub(crate) const SERVER: &str = "faults::server::serves_if_it_is_asked_to";
/// Environment variable that requests it.
pub(crate) const ASK: (&str, &str) = ("SERVE_IN_THIS_FOLDER", "1");

#[tokio::test(flavor = "multi_thread")]
async fn serves_if_it_is_asked_to() {
    if std::env::var_os(ASK.0).is_none() {
        return;
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let mut config = Config::load(Settings::default(), None).unwrap();
    config.listen = "127.0.0.1:0".to_owned();
    config.shutdown_grace = clock::GRACE;
    let mut registry = TaskRegistry::builtin();
    registry.replace::<poison::Poison>(TaskType::DummyShort, json!({}));
    registry.replace::<poison::Neighbour>(TaskType::DummyLong, json!({}));
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
