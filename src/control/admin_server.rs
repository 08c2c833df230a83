//! The admin port's sockets: connections on the control thread's executor, HTTP/1.1 by hyper. Control thread.
//!
//! Promises that strangers on this port cost little: connections are bounded, a request's head must come in time, and
//! an answer must be taken in time. Knows nothing of what is answered (`admin.rs`).

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use glommio::timer::sleep;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::rt::{ReadBufCursor, Sleep};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};

use super::admin::{self, AdminRequest};
use super::say;
use super::view::ServerView;
use crate::sys::executor;

/// Connections at once; more are closed as they come. A few scrapers and a few people are meant.
const CONNECTIONS_MAX: usize = 64;
/// For a request's whole head; also how long an idle connection is kept. Scrapers come every 15 s or so and reconnect.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For the peer to take a byte of an answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a head: hyper's smallest buffer, ample for a scraper.
const HEAD_BYTES_MAX: usize = 8192;
/// Wait after a failed accept (no descriptor left, most likely), so that the loop does not spin on it.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Accepts and answers until it is dropped. To be spawned on the control thread's executor.
pub async fn serve(listener: TcpListener, view: Arc<ServerView>, deadlines: Deadlines) {
    let listener = executor::adopt_listener(listener);
    let open = Rc::new(Cell::new(0));
    let requests = Rc::new(Cell::new(0u64));
    let mut said = false;
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    say(&format_args!("the admin port cannot accept: {error}"));
                }
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        if open.get() == CONNECTIONS_MAX {
            continue;
        }
        open.set(open.get() + 1);
        let (view, open, requests, deadlines) =
            (Arc::clone(&view), Rc::clone(&open), Rc::clone(&requests), deadlines.clone());
        glommio::spawn_local(async move {
            answer_connection(stream, view, requests, deadlines).await;
            open.set(open.get() - 1);
        })
        .detach();
    }
}

async fn answer_connection(stream: TcpStream, view: Arc<ServerView>, requests: Rc<Cell<u64>>, deadlines: Deadlines) {
    if stream.set_nodelay(true).is_err() || stream.set_write_timeout(Some(SEND_TIMEOUT)).is_err() {
        return;
    }
    let service = service_fn(move |request: Request<Incoming>| {
        requests.set(requests.get() + 1);
        let response = respond(&view, &request, requests.get());
        async move { Ok::<_, Infallible>(response) }
    });
    // An error here is the peer's: it hung up, was too slow, or sent what is no HTTP. hyper has answered what could be.
    let _peer_error = http1::Builder::new()
        .timer(deadlines)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(Connection(stream), service)
        .await;
}

fn respond(view: &ServerView, request: &Request<Incoming>, number: u64) -> Response<Full<Bytes>> {
    let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
    let made = format!("admin-{:x}-{number:x}", view.started_unix().as_millis());
    let request_id = admin::echoed_request_id(header("x-request-id")).unwrap_or(&made);
    let answer = admin::answer(
        view,
        &AdminRequest {
            method: request.method().as_str(),
            path: request.uri().path(),
            accept: request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()),
            request_id,
        },
    );
    // hyper leaves the body out of an answer to HEAD and keeps its length.
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).expect("answers have valid codes");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-request-id", HeaderValue::from_str(request_id).expect("plain ASCII"));
    if let Some(allow) = answer.allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    response
}

/// An executor's socket in hyper's terms.
struct Connection(TcpStream);

impl hyper::rt::Read for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        // Through a buffer on the stack: filling hyper's uninitialised one in place would take unsafe code, to save a
        // copy of a request head.
        let mut buffer = [0u8; 4096];
        let room = into.remaining().min(buffer.len());
        let received = std::task::ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer[..room]))?;
        into.put_slice(&buffer[..received]);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// Deadlines for hyper, at the grain of the control thread's tick: [`Deadlines::expire`] wakes those that have come.
///
/// The executor's own timers cannot be used: hyper asks for a future that is Send, and they belong to one thread. A
/// timeout of ten seconds does not mind one more, so a list that is looked through once a second is all it takes.
#[derive(Clone, Debug, Default)]
pub struct Deadlines(Arc<Mutex<Vec<Weak<Deadline>>>>);

#[derive(Debug)]
struct Deadline {
    at: Instant,
    state: Mutex<DeadlineState>,
}

#[derive(Debug, Default)]
struct DeadlineState {
    come: bool,
    waker: Option<Waker>,
}

impl Deadlines {
    /// Wakes every future whose deadline is at or before `now`.
    pub fn expire(&self, now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|deadline| {
            let Some(deadline) = deadline.upgrade() else { return false };
            if deadline.at > now {
                return true;
            }
            let mut state = deadline.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.come = true;
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
            false
        });
    }

    /// How many are awaited.
    #[cfg(test)]
    fn awaited(&self) -> usize {
        self.0.lock().unwrap().iter().filter(|deadline| deadline.strong_count() > 0).count()
    }
}

impl hyper::rt::Timer for Deadlines {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, at: Instant) -> Pin<Box<dyn Sleep>> {
        let deadline = Arc::new(Deadline { at, state: Mutex::default() });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&deadline));
        Box::pin(Awaited(deadline))
    }
}

struct Awaited(Arc<Deadline>);

impl Sleep for Awaited {}

impl Future for Awaited {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.come {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use hyper::rt::Timer;

    use super::*;

    #[test]
    fn deadlines_come_in_their_order_and_dropped_ones_are_forgotten() {
        let deadlines = Deadlines::default();
        let now = Instant::now();
        let mut early = deadlines.sleep_until(now + Duration::from_secs(1));
        let mut late = deadlines.sleep_until(now + Duration::from_secs(2));
        let dropped = deadlines.sleep_until(now + Duration::from_secs(1));
        drop(dropped);
        let mut cx = Context::from_waker(Waker::noop());
        deadlines.expire(now);
        assert!(early.as_mut().poll(&mut cx).is_pending());
        deadlines.expire(now + Duration::from_secs(1));
        assert!(early.as_mut().poll(&mut cx).is_ready());
        assert!(late.as_mut().poll(&mut cx).is_pending());
        assert_eq!(deadlines.awaited(), 1);
        deadlines.expire(now + Duration::from_secs(9));
        assert!(late.as_mut().poll(&mut cx).is_ready());
        assert_eq!(deadlines.awaited(), 0);
    }
}
