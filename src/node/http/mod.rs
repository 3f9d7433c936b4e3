//! Figures over HTTP, on loopback: metrics, health, events, a page for people. It reads only, and asks what the admin
//! socket answers, nothing else.
//!
//! One thread serves a bounded number of connections, each for a bounded time. A page of another site could make a
//! browser ask here under a name of its own (DNS rebinding), so only addresses and `localhost` are answered as a host.

mod away;
mod body;
mod fuzz;
mod metrics;
mod page;
mod snapshot;

use super::admin_router::AdminRouter;
use crate::base::limits::{
    HTTP_CLIENTS_MAX, HTTP_FOLLOWERS_MAX, HTTP_HEAD_MAX, HTTP_HEADERS_MAX, HTTP_LIFE_MS, HTTP_PATIENCE_MS,
    HTTP_POINT_MS,
};
use body::{Answer, Follow};
pub use fuzz::fuzz_http;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, http};
use hyper_util::rt::{TokioIo, TokioTimer};
pub use metrics::{Described, described};
use page::Page;
use snapshot::{Desk, Snapshot};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The running server; ends when dropped.
pub(crate) struct HttpServer {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Serves on an address of this machine's own, with answers of `router`.
    ///
    /// # Errors
    /// The address is taken, or there is no thread.
    pub(crate) fn start(address: SocketAddr, router: AdminRouter) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(2)
            .thread_name("http-ask")
            .build()?;
        let (stop, stopped) = watch::channel(false);
        let work = move || {
            runtime.block_on(run(listener, router, stopped));
            // Who waits for the core is not waited for.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(work)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            // A panic has ended the process already.
            let _ = thread.join();
        }
    }
}

/// What all connections share.
struct Site {
    desk: Desk,
    /// The newest snapshot, for who follows.
    news: watch::Receiver<Arc<Snapshot>>,
    followers: Arc<Semaphore>,
}

async fn run(listener: TcpListener, router: AdminRouter, stopped: watch::Receiver<bool>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!("serving HTTP: {error}"),
    };
    let desk = Desk::new(router);
    let (news, newest) = watch::channel(Arc::default());
    let site = Arc::new(Site { desk, news: newest, followers: Arc::new(Semaphore::new(HTTP_FOLLOWERS_MAX)) });
    let places = Arc::new(Semaphore::new(HTTP_CLIENTS_MAX));
    let beating = beat(Arc::clone(&site), news);
    let mut stop = stopped.clone();
    tokio::spawn(beating);
    loop {
        match first_of(listener.accept(), stop.changed()).await {
            Either::Right(_) => return,
            Either::Left(Ok((stream, _))) => {
                // Beyond the limit a connection is closed at once.
                if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                    let (site, stopped) = (Arc::clone(&site), stopped.clone());
                    tokio::spawn(async move {
                        connection(stream, site, stopped).await;
                        drop(place);
                    });
                }
            }
            // Out of descriptors: others may do better.
            Either::Left(Err(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Takes a point of the charts and tells those who follow, again and again.
async fn beat(site: Arc<Site>, news: watch::Sender<Arc<Snapshot>>) {
    let mut beat = tokio::time::interval(Duration::from_millis(HTTP_POINT_MS));
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let snapshot = site.desk.point().await;
        if news.send(snapshot).is_err() {
            return;
        }
    }
}

enum Either<A, B> {
    Left(A),
    Right(B),
}

/// What is done first; the other is given up.
async fn first_of<A: Future, B: Future>(one: A, other: B) -> Either<A::Output, B::Output> {
    let (mut one, mut other) = (std::pin::pin!(one), std::pin::pin!(other));
    std::future::poll_fn(move |context| {
        use std::task::Poll;
        // What ends and what is asked first come before who connects.
        if let Poll::Ready(done) = other.as_mut().poll(context) {
            return Poll::Ready(Either::Right(done));
        }
        one.as_mut().poll(context).map(Either::Left)
    })
    .await
}

/// What a connection may send at once.
fn limited() -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.max_buf_size(HTTP_HEAD_MAX).max_headers(HTTP_HEADERS_MAX);
    builder
}

async fn connection(stream: tokio::net::TcpStream, site: Arc<Site>, mut stopped: watch::Receiver<bool>) {
    let service = service_fn(move |request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(respond(&site, &request).await) }
    });
    let mut builder = limited();
    builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_millis(HTTP_PATIENCE_MS));
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let life = tokio::time::sleep(Duration::from_millis(HTTP_LIFE_MS));
    if let Either::Left(_) = first_of(connection.as_mut(), first_of(life, stopped.changed())).await {
        return;
    }
    // Its time is over: what is under way may still be taken.
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(Duration::from_millis(HTTP_PATIENCE_MS / 10), connection).await;
}

