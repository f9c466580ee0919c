//! The listener of `metrics.listener`: `/metrics` and `/healthz`, and nothing else.
//!
//! It works from before the broker's first look at its disk until the process ends, and must not be what a broker
//! dies of: one request a connection, a header of at most 8 KiB, [`CONNECTION_MAX`] from accept to close, at most
//! [`CONNECTIONS_MAX`] at once (who comes next waits in the kernel's queue), and one scrape gathered at a time.

use super::text::{CONTENT_TYPE, Text};
use super::{broker, process, world};
use crate::door::Life;
use crate::service::Service;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE as CONTENT_TYPE_HEADER, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidelog_core::broker::{BrokerState, Health};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{sleep, timeout};

const CONNECTIONS_MAX: usize = 16;
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// The most of a request's line and headers.
const HEADER_BYTES_MAX: usize = 8 << 10;
/// A core that does not answer for so long is not well.
const CORE_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait where the process has no file descriptor for another connection.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(100);
const PLAIN: &str = "text/plain; charset=utf-8";

/// What is looked at.
pub struct Subject {
    service: Arc<Service>,
    /// Held while a scrape is gathered.
    gathering: Mutex<()>,
}

impl Subject {
    pub fn new(service: Arc<Service>) -> Arc<Self> {
        Arc::new(Self { service, gathering: Mutex::new(()) })
    }

    /// All metrics as text; an error where the core does not answer.
    async fn metrics(&self) -> Result<String, String> {
        let _one_at_a_time = self.gathering.lock().await;
        let shared = self.service.shared();
        let looked = shared.door.look(|machine, around| (machine.metrics(), around));
        let (metrics, around) = answered(looked).await?;
        // A broker has tens of thousands of numbers.
        Ok(tokio::task::block_in_place(|| {
            let now = Instant::now();
            let mut text = Text::default();
            if let Some(metrics) = metrics {
                broker::write(&metrics, &mut text);
            }
            let world = world::World {
                counters: &shared.counters,
                requests: &shared.counters.requests.read(now),
                around: &around,
                flushes: &shared.door.disk().flushes(now),
                budget: (shared.budget.held(), shared.budget.limit()),
                queued_bytes: shared.door.queued_bytes(),
            };
            world::write(&world, &mut text);
            process::write(&mut text);
            text.finish()
        }))
    }

    /// Why this broker should not be sent clients, if it should not.
    async fn illness(&self) -> Option<String> {
        let life = self.service.shared().door.life();
        let end = || match &*life.borrow() {
            Life::Fatal(text) => Some(format!("the broker has failed: {text}")),
            Life::Stopped => Some("the broker has stopped".to_owned()),
            Life::Starting | Life::Ready => None,
        };
        if let Some(text) = end() {
            return Some(text);
        }
        let health = match answered(self.service.shared().door.look(|machine, _| machine.health())).await {
            Ok(health) => health,
            Err(text) => return Some(text),
        };
        let Some(Health { state, offline }) = health else {
            return (*life.borrow() == Life::Starting).then(|| "the broker is starting".to_owned());
        };
        match state {
            // `NotRunning` is both ends of a life, and the second one may have come since this began to look.
            BrokerState::NotRunning | BrokerState::Starting => {
                end().or_else(|| Some("the broker is starting".to_owned()))
            }
            BrokerState::Recovery => Some("the broker is starting: it loads its logs".to_owned()),
            BrokerState::PendingControlledShutdown | BrokerState::ShuttingDown => {
                Some("the broker is stopping".to_owned())
            }
            BrokerState::Running if !offline.is_empty() => {
                Some(format!("log directories are offline: {}", offline.join(", ")))
            }
            BrokerState::Running => None,
        }
    }
}

/// What a look at the core has brought.
async fn answered<T>(looked: tokio::sync::oneshot::Receiver<T>) -> Result<T, String> {
    match timeout(CORE_PATIENCE, looked).await {
        Ok(Ok(seen)) => Ok(seen),
        Ok(Err(_)) | Err(_) => Err(format!("the broker has not answered for {} s", CORE_PATIENCE.as_secs())),
    }
}

/// Answers whoever asks, until the runtime ends.
pub async fn serve(listener: TcpListener, subject: Arc<Subject>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = places.clone().acquire_owned().await.expect("it is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let subject = subject.clone();
                tokio::spawn(async move {
                    let _ = timeout(CONNECTION_MAX, converse(stream, subject)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("metrics.listener: cannot accept a connection: {error}");
                sleep(OUT_OF_FILES_PAUSE).await;
            }
        }
    }
}

/// One request and its answer. How it ends is the client's affair.
async fn converse(stream: TcpStream, subject: Arc<Subject>) {
    let service = service_fn(|request: Request<Incoming>| {
        let subject = subject.clone();
        async move { Ok::<_, Infallible>(answer(&request, &subject).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .header_read_timeout(None)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!("metrics.listener: {error}");
    }
}

async fn answer(request: &Request<Incoming>, subject: &Subject) -> Response<String> {
    let path = request.uri().path();
    if !matches!(path, "/metrics" | "/healthz") {
        return plain(StatusCode::NOT_FOUND, "there are /metrics and /healthz\n".to_owned());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "allowed are GET and HEAD\n".to_owned());
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    if path == "/metrics" {
        return match subject.metrics().await {
            Ok(text) => response(StatusCode::OK, CONTENT_TYPE, text),
            Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
        };
    }
    match subject.illness().await {
        None => plain(StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    }
}

fn plain(status: StatusCode, text: String) -> Response<String> {
    response(status, PLAIN, text)
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE_HEADER, HeaderValue::from_static(content_type));
    response
}
