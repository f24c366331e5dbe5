//! Minimum read rate of clients: those that read a response too slowly are disconnected.
//!
//! TCP's own timeout only ends connections whose client reads nothing at all. A client that reads a byte
//! now and then could keep its response, and its share of the memory budget, for ever.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::Uri;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{events, output};

/// Limits of all connections.
pub(super) const LIMITS: Limits = Limits {
    // 10 KB/s: a page of 4 MiB in seven minutes, on the slowest mobile networks.
    answer: Limit { window: Duration::from_secs(30), bytes: 300_000 },
    // Files may be huge and links slow, but neither files nor streams hold much memory.
    lasting: Limit { window: Duration::from_secs(60), bytes: 1 },
};

/// Minimum number of bytes that a client must read in each window while the server waits for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    window: Duration,
    bytes: usize,
}

/// Limits by kind of response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    answer: Limit,
    /// For streams and output files.
    lasting: Limit,
}

/// Connection with a minimum read rate.
#[derive(Debug)]
pub(super) struct Paced<S> {
    stream: S,
    limits: Limits,
    state: Arc<State>,
    /// Open from the first blocked write until everything is written.
    window: Option<Window>,
}

/// Handle to set the kind of a connection's next response.
#[derive(Clone, Debug)]
pub(super) struct Pace(Arc<State>);

/// Written by the service ([`Pace::begin`]) and by the stream ([`Paced`]), which run on one task.
#[derive(Debug, Default)]
struct State {
    lasting: AtomicBool,
    /// Set while bytes wait for the client.
    behind: AtomicBool,
}

#[derive(Debug)]
struct Window {
    begin: Instant,
    taken: usize,
    timer: Pin<Box<Sleep>>,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, limits: Limits) -> (Self, Pace) {
        let state = Arc::new(State::default());
        let pace = Pace(Arc::clone(&state));
        (Self { stream, limits, state, window: None }, pace)
    }

    /// Counts written bytes, or checks the window if the write is blocked.
    fn check(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => {
                if let Some(window) = &mut self.window {
                    window.taken += bytes;
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.check_window(cx)?,
        }
        written
    }

    fn check_window(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let limit = match self.state.lasting.load(Ordering::Relaxed) {
            true => self.limits.lasting,
            false => self.limits.answer,
        };
        self.state.behind.store(true, Ordering::Relaxed);
        let window = self.window.get_or_insert_with(|| {
            let begin = Instant::now();
            Window { begin, taken: 0, timer: Box::pin(sleep_until(begin + limit.window)) }
        });
        // The limit may have changed since the window was opened.
        if window.timer.deadline() != window.begin + limit.window {
            window.timer.as_mut().reset(window.begin + limit.window);
        }
        while window.timer.as_mut().poll(cx).is_ready() {
            if window.taken < limit.bytes {
                let Limit { window, bytes } = limit;
                let detail = format!("the client read fewer than {bytes} bytes in {window:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, detail));
            }
            window.begin = Instant::now();
            window.taken = 0;
            window.timer.as_mut().reset(window.begin + limit.window);
        }
        Ok(())
    }
}

impl Pace {
    /// Sets the limit for the response to a request. While bytes of an earlier response wait, its
    /// limit stays, so that a client cannot relax it by sending another request.
    pub(super) fn begin(&self, uri: &Uri) {
        let lasting = events::is_stream(uri) || uri.path().ends_with(output::PATH);
        if !lasting || !self.0.behind.load(Ordering::Relaxed) {
            self.0.lasting.store(lasting, Ordering::Relaxed);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.check(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.check(cx, written)
    }

    /// Forwarded, because hyper would otherwise copy each response.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called by hyper when everything is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.window.take().is_some() {
            self.state.behind.store(false, Ordering::Relaxed);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const LONG: Duration = Duration::from_secs(1_000_000);
    const SHORT: Duration = Duration::from_millis(20);

    /// A connection with 64 bytes that its client has not read, and the client.
    async fn connection(
        answer: Limit,
        lasting: Limit,
    ) -> (Paced<DuplexStream>, Pace, DuplexStream) {
        let (server, client) = duplex(64);
        let (mut stream, pace) = Paced::new(server, Limits { answer, lasting });
        stream.write_all(&[0; 64]).await.unwrap();
        (stream, pace, client)
    }

    /// Writes more bytes while the client slowly reads.
    async fn trickle(
        stream: &mut Paced<DuplexStream>,
        client: &mut DuplexStream,
    ) -> io::Result<()> {
        let mut piece = [0; 8];
        let read = async {
            loop {
                client.read_exact(&mut piece).await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            written = stream.write_all(&[0; 1_000_000]) => written,
            () = read => unreachable!(),
        }
    }

    #[tokio::test]
    async fn a_slow_reader_is_disconnected() {
        let few = Limit { window: SHORT, bytes: 100_000 };
        let none = Limit { window: LONG, bytes: 1 };
        let (mut stream, pace, mut client) = connection(few, none).await;
        pace.begin(&Uri::from_static("/tasks"));
        let error = trickle(&mut stream, &mut client).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn streams_and_files_have_a_limit_of_their_own() {
        let usual = Limit { window: LONG, bytes: 1 };
        let lasting = Limit { window: SHORT, bytes: 100_000 };
        for path in ["/events", "/tasks/1/events", "/tasks/1/output", "/tasks/1/log?follow=true"] {
            let (mut stream, pace, mut client) = connection(usual, lasting).await;
            pace.begin(&Uri::from_static(path));
            assert!(trickle(&mut stream, &mut client).await.is_err(), "{path}");
        }
    }

    #[tokio::test]
    async fn a_second_request_does_not_widen_the_limit_of_the_first() {
        let few = Limit { window: SHORT, bytes: 100_000 };
        let none = Limit { window: LONG, bytes: 1 };
        let (mut stream, pace, mut client) = connection(few, none).await;
        pace.begin(&Uri::from_static("/tasks"));
        let refused = stream.write(&[0; 64]);
        assert!(tokio::time::timeout(Duration::ZERO, refused).await.is_err());
        pace.begin(&Uri::from_static("/tasks/1/output"));
        assert!(trickle(&mut stream, &mut client).await.is_err());
    }

    #[tokio::test]
    async fn a_window_ends_when_all_is_written() {
        let few = Limit { window: LONG, bytes: 100_000 };
        let (mut stream, pace, mut client) = connection(few, few).await;
        let refused = stream.write(&[0; 64]);
        assert!(tokio::time::timeout(Duration::ZERO, refused).await.is_err());
        assert!(stream.window.is_some());
        client.read_exact(&mut [0; 64]).await.unwrap();
        stream.write_all(&[0; 64]).await.unwrap();
        assert_eq!(stream.window.as_ref().unwrap().taken, 64);
        stream.flush().await.unwrap();
        assert!(stream.window.is_none());
        pace.begin(&Uri::from_static("/tasks/1/output"));
        assert!(stream.state.lasting.load(Ordering::Relaxed));
    }
}
