//! Memory for responses: all responses of a listener share one budget until the system has taken their last byte.
//!
//! Without it, as many clients as there are connections could each ask for a large response and not read it. A request
//! reserves the most that its response can need before it is answered. A response of at most [`FREE_RESPONSE_BYTES`] bytes needs
//! no reservation: it takes the memory of the request's body, which is free by then.
//!
//! A request whose texts could have more entities than the budget has room for, which few texts have, reserves all of the
//! budget and is answered alone and in parts: each part is as large as what is left surely holds. It is refused only if
//! what was really found leaves no room for the next text.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::Body as _;
use parking_lot::Mutex;
use predictd_metrics::{Metrics, RefusalReason};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection_state::ConnectionState;
use super::error::{ApiError, Code};
use super::response_reservation::{FREE_RESPONSE_BYTES, ReservationHandle, UNIT_BYTES};
use super::response_size::ResponseSize;

/// While a request waits for memory: time between two looks for a client that does not take its response.
const EVICTION_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// A client that takes no byte for longer than this loses its connection if others wait for memory.
const STALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Memory for the responses of the admin listener, in bytes.
pub const ADMIN_BUDGET_BYTES: usize = 4 << 20;
/// Memory of each listener for metrics alone, in bytes.
const MONITORING_BUDGET_BYTES: usize = 2 << 20;
/// The route whose responses use that memory: they are small, and unread responses of other routes must not hold them up.
const MONITORING_ROUTE: &str = "/metrics";
/// Most clients that are evicted for one response that exists already.
const MAX_EVICTIONS: usize = 5;

/// The budget of one listener.
#[derive(Debug)]
pub struct ResponseBudget {
    free_units: Arc<Semaphore>,
    total_units: usize,
    /// Memory that only [`MONITORING_ROUTE`] uses.
    free_monitoring_units: Arc<Semaphore>,
    /// Connections that may hold memory.
    holders: Mutex<Vec<Weak<ConnectionState>>>,
    last_eviction: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
}

/// Extension of a response whose bytes all responses share: it needs no memory of its own.
#[derive(Debug, Clone)]
pub struct SharedBody;

/// What a request may use for its response.
#[derive(Debug)]
pub struct ResponseGrant {
    /// The memory; none for a small response.
    pub reservation: Option<ReservationHandle>,
    /// Most bytes of entities, where the budget does not surely hold all that could be found.
    pub max_entity_bytes: Option<usize>,
}

impl ResponseBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes: usize, metrics: &Arc<Metrics>) -> Arc<Self> {
        let units = (bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self {
            free_units: Arc::new(Semaphore::new(units)),
            total_units: units,
            free_monitoring_units: Arc::new(Semaphore::new(MONITORING_BUDGET_BYTES / UNIT_BYTES)),
            holders: Mutex::default(),
            last_eviction: Mutex::default(),
            metrics: Arc::clone(metrics),
        })
    }

    /// Refuses the requests that wait, and all later ones: the server stops.
    pub fn close(&self) {
        self.free_units.close();
    }

    /// Reserves `bytes` for a response, and waits for them as [`Self::grant`] does.
    ///
    /// # Errors
    /// Those of [`Self::grant`].
    pub async fn reserve(&self, bytes: usize, deadline: Instant) -> Result<Option<ReservationHandle>, ApiError> {
        let size = ResponseSize { memory_bytes: bytes, memory_bytes_without_entities: bytes, json_bytes: bytes };
        Ok(self.grant(size, deadline).await?.reservation)
    }

    /// Reserves memory for a response, and waits for it until three quarters of the time to `deadline` are over.
    ///
    /// # Errors
    /// 422 for a response that is larger than the whole budget even without entities, 503 if the memory was not free in
    /// time.
    pub async fn grant(&self, size: ResponseSize, deadline: Instant) -> Result<ResponseGrant, ApiError> {
        if size.memory_bytes <= FREE_RESPONSE_BYTES {
            return Ok(ResponseGrant { reservation: None, max_entity_bytes: None });
        }
        let all = self.total_units * UNIT_BYTES;
        let max_entity_bytes = if size.memory_bytes > all {
            Some(all.checked_sub(size.memory_bytes_without_entities).ok_or_else(|| self.too_large_error())?)
        } else {
            None
        };
        let units = to_units(size.memory_bytes.min(all));
        let acquired = match Arc::clone(&self.free_units).try_acquire_many_owned(units) {
            Ok(permit) => Some(permit),
            Err(_) => self.wait_for_units(units, deadline).await,
        };
        let permit = acquired.ok_or_else(|| self.overloaded_error())?;
        Ok(ResponseGrant { reservation: Some(ReservationHandle::new(permit, &self.metrics)), max_entity_bytes })
    }

    /// Reserves memory for a response that exists already. One that is larger than its part of the budget takes all
    /// of it. If none is free, clients that do not read are evicted; there is no wait for others.
    async fn reserve_now(&self, bytes: usize, monitoring: bool) -> Result<ReservationHandle, ApiError> {
        let (part, all) = if monitoring {
            (&self.free_monitoring_units, MONITORING_BUDGET_BYTES)
        } else {
            (&self.free_units, self.total_units * UNIT_BYTES)
        };
        let units = to_units(bytes.min(all));
        for _ in 0..MAX_EVICTIONS {
            if let Ok(permit) = Arc::clone(part).try_acquire_many_owned(units) {
                return Ok(ReservationHandle::new(permit, &self.metrics));
            }
            if !self.evict_stalled() {
                break;
            }
            // The connection ends on another task.
            tokio::time::sleep(EVICTION_POLL_INTERVAL).await;
        }
        // After the last eviction, or after a client has read its response to the end.
        let permit = Arc::clone(part).try_acquire_many_owned(units).map_err(|_| self.overloaded_error())?;
        Ok(ReservationHandle::new(permit, &self.metrics))
    }

    /// Waits for so many units. Requests are served in the order in which they came.
    async fn wait_for_units(&self, units: u32, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        let left = deadline.saturating_duration_since(Instant::now());
        let end = tokio::time::sleep(left / 4 * 3);
        let acquire = Arc::clone(&self.free_units).acquire_many_owned(units);
        tokio::pin!(acquire, end);
        loop {
            tokio::select! {
                permit = &mut acquire => return permit.ok(),
                () = &mut end => return None,
                () = tokio::time::sleep(EVICTION_POLL_INTERVAL) => {
                    self.evict_stalled();
                }
            }
        }
    }

    /// Adds a connection to those that may hold memory, once.
    pub fn register(&self, connection_state: &Arc<ConnectionState>) {
        if connection_state.is_registered.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut holders = self.holders.lock();
        if holders.len() == holders.capacity() {
            holders.retain(|holder| holder.strong_count() > 0);
        }
        holders.push(Arc::downgrade(connection_state));
    }

    /// Ends the connection whose client has read nothing for the longest time; seldom, however many requests wait. True
    /// if one ends now, or was evicted a moment ago.
    fn evict_stalled(&self) -> bool {
        let mut last = self.last_eviction.lock();
        if last.is_some_and(|last| last.elapsed() < EVICTION_POLL_INTERVAL) {
            return true;
        }
        let holders: Vec<Arc<ConnectionState>> = self.holders.lock().iter().filter_map(Weak::upgrade).collect();
        let stalled = holders.iter().filter_map(|holder| Some((holder.stall_duration()?, holder)));
        let longest = stalled.filter(|(time, _)| *time > STALL_TIMEOUT).max_by_key(|(time, _)| *time);
        if let Some((_, connection_state)) = longest {
            *last = Some(Instant::now());
            connection_state.eviction.cancel();
        }
        longest.is_some()
    }

    fn overloaded_error(&self) -> ApiError {
        self.metrics.http.record_refusal(RefusalReason::ResponseMemory);
        ApiError::new(
            Code::Overloaded,
            "Too many large responses wait for clients to read them. Try again after the time in Retry-After.",
        )
    }

    /// The refusal of a request whose response needs more memory than the whole budget.
    #[must_use]
    pub fn too_large_error(&self) -> ApiError {
        let most = (self.total_units * UNIT_BYTES) >> 20;
        ApiError::at_pointer(
            "",
            format!(
                "the response needs more than the {most} MiB of memory that the server has for responses: send fewer texts in a request, or raise --response-memory"
            ),
        )
    }
}