/// Whether the request is to this machine by an address, or as `localhost`.
fn is_ours(host: Option<&HeaderValue>) -> bool {
    let Some(host) = host.and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn plain(status: StatusCode, content: &str, text: impl Into<String>) -> Response<Answer> {
    let mut response = Response::new(Answer::whole(text.into()));
    *response.status_mut() = status;
    if let Ok(content) = HeaderValue::from_str(content) {
        response.headers_mut().insert(CONTENT_TYPE, content);
    }
    response
}

/// What goes with every answer.
fn guard(response: &mut Response<Answer>, policy: &str) {
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(http::HeaderName::from_static(name), value);
        }
    };
    set("content-security-policy", policy);
    set("x-content-type-options", "nosniff");
    set("referrer-policy", "no-referrer");
    set("cross-origin-resource-policy", "same-origin");
    set("x-frame-options", "DENY");
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

const NOTHING: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Why a request is not looked at further, if it is not.
fn refused(request: &Request<Incoming>) -> Option<Response<Answer>> {
    if !is_ours(request.headers().get(HOST)) {
        let text = "ask for an address of this machine or for localhost, not for another name\n";
        return Some(plain(StatusCode::MISDIRECTED_REQUEST, TEXT, text));
    }
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    (!reads).then(|| {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, TEXT, "this only reads: use GET\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        refused
    })
}

async fn respond(site: &Site, request: &Request<Incoming>) -> Response<Answer> {
    let mut policy = NOTHING.to_owned();
    let mut response = match refused(request) {
        Some(refused) => refused,
        None => answer(site, request.uri().path(), &mut policy).await,
    };
    guard(&mut response, &policy);
    response
}

async fn answer(site: &Site, path: &str, policy: &mut String) -> Response<Answer> {
    match path {
        "/" => {
            let page = Page::new();
            *policy = page.policy();
            let text = page.render(&*site.desk.snapshot().await, &site.desk.points());
            plain(StatusCode::OK, "text/html; charset=utf-8", text)
        }
        "/metrics" => match metrics::text(site.desk.snapshot().await) {
            Ok(text) => plain(StatusCode::OK, OPENMETRICS, text),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        "/health" => verdict(site.desk.snapshot().await.ill()),
        "/ready" => verdict(site.desk.snapshot().await.unready()),
        "/status.json" => plain(StatusCode::OK, JSON, site.desk.snapshot().await.json()),
        "/events" => match Arc::clone(&site.followers).try_acquire_owned() {
            Ok(place) => {
                let mut response =
                    Response::new(Answer::Events(Follow::new(site.news.clone(), site.desk.clone(), place)));
                let content = HeaderValue::from_static("text/event-stream");
                response.headers_mut().insert(CONTENT_TYPE, content);
                response
            }
            Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, TEXT, "too many follow the events already\n"),
        },
        _ => plain(
            StatusCode::NOT_FOUND,
            TEXT,
            "there are: /  /metrics  /health  /ready  /status.json  /events\n",
        ),
    }
}

fn verdict(why_not: Option<String>) -> Response<Answer> {
    match why_not {
        None => plain(StatusCode::OK, TEXT, "yes\n"),
        Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("no: {why}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_and_localhost_are_names_of_this_machine() {
        let ours = |host: &str| is_ours(HeaderValue::from_str(host).ok().as_ref());
        for host in ["127.0.0.1", "127.0.0.1:9187", "localhost", "LocalHost:80", "[::1]:9187", "[::1]"] {
            assert!(ours(host), "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:9187", "localhost.evil.example", "127.0.0.1.evil.example"]
        {
            assert!(!ours(host), "{host}");
        }
        assert!(!is_ours(None));
    }
}
