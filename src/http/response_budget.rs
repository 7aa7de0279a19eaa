//! Memory for responses: all responses of a listener share one budget until the system has taken their last byte.
//!
//! Without it, as many clients as there are connections could each ask for a large response and not read it. A request
//! reserves the most that its response can need before it is answered. A response of at most [`FREE_RESPONSE`] bytes needs
//! no reservation: it takes the place of the request's body, which is gone by then.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::Body as _;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::FREE_BODY;
use super::error::{ApiError, Code};
use super::exchange::Exchange;
use crate::metrics::{Metrics, Refused};

/// Bytes of a response that needs no reservation.
pub const FREE_RESPONSE: usize = FREE_BODY;
/// Bytes that are reserved together.
const UNIT: usize = 1 << 10;
/// While a request waits for memory: time between two looks for a client that does not take its response.
const LOOK: Duration = Duration::from_millis(50);
/// A client that takes no byte for longer than this loses its connection if others wait for memory.
const STALL: Duration = Duration::from_secs(3);
/// Memory for the responses of the admin listener, in bytes.
const ADMIN_BYTES: usize = 4 << 20;

/// The budget of one listener.
#[derive(Debug)]
pub struct ResponseBudget {
    free: Arc<Semaphore>,
    units: usize,
    /// Connections that may hold memory.
    holders: Mutex<Vec<Weak<Exchange>>>,
    last_eviction: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
}

/// Memory of one response. It goes back when this is dropped.
#[derive(Debug)]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

/// A reservation on its way from a handler to the connection.
#[derive(Debug, Clone)]
pub struct Reserved(Arc<Reservation>);

impl ResponseBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes: usize, metrics: &Arc<Metrics>) -> Arc<Self> {
        let units = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self {
            free: Arc::new(Semaphore::new(units)),
            units,
            holders: Mutex::default(),
            last_eviction: Mutex::default(),
            metrics: Arc::clone(metrics),
        })
    }

    /// The budget of the admin listener.
    #[must_use]
    pub fn of_admin(metrics: &Arc<Metrics>) -> Arc<Self> {
        Self::new(ADMIN_BYTES, metrics)
    }

    /// Gives up requests that wait, and all that come: the server ends.
    pub fn close(&self) {
        self.free.close();
    }

    /// Reserves `bytes` for a response, and waits for them until three quarters of the time to `deadline` are over.
    ///
    /// # Errors
    /// 422 for a response that is larger than the whole budget, 503 if the memory was not free in time.
    pub async fn reserve(&self, bytes: usize, deadline: Instant) -> Result<Option<Reserved>, ApiError> {
        if bytes <= FREE_RESPONSE {
            return Ok(None);
        }
        let units = self.units_for(bytes).ok_or_else(|| self.too_large(bytes))?;
        let acquired = match Arc::clone(&self.free).try_acquire_many_owned(units) {
            Ok(permit) => Some(permit),
            Err(_) => self.wait(units, deadline).await,
        };
        acquired.map(|permit| Some(self.reserved(permit))).ok_or_else(|| self.refused())
    }

    /// Reserves memory for a response that is there already. One that is larger than the budget takes all of it.
    fn reserve_now(&self, bytes: usize) -> Result<Reserved, ApiError> {
        let units = self.units_for(bytes.min(self.units * UNIT)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.free).try_acquire_many_owned(units).map_err(|_| self.refused())?;
        Ok(self.reserved(permit))
    }

    /// Waits for so many units. Requests are served in the order in which they came.
    async fn wait(&self, units: u32, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        let left = deadline.saturating_duration_since(Instant::now());
        let end = tokio::time::sleep(left / 4 * 3);
        let acquire = Arc::clone(&self.free).acquire_many_owned(units);
        tokio::pin!(acquire, end);
        loop {
            tokio::select! {
                permit = &mut acquire => return permit.ok(),
                () = &mut end => return None,
                () = tokio::time::sleep(LOOK) => self.evict_one(),
            }
        }
    }

    /// Adds a connection to those that may hold memory, once.
    pub fn list(&self, exchange: &Arc<Exchange>) {
        if exchange.listed.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut holders = self.holders.lock();
        if holders.len() == holders.capacity() {
            holders.retain(|holder| holder.strong_count() > 0);
        }
        holders.push(Arc::downgrade(exchange));
    }

    /// Ends the connection whose client has read nothing for the longest time; seldom, however many requests wait.
    fn evict_one(&self) {
        let mut last = self.last_eviction.lock();
        if last.is_some_and(|last| last.elapsed() < LOOK) {
            return;
        }
        let holders: Vec<Arc<Exchange>> = self.holders.lock().iter().filter_map(Weak::upgrade).collect();
        let stalled = holders.iter().filter_map(|holder| Some((holder.stalled_for()?, holder)));
        let longest = stalled.filter(|(time, _)| *time > STALL).max_by_key(|(time, _)| *time);
        if let Some((_, exchange)) = longest {
            *last = Some(Instant::now());
            exchange.evict();
        }
    }

    /// Units of so many bytes; nothing if the budget does not have them.
    fn units_for(&self, bytes: usize) -> Option<u32> {
        u32::try_from(bytes.div_ceil(UNIT)).ok().filter(|&units| units as usize <= self.units)
    }

    fn reserved(&self, permit: OwnedSemaphorePermit) -> Reserved {
        let metrics = Arc::clone(&self.metrics);
        metrics.http.response_memory(signed(permit.num_permits() * UNIT));
        Reserved(Arc::new(Reservation { permit, metrics }))
    }

    fn refused(&self) -> ApiError {
        self.metrics.http.refused(Refused::ResponseMemory);
        let detail = "Too many large responses wait for clients to read them. Try again after the time in Retry-After.";
        ApiError::new(Code::Overloaded, detail)
    }

    fn too_large(&self, bytes: usize) -> ApiError {
        let needed = bytes.div_ceil(1 << 20);
        let most = (self.units * UNIT) >> 20;
        ApiError::at(
            "",
            format!(
                "the response would need {needed} MiB of memory, and the server has {most} MiB for responses: send fewer texts in a request, or raise --response-memory"
            ),
        )
    }
}

impl Reserved {
    /// The reservation, of which no more is kept than a response of `bytes` needs.
    #[must_use]
    pub fn shrunk(self, bytes: Option<u64>) -> Option<Reservation> {
        let mut reservation = Arc::into_inner(self.0)?;
        let Some(bytes) = bytes.and_then(|bytes| usize::try_from(bytes).ok()) else { return Some(reservation) };
        if bytes <= FREE_RESPONSE {
            return None;
        }
        let more = reservation.permit.num_permits().saturating_sub(bytes.div_ceil(UNIT));
        if let Some(more) = reservation.permit.split(more) {
            reservation.metrics.http.response_memory(-signed(more.num_permits() * UNIT));
        }
        Some(reservation)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.metrics.http.response_memory(-signed(self.permit.num_permits() * UNIT));
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Reserves memory for every large response whose handler has not done so. Without memory the response is dropped.
pub async fn bound(State(budget): State<Arc<ResponseBudget>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let size = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    if let Some(bytes) = size.filter(|&bytes| bytes > FREE_RESPONSE)
        && response.extensions().get::<Reserved>().is_none()
    {
        match budget.reserve_now(bytes) {
            Ok(reserved) => _ = response.extensions_mut().insert(reserved),
            Err(error) => return error.into_response(),
        }
    }
    response
}
