//! Asks a server whether it is ready; for containers, which have no curl.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use clap::Args;

use super::client::{Client, Connection, Request};
use super::exit::{Exit, Outcome};
use crate::config::{Config, ConfigError, Settings};

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
pub(super) struct HealthArgs {
    /// Where the server listens [default: as the server takes it]
    #[arg(long, env = "TASK_SERVER_LISTEN", value_name = "HOST:PORT")]
    listen: Option<String>,

    /// URL of a server elsewhere, or behind a proxy
    #[arg(long, value_name = "URL", conflicts_with = "listen")]
    url: Option<String>,
}

pub(super) fn run(HealthArgs { listen, url }: HealthArgs) -> Outcome {
    match url {
        Some(url) => super::ask(ask_at(url)),
        None => super::done(ask_here(listen)),
    }
}

async fn ask_at(url: String) -> Outcome {
    let client = Client::new(&Connection::without_key(url))?;
    client.json(Request::get("/health/ready")).await?;
    Ok(Exit::Done)
}

/// Why the server does not count as well.
#[derive(Debug, thiserror::Error)]
pub(super) enum HealthError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("`{0}` is no address, expected HOST:PORT")]
    Address(String),
    #[error("no answer from the server at {address}")]
    NoAnswer { address: SocketAddr, source: io::Error },
    #[error("the server at {address} is not ready: {answer}")]
    NotReady { address: SocketAddr, answer: String },
}

fn ask_here(listen: Option<String>) -> Result<(), HealthError> {
    let listen = match listen {
        Some(listen) => listen,
        None => Config::load(Settings::default(), None)?.listen,
    };
    let address = listen.to_socket_addrs().ok().and_then(|mut found| found.next());
    let address = reachable(address.ok_or(HealthError::Address(listen))?);
    let answer = ask(address).map_err(|source| HealthError::NoAnswer { address, source })?;
    match answer.starts_with("HTTP/1.1 200 ") {
        true => Ok(()),
        false => {
            let answer = answer.lines().next().unwrap_or_default().escape_debug().to_string();
            Err(HealthError::NotReady { address, answer })
        }
    }
}

/// Who listens on all addresses is reached by the one of this machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream
        .write_all(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
