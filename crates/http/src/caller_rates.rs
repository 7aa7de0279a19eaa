//! Texts a second for each caller (governor's GCRA). A second's worth may come at once.
//!
//! A caller is an API key, else a client address. Addresses share a fixed number of cells,
//! chosen by a hash that no client can foresee: memory is bounded however many addresses come,
//! and two callers meet in one cell about once in 65,000 pairs.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, InsufficientCapacity, Quota, RateLimiter};
use parking_lot::Mutex;

use super::caller::Identity;
use super::client_address::rate_limit_key;

/// Unknown keys that an address may send in a second before it has to wait.
const MAX_UNKNOWN_KEYS_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// Most keys whose state is kept: more than a key file can hold.
const MAX_TRACKED_KEYS: usize = 4_096;

/// The callers' rates.
#[derive(Debug)]
pub struct RateLimits {
    default_rate: Option<NonZeroU32>,
    addresses: Option<DefaultKeyedRateLimiter<u16>>,
    unknown_keys: DefaultKeyedRateLimiter<u16>,
    keys: Mutex<HashMap<String, (NonZeroU32, Arc<DefaultDirectRateLimiter>)>>,
    hasher: RandomState,
}

/// Why a caller must wait.
#[derive(Debug, PartialEq, Eq)]
pub enum RateLimitError {
    /// This long.
    RetryAfter(Duration),
    /// No wait suffices: a request can have at most this many texts.
    ExceedsBurst(NonZeroU32),
}

impl RateLimits {
    /// `default`: texts a second for each key that has no rate of its own and for each address.
    #[must_use]
    pub fn new(default: Option<NonZeroU32>) -> Self {
        let cells = |rate| RateLimiter::keyed(Quota::per_second(rate));
        Self {
            default_rate: default,
            addresses: default.map(cells),
            unknown_keys: cells(MAX_UNKNOWN_KEYS_PER_SECOND),
            keys: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// Takes `texts` of a request of `total` texts from what the caller has left.
    ///
    /// # Errors
    /// [`RateLimitError`] if that is not enough; nothing is taken then.
    pub fn charge(&self, identity: &Identity, texts: NonZeroU32, total: NonZeroU32) -> Result<(), RateLimitError> {
        let own_rate = if let Identity::Key { rate, .. } = identity { *rate } else { None };
        let Some(rate) = own_rate.or(self.default_rate) else { return Ok(()) };
        if total > rate {
            return Err(RateLimitError::ExceedsBurst(rate));
        }
        let checked = match (identity, &self.addresses) {
            (Identity::Key { name, .. }, _) => self.key_limiter(name, rate).check_n(texts),
            (Identity::Address(address), Some(cells)) => cells.check_key_n(&self.address_cell(*address), texts),
            (Identity::Address(_), None) => return Ok(()),
        };
        match checked {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(RateLimitError::RetryAfter(not_until.wait_time_from(Instant::now()))),
            Err(InsufficientCapacity(_)) => Err(RateLimitError::ExceedsBurst(rate)),
        }
    }

    /// Counts an unknown key from this address.
    ///
    /// # Errors
    /// The time it should wait.
    pub fn record_unknown_key(&self, address: IpAddr) -> Result<(), Duration> {
        let checked = self.unknown_keys.check_key(&self.address_cell(address));
        checked.map_err(|not_until| not_until.wait_time_from(Instant::now()))
    }

    fn key_limiter(&self, name: &str, rate: NonZeroU32) -> Arc<DefaultDirectRateLimiter> {
        let mut keys = self.keys.lock();
        if let Some((limiter_rate, limiter)) = keys.get(name)
            && *limiter_rate == rate
        {
            return Arc::clone(limiter);
        }
        if keys.len() >= MAX_TRACKED_KEYS {
            // Keys that were revoked long ago: those in use are created again.
            keys.clear();
        }
        let limiter = Arc::new(RateLimiter::direct(Quota::per_second(rate)));
        keys.insert(name.to_owned(), (rate, Arc::clone(&limiter)));
        limiter
    }

    fn address_cell(&self, address: IpAddr) -> u16 {
        let [a, b, ..] = self.hasher.hash_one(rate_limit_key(address)).to_be_bytes();
        u16::from_be_bytes([a, b])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(texts: u32) -> NonZeroU32 {
        NonZeroU32::new(texts).unwrap()
    }

    fn charge_all(limits: &RateLimits, identity: &Identity, texts: NonZeroU32) -> Result<(), RateLimitError> {
        limits.charge(identity, texts, texts)
    }

    fn address(last: u8) -> Identity {
        Identity::Address([10, 0, 0, last].into())
    }

    fn key(name: &str, rate: Option<u32>) -> Identity {
        Identity::Key { name: name.to_owned(), rate: rate.map(n) }
    }

    #[test]
    fn rate_limit_two_callers_are_independent() {
        let limits = RateLimits::new(Some(n(10)));
        assert_eq!(charge_all(&limits, &address(1), n(10)), Ok(()));
        assert!(
            matches!(charge_all(&limits, &address(1), n(1)), Err(RateLimitError::RetryAfter(time)) if time <= Duration::from_secs(1))
        );
        assert_eq!(charge_all(&limits, &address(2), n(10)), Ok(()));
        assert_eq!(charge_all(&limits, &address(2), n(11)), Err(RateLimitError::ExceedsBurst(n(10))));
        // The first text of a batch is taken before its size is known.
        assert_eq!(limits.charge(&address(3), n(10), n(11)), Err(RateLimitError::ExceedsBurst(n(10))));
        assert_eq!(charge_all(&limits, &key("a", None), n(10)), Ok(()));
        assert!(charge_all(&limits, &key("a", None), n(10)).is_err());
        assert_eq!(charge_all(&limits, &key("b", Some(1_000)), n(1_000)), Ok(()));
        // A new rate starts with a full budget.
        assert_eq!(charge_all(&limits, &key("a", Some(20)), n(20)), Ok(()));
        assert!(charge_all(&RateLimits::new(None), &address(1), n(1_000_000)).is_ok());
    }

    #[test]
    fn rate_limit_many_callers_memory_is_bounded() {
        let limits = RateLimits::new(Some(n(10)));
        for i in 0..300_000_u32 {
            charge_all(&limits, &Identity::Address(std::net::Ipv4Addr::from_bits(i).into()), n(1)).ok();
            limits.record_unknown_key(std::net::Ipv4Addr::from_bits(i).into()).ok();
        }
        for i in 0..10_000 {
            charge_all(&limits, &Identity::Key { name: i.to_string(), rate: None }, n(1)).unwrap();
        }
        assert!(limits.addresses.as_ref().unwrap().len() <= 1 << 16 && limits.unknown_keys.len() <= 1 << 16);
        assert!(limits.keys.lock().len() <= MAX_TRACKED_KEYS);
    }
}
