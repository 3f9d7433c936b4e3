//! Any bytes as what comes to the port, through the same limits and the same look at each request.

use super::body::Answer;
use super::{TEXT, guard, limited, plain, refused};
use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

/// Answers of one run (bytes); who sends more requests than that is cut off.
const ANSWERS_MAX: usize = 16 << 10;
/// A connection that is not at its end after so many turns never comes there.
const TURNS_MAX: usize = 100_000;

/// Turns in which a client that has sent all waits for answers before it ends.
const WAITS: usize = 8;

/// A client that has sent all it will send.
struct Fed<'a> {
    rest: &'a [u8],
    waits: usize,
    answered: &'a std::cell::Cell<usize>,
}

impl hyper::rt::Read for Fed<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() && self.waits > 0 {
            self.waits -= 1;
            return Poll::Pending;
        }
        let (now, rest) = self.rest.split_at(buffer.remaining().min(self.rest.len()));
        buffer.put_slice(now);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Fed<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.answered.set(self.answered.get() + bytes.len());
        let over = self.answered.get() > ANSWERS_MAX;
        Poll::Ready(if over { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What is answered without a node behind it.
fn answer(request: &Request<Incoming>) -> Response<Answer> {
    let path = request.uri().path().to_owned();
    let mut response = refused(request).unwrap_or_else(|| plain(StatusCode::OK, TEXT, path));
    guard(&mut response, super::NOTHING);
    response
}

/// Gives any bytes to the server of HTTP as one connection; how much was answered (bytes).
///
/// # Panics
/// If the connection does not come to its end.
pub fn fuzz_http(bytes: &[u8]) -> usize {
    let answered = std::cell::Cell::new(0);
    let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request))));
    let fed = Fed { rest: bytes, waits: WAITS, answered: &answered };
    let mut connection = pin!(limited().serve_connection(fed, service));
    let mut context = Context::from_waker(Waker::noop());
    let ends = (0..TURNS_MAX).any(|_| connection.as_mut().poll(&mut context).is_ready());
    assert!(ends, "a connection whose client is gone ends");
    answered.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;
    use crate::base::limits::{HTTP_HEAD_MAX, HTTP_HEADERS_MAX};

    const GOOD: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9187\r\n\r\n";

    #[test]
    fn good_requests_are_answered_one_after_the_other_and_no_bytes_do_harm() {
        let one = fuzz_http(GOOD);
        assert!(one > 100, "{one}");
        assert!(fuzz_http(&GOOD.repeat(3)) > 2 * one);
        let mut prng = Prng::new(11);
        for _ in 0..3000 {
            let mut damaged = GOOD.repeat(1 + usize::try_from(prng.below(3)).unwrap());
            for _ in 0..1 + prng.below(4) {
                let at = usize::try_from(prng.below(damaged.len() as u64)).unwrap();
                damaged[at] = u8::try_from(prng.below(256)).unwrap();
            }
            fuzz_http(&damaged);
        }
    }

    #[test]
    fn heads_beyond_the_limits_are_refused() {
        let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(2 * HTTP_HEAD_MAX));
        let many =
            format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "a: b\r\n".repeat(HTTP_HEADERS_MAX + 1));
        let good = fuzz_http(GOOD);
        for bad in [long, many] {
            assert!(fuzz_http(bad.as_bytes()) < good, "the refusal is shorter than an answer");
        }
    }
}
