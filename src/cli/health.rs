//! `task-server health`: a readiness probe for containers without curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use clap::Args;
use tokio::time::timeout;

use super::client::{Client, Connection, Request};
use super::exit::{EXIT_CODES, Exit, Failure, Outcome};
use crate::app::resolve;
use crate::config::{Config, Settings};

/// Shorter than the timeout of the image's health check.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Checks that a server, by default the one on this machine, accepts submissions
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub(super) struct HealthArgs {
    /// Listen address of the local server [default: that of its settings]
    #[arg(long, env = "TASK_SERVER_LISTEN", value_name = "HOST:PORT")]
    listen: Option<String>,

    /// URL of a server elsewhere or behind a proxy
    #[arg(long, value_name = "URL", conflicts_with = "listen")]
    url: Option<String>,
}

pub(super) async fn run(HealthArgs { listen, url }: HealthArgs) -> Outcome {
    if let Some(url) = url {
        return probe(url).await;
    }
    let probed = timeout(LOCAL_TIMEOUT, async { probe(local_url(listen).await?).await }).await;
    let no_answer =
        |_| Err(Failure::new(Exit::Failed, format!("no response within {LOCAL_TIMEOUT:?}")));
    // A container's health check may fail with no code but 1.
    probed.unwrap_or_else(no_answer).map_err(|failure| Failure { exit: Exit::Failed, ..failure })
}

async fn probe(url: String) -> Outcome {
    let client = Client::new(&Connection::without_key(url))?;
    client.json(Request::get("/health/ready")).await?;
    Ok(Exit::Done)
}

/// Returns the URL of the server on this machine.
async fn local_url(listen: Option<String>) -> Result<String, Failure> {
    let failed = |message: String| Failure::new(Exit::Failed, message);
    let listen = match listen {
        Some(listen) => listen,
        None => {
            let config = Config::load(Settings::default(), None);
            config.map_err(|error| failed(error.to_string()))?.listen
        }
    };
    // Resolved here because the server accepts its address as `Host`, but not every name of it.
    let resolved = resolve(&listen).await;
    let mut address =
        resolved.map_err(|error| failed(format!("invalid address `{listen}`: {error}")))?;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(format!("http://{address}"))
}