/// Reserves memory for every large response whose handler has not done so. Without memory the response is dropped.
pub async fn reserve_response_memory(
    State(budget): State<Arc<ResponseBudget>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let monitoring = request.uri().path() == MONITORING_ROUTE;
    let mut response = next.run(request).await;
    let size = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    if let Some(bytes) = size.filter(|&bytes| bytes > FREE_RESPONSE_BYTES)
        && response.extensions().get::<ReservationHandle>().is_none()
        && response.extensions().get::<SharedBody>().is_none()
    {
        let reservation = budget.reserve_now(bytes, monitoring).await?;
        response.extensions_mut().insert(reservation);
    }
    Ok(response)
}

/// Units that bytes of a budget take.
fn to_units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::middleware::from_fn_with_state;
    use tower::ServiceExt;

    use super::*;

    const LARGE_RESPONSE_BYTES: usize = 100 << 10;

    async fn send_request(budget: &Arc<ResponseBudget>, path: &str) -> Response {
        let router = Router::new().fallback(async || vec![b'x'; LARGE_RESPONSE_BYTES]);
        let router = router.layer(from_fn_with_state(Arc::clone(budget), reserve_response_memory));
        router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn response_budget_exhausted_metrics_still_answer() {
        let budget = ResponseBudget::new(LARGE_RESPONSE_BYTES, &Arc::new(Metrics::new().unwrap()));
        let unread = send_request(&budget, "/admin/feedback").await;
        assert_eq!(unread.status(), StatusCode::OK);
        assert_eq!(send_request(&budget, "/admin/feedback").await.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(send_request(&budget, "/metrics").await.status(), StatusCode::OK);
        drop(unread);
        assert_eq!(send_request(&budget, "/admin/feedback").await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn response_budget_stalled_reader_is_evicted() {
        let budget = ResponseBudget::new(LARGE_RESPONSE_BYTES, &Arc::new(Metrics::new().unwrap()));
        let mut unread = send_request(&budget, "/admin/feedback").await;
        let reserved = unread.extensions_mut().remove::<ReservationHandle>().unwrap();
        let connection_state = ConnectionState::new([127, 0, 0, 1].into(), Arc::default());
        let answer = connection_state.begin_request().into_tracked_body(Body::empty(), reserved.shrink_to(None));
        connection_state.mark_write_stalled();
        budget.register(&connection_state);
        let connection = tokio::spawn(async move {
            connection_state.eviction.cancelled().await;
            drop((answer, connection_state));
        });
        while send_request(&budget, "/admin/feedback").await.status() != StatusCode::OK {
            tokio::time::sleep(EVICTION_POLL_INTERVAL).await;
        }
        connection.await.unwrap();
    }
}
