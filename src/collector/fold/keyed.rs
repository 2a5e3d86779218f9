//! What is known by (NAS identity, Acct-Session-Id), looked up without owning the two words; and the bounded memory of
//! sessions between transactions.

use foldhash::HashMap;

use crate::store::sessions::StoredSession;

/// Values by (NAS identity, Acct-Session-Id).
#[derive(Debug)]
pub(super) struct ByKey<T> {
    by_nas: HashMap<String, HashMap<String, T>>,
    len: usize,
}

impl<T> Default for ByKey<T> {
    fn default() -> Self {
        Self { by_nas: HashMap::default(), len: 0 }
    }
}

impl<T> ByKey<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn get(&self, nas: &str, session: &str) -> Option<&T> {
        self.by_nas.get(nas)?.get(session)
    }

    pub fn get_mut(&mut self, nas: &str, session: &str) -> Option<&mut T> {
        self.by_nas.get_mut(nas)?.get_mut(session)
    }

    pub fn insert(&mut self, nas: &str, session: &str, value: T) {
        if !self.by_nas.contains_key(nas) {
            self.by_nas.insert(nas.to_owned(), HashMap::default());
        }
        let sessions = self.by_nas.get_mut(nas).expect("just inserted");
        self.len += usize::from(sessions.insert(session.to_owned(), value).is_none());
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.by_nas.values().flat_map(HashMap::values)
    }

    /// Takes everything out, as (NAS identity, Acct-Session-Id, value).
    pub fn drain(self) -> impl Iterator<Item = (String, String, T)> {
        let of_nas = |(nas, sessions): (String, HashMap<String, T>)| {
            sessions.into_iter().map(move |(session, value)| (nas.clone(), session, value))
        };
        self.by_nas.into_iter().flat_map(of_nas)
    }

    pub fn remove(&mut self, nas: &str, session: &str) -> Option<T> {
        let removed = self.by_nas.get_mut(nas)?.remove(session);
        self.len -= usize::from(removed.is_some());
        removed
    }
}

/// All incarnations of the session ids that were folded last, as the database has them.
///
/// Two generations: what was used since the last turnover, and what was used before it. It holds at most
/// `2 · GENERATION` ids, and it is true only while nobody else writes (see `Lease`).
#[derive(Debug, Default)]
pub(super) struct Memory {
    young: ByKey<Vec<StoredSession>>,
    old: ByKey<Vec<StoredSession>>,
}

impl Memory {
    /// Takes the incarnations of an id out; `None` when they must be read.
    pub fn take(&mut self, nas: &str, session: &str) -> Option<Vec<StoredSession>> {
        self.young.remove(nas, session).or_else(|| self.old.remove(nas, session))
    }

    /// Keeps all incarnations of an id, as they stand in the database now.
    pub fn keep(&mut self, nas: &str, session: &str, incarnations: Vec<StoredSession>) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(nas, session);
        self.young.insert(nas, session, incarnations);
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Session ids of one generation; a session takes 1 to 2 KiB.
const GENERATION: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_lately_is_remembered_and_the_rest_is_bounded() {
        let mut memory = Memory::default();
        for index in 0..GENERATION * 3 {
            memory.keep("bng1", &index.to_string(), Vec::new());
            memory.keep("bng2", "hot", Vec::new());
        }
        assert!(memory.young.len() + memory.old.len() <= 2 * GENERATION);
        assert!(memory.take("bng2", "hot").is_some());
        assert!(memory.take("bng2", "hot").is_none(), "taken is taken");
        assert!(memory.take("bng1", "0").is_none(), "used long ago");
        assert!(memory.take("bng1", &(GENERATION * 3 - 1).to_string()).is_some());
    }
}
