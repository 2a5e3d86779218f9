//! API keys at the door: made from 256 random bits, known by their SHA-256, remembered for a moment.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::problem::Problem;
use crate::store::keys::KeyRow;
use crate::store::{Store, keys};
use crate::vocabulary::hex;

/// How many requests a key may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub per_second: u32,
    pub burst: u32,
}

/// A key as it is printed once. **Shape**: `lm_` and 64 hex digits.
pub struct NewKey {
    pub text: String,
    /// A short name for lists and logs; tells nothing about the key.
    pub id: String,
    pub hash: Vec<u8>,
}

const PREFIX: &str = "lm_";
const KEY_OCTETS: usize = 32;
const ID_OCTETS: usize = 6;
/// How long a revoked key may still be let in.
const REMEMBERED_FOR: Duration = Duration::from_secs(2);
const REMEMBERED_MAX: usize = 10_000;

/// Makes a key from the system's randomness.
///
/// **Errors**: the system has no randomness.
pub fn new_key() -> Result<NewKey, getrandom::Error> {
    let (mut octets, mut id) = ([0u8; KEY_OCTETS], [0u8; ID_OCTETS]);
    getrandom::fill(&mut octets)?;
    getrandom::fill(&mut id)?;
    let text = format!("{PREFIX}{}", hex(octets));
    let hash = hash(&text);
    Ok(NewKey { id: format!("key_{}", hex(id)), hash: hash.to_vec(), text })
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Looks keys up and counts their requests.
#[derive(Clone)]
pub(crate) struct Keyring {
    inner: Arc<Inner>,
}

/// A key and when it was looked up.
type Remembered = (Arc<KeyRow>, Instant);

struct Inner {
    remembered: Mutex<HashMap<[u8; 32], Remembered>>,
    limiter: Mutex<Option<Arc<DefaultKeyedRateLimiter<String>>>>,
}

impl Keyring {
    pub(crate) fn new(limit: Option<RateLimit>) -> Self {
        let ring = Self { inner: Arc::new(Inner { remembered: Mutex::default(), limiter: Mutex::new(None) }) };
        ring.limit(limit);
        ring
    }

    /// Changes the rate limit; every key begins anew.
    pub(crate) fn limit(&self, limit: Option<RateLimit>) {
        let quota = limit.and_then(|limit| {
            let per_second = NonZeroU32::new(limit.per_second)?;
            Some(Quota::per_second(per_second).allow_burst(NonZeroU32::new(limit.burst).unwrap_or(per_second)))
        });
        let limiter = quota.map(|quota| Arc::new(RateLimiter::keyed(quota)));
        *self.inner.limiter.lock().unwrap_or_else(PoisonError::into_inner) = limiter;
    }

    /// The living key of this text.
    pub(crate) async fn open(&self, text: &str, store: &Store) -> Result<Arc<KeyRow>, Problem> {
        if !text.starts_with(PREFIX) || text.len() > 200 {
            return Err(Problem::unauthorized());
        }
        let hash = hash(text);
        if let Some(key) = self.remembered(&hash) {
            return Ok(key);
        }
        let mut tx = store.read().await?;
        let found = keys::by_hash(&mut tx, &hash).await?;
        drop(tx);
        match found {
            Some(key) if key.revoked_at.is_none() && bool::from(key.hash.as_slice().ct_eq(&hash)) => {
                Ok(self.remember(hash, key))
            }
            _ => Err(Problem::unauthorized()),
        }
    }

    /// Counts one request of a key.
    pub(crate) fn admit(&self, key: &KeyRow) -> Result<(), Problem> {
        let limiter = self.inner.limiter.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(limiter) = limiter else { return Ok(()) };
        limiter.check_key(&key.id).map_err(|early| {
            let wait = early.wait_time_from(DefaultClock::default().now());
            Problem::too_many_requests(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
        })
    }

    fn remembered(&self, hash: &[u8; 32]) -> Option<Arc<KeyRow>> {
        let remembered = self.inner.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(hash).filter(|(_, since)| since.elapsed() < REMEMBERED_FOR).map(|(key, _)| key.clone())
    }

    fn remember(&self, hash: [u8; 32], key: KeyRow) -> Arc<KeyRow> {
        let key = Arc::new(key);
        let mut remembered = self.inner.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(hash, (key.clone(), Instant::now()));
        key
    }
}
