//! How many connections there may be, in all and of one NAS; each holds its place until it is dropped.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::telemetry::{Metrics, Nas};

/// The connections that are open.
pub struct Limits(Arc<Shared>);

struct Shared {
    metrics: Metrics,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    total: u32,
    by_nas: HashMap<String, u32>,
}

/// One open connection.
pub struct Place {
    shared: Arc<Shared>,
    nas: Option<String>,
}

/// Why there is no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    Total(u32),
    OfNas { nas: String, limit: u32 },
}

impl Refused {
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Total(_) => "too_many",
            Self::OfNas { .. } => "too_many_of_nas",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Total(limit) => {
                write!(f, "{limit} connections are open, as many as [radius] radsec_connections allows")
            }
            Self::OfNas { nas, limit } => {
                write!(f, "NAS {nas} has {limit} connections, as many as [radius] radsec_connections_per_nas allows")
            }
        }
    }
}

impl Limits {
    pub fn new(metrics: Metrics) -> Self {
        Self(Arc::new(Shared { metrics, open: Mutex::default() }))
    }

    /// A place for a connection of a NAS that is not known yet.
    pub fn enter(&self, limit: u32) -> Result<Place, Refused> {
        let mut open = self.0.open();
        if open.total >= limit {
            return Err(Refused::Total(limit));
        }
        open.total += 1;
        Ok(Place { shared: Arc::clone(&self.0), nas: None })
    }
}

impl Place {
    /// The connection is of this NAS.
    pub fn belong(mut self, nas: &str, limit: u32) -> Result<Self, Refused> {
        {
            let mut open = self.shared.open();
            let count = open.by_nas.entry(nas.to_owned()).or_default();
            if *count >= limit {
                return Err(Refused::OfNas { nas: nas.to_owned(), limit });
            }
            *count += 1;
        }
        self.shared.metrics.radsec_connections.get_or_create(&Nas::new(nas)).inc();
        self.nas = Some(nas.to_owned());
        Ok(self)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("nas", &self.nas).finish_non_exhaustive()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.shared.open();
        open.total = open.total.saturating_sub(1);
        if let Some(nas) = &self.nas {
            if let Some(count) = open.by_nas.get_mut(nas) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    open.by_nas.remove(nas);
                }
            }
            self.shared.metrics.radsec_connections.get_or_create(&Nas::new(nas)).dec();
        }
    }
}

impl Shared {
    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        // Counts are changed in one step each.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_connection_ends() {
        let limits = Limits::new(Metrics::new());
        let first = limits.enter(3).and_then(|place| place.belong("bng1", 1)).expect("room");
        let refused = limits.enter(3).and_then(|place| place.belong("bng1", 1)).err();
        assert_eq!(refused, Some(Refused::OfNas { nas: "bng1".to_owned(), limit: 1 }));
        let second = limits.enter(3).and_then(|place| place.belong("bng2", 1)).expect("another NAS");
        let third = limits.enter(3).expect("the refused one left its place");
        assert_eq!(limits.enter(3).err(), Some(Refused::Total(3)));
        drop((first, third));
        assert!(limits.enter(3).and_then(|place| place.belong("bng1", 1)).is_ok());
        drop(second);
        assert_eq!(limits.0.open().total, 0);
        assert!(limits.0.open().by_nas.is_empty());
    }
}
