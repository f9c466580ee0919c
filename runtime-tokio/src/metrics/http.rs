//! The listener of `metrics.listener`: `/metrics` and `/healthz`, and nothing else.
//!
//! The listener works from before the broker reads its disk until the process ends. It must never endanger the broker,
//! so everything about it is limited: one request a connection, a header of at most 8 KiB, `CONNECTION_MAX` from
//! accept to close, at most `CONNECTIONS_MAX` connections at once (further ones wait in the kernel's queue), and one
//! scrape at a time.

use super::text::{CONTENT_TYPE, Text};
use super::{broker, process, world};
use crate::disk::Volume;
use crate::door::RunState;
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
use tidelog_core::ids::LogDirId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{sleep, timeout};

const CONNECTIONS_MAX: usize = 16;
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// The size limit of a request's line and headers.
const HEADER_BYTES_MAX: usize = 8 << 10;
/// A core that has not answered for this long is reported as unhealthy.
const CORE_PATIENCE: Duration = Duration::from_secs(5);
/// A volume that takes longer to measure is left out of a scrape.
const VOLUMES_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to pause when the process has no file descriptor for another connection.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(100);
const PLAIN: &str = "text/plain; charset=utf-8";

/// Reads the metrics and the health of one broker.
pub struct Observer {
    service: Arc<Service>,
    /// Locked while a scrape is gathered.
    gathering: Mutex<()>,
    /// Locked while the volumes of the log directories are measured.
    measuring: Arc<Mutex<()>>,
}

impl Observer {
    pub fn new(service: Arc<Service>) -> Arc<Self> {
        Arc::new(Self { service, gathering: Mutex::default(), measuring: Arc::default() })
    }

    /// All metrics as text; an error if the core does not answer in time.
    async fn metrics(&self) -> Result<String, String> {
        let _one_at_a_time = self.gathering.lock().await;
        let shared = self.service.shared();
        let inspected = shared.door.inspect(|machine, door| (machine.metrics(), door));
        let (metrics, door) = await_inspection(inspected).await?;
        let volumes = self.volumes(metrics.as_ref().map_or(0, |metrics| metrics.directories.len())).await;
        // A broker may have tens of thousands of samples, which take long to format.
        Ok(tokio::task::block_in_place(|| {
            let now = Instant::now();
            let mut text = Text::default();
            if let Some(metrics) = metrics {
                broker::write(&metrics, &volumes, &mut text);
            }
            let world = world::World {
                counters: &shared.counters,
                requests: &shared.counters.requests.read(now),
                door: &door,
                flushes: &shared.door.disk().flushes(now),
                budget: (shared.budget.held(), shared.budget.limit()),
                queued_bytes: shared.door.queued_bytes(),
            };
            world::write(&world, &mut text);
            process::write(&mut text);
            text.finish()
        }))
    }

    /// The volume of each log directory, as far as it can be measured. If a device hangs, that costs each scrape
    /// [`VOLUMES_TIMEOUT`] at most, and one thread for all scrapes together.
    async fn volumes(&self, dirs: usize) -> Vec<Option<Volume>> {
        let Ok(measuring) = self.measuring.clone().try_lock_owned() else { return vec![None; dirs] };
        let service = self.service.clone();
        let measured = tokio::task::spawn_blocking(move || {
            let disk = service.shared().door.disk();
            let volumes = (0..dirs).map(|dir| disk.volume(LogDirId(dir as u16))).collect();
            drop(measuring);
            volumes
        });
        match timeout(VOLUMES_TIMEOUT, measured).await {
            Ok(Ok(volumes)) => volumes,
            Ok(Err(_)) | Err(_) => vec![None; dirs],
        }
    }

    /// Why clients should not be sent to this broker; `None` if it is healthy.
    async fn why_unhealthy(&self) -> Option<String> {
        let run_state = self.service.shared().door.run_state();
        let end = || match &*run_state.borrow() {
            RunState::Fatal(text) => Some(format!("the broker has failed: {text}")),
            RunState::Stopped => Some("the broker has stopped".to_owned()),
            RunState::Starting | RunState::Ready => None,
        };
        if let Some(text) = end() {
            return Some(text);
        }
        let health = match await_inspection(self.service.shared().door.inspect(|machine, _| machine.health())).await {
            Ok(health) => health,
            Err(text) => return Some(text),
        };
        let Some(Health { state, offline }) = health else {
            return (*run_state.borrow() == RunState::Starting).then(|| "the broker is starting".to_owned());
        };
        match state {
            // The core is in the state `NotRunning` before its start and after its stop, and it may have stopped since
            // the check above.
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

/// Waits for what [`Door::inspect`](crate::door::Door::inspect) returns, up to [`CORE_PATIENCE`].
async fn await_inspection<T>(inspected: tokio::sync::oneshot::Receiver<T>) -> Result<T, String> {
    match timeout(CORE_PATIENCE, inspected).await {
        Ok(Ok(seen)) => Ok(seen),
        Ok(Err(_)) | Err(_) => Err(format!("the broker has not answered for {} s", CORE_PATIENCE.as_secs())),
    }
}

/// Accepts connections and answers their requests until the runtime ends.
pub async fn serve(listener: TcpListener, observer: Arc<Observer>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let observer = observer.clone();
                tokio::spawn(async move {
                    let _ = timeout(CONNECTION_MAX, converse(stream, observer)).await;
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

/// Serves one request. Its errors are not the broker's concern.
async fn converse(stream: TcpStream, observer: Arc<Observer>) {
    let service = service_fn(|request: Request<Incoming>| {
        let observer = observer.clone();
        async move { Ok::<_, Infallible>(answer(&request, &observer).await) }
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

async fn answer(request: &Request<Incoming>, observer: &Observer) -> Response<String> {
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
        return match observer.metrics().await {
            Ok(text) => response(StatusCode::OK, CONTENT_TYPE, text),
            Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
        };
    }
    match observer.why_unhealthy().await {
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
