//! The order of one outlet's events: those of one subject one after another, those of others meanwhile.
//!
//! In: events as they are read (new ones by their number, due ones from the list of those that wait) and what became of
//! attempts. Out: what may be sent next, what must wait in the list behind a failed one, and up to which number every event
//! is seen to.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// An event in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held<T> {
    pub sequence: i64,
    pub subject: Arc<str>,
    /// Attempts that were made before.
    pub attempts: i64,
    /// It stands in the list of those that wait.
    pub listed: bool,
    pub what: T,
}

/// The events of an outlet that are in memory.
///
/// A subject is *blocked* while an event of it waits in the list: later ones go there too.
#[derive(Debug)]
pub struct Order<T> {
    chains: HashMap<Arc<str>, VecDeque<Held<T>>>,
    ready: VecDeque<Arc<str>>,
    blocked: HashSet<Arc<str>>,
    /// Numbers in memory, until what became of them is recorded.
    held: HashSet<i64>,
    /// Those of them that are not in the list: a crash must find them again.
    fresh: BTreeSet<i64>,
    read: i64,
}

impl<T> Order<T> {
    /// Everything up to `position` is seen to, and these subjects have events in the list.
    pub fn new(position: i64, blocked: impl IntoIterator<Item = String>) -> Self {
        Self {
            chains: HashMap::new(),
            ready: VecDeque::new(),
            blocked: blocked.into_iter().map(Arc::from).collect(),
            held: HashSet::new(),
            fresh: BTreeSet::new(),
            read: position,
        }
    }

    /// The last number that was read.
    pub fn read(&self) -> i64 {
        self.read
    }

    /// Up to here every event is seen to once what was told so far is recorded.
    pub fn position(&self) -> i64 {
        self.fresh.first().map_or(self.read, |first| first - 1)
    }

    /// How many events are in memory.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub fn holds(&self, sequence: i64) -> bool {
        self.held.contains(&sequence)
    }

    /// The next event is none for this outlet.
    pub fn pass(&mut self, sequence: i64) {
        self.read = self.read.max(sequence);
    }

    /// Takes the next event. `Some`: an earlier one of its subject waits in the list, and it must be written there too.
    pub fn take(&mut self, sequence: i64, subject: &str, what: T) -> Option<Held<T>> {
        self.read = self.read.max(sequence);
        self.held.insert(sequence);
        self.fresh.insert(sequence);
        let held = Held { sequence, subject: Arc::from(subject), attempts: 0, listed: false, what };
        if self.blocked.contains(subject) {
            return Some(held);
        }
        self.queue(held);
        None
    }

    /// Takes an event of the list whose time has come; they come in the order of their numbers. One that is in memory is
    /// left alone.
    pub fn take_listed(&mut self, sequence: i64, subject: &str, attempts: i64, what: T) {
        if !self.held.insert(sequence) {
            return;
        }
        let subject: Arc<str> = Arc::from(subject);
        self.blocked.insert(subject.clone());
        self.queue(Held { sequence, subject, attempts, listed: true, what });
    }

    fn queue(&mut self, held: Held<T>) {
        let subject = held.subject.clone();
        match self.chains.get_mut(&subject) {
            Some(chain) => chain.push_back(held),
            None => {
                self.chains.insert(subject.clone(), VecDeque::from([held]));
                self.ready.push_back(subject);
            }
        }
    }

    /// The next event that may be sent now. Its subject rests until the attempt was told.
    pub fn pop(&mut self) -> Option<Held<T>> {
        let subject = self.ready.pop_front()?;
        self.chains.get_mut(&subject).and_then(VecDeque::pop_front)
    }

    /// An attempt succeeded, or the event was given up: the next one of its subject may go.
    pub fn ended(&mut self, subject: &Arc<str>) {
        match self.chains.get(subject) {
            Some(chain) if !chain.is_empty() => self.ready.push_back(subject.clone()),
            _ => {
                self.chains.remove(subject);
            }
        }
    }

    /// An attempt failed and the event goes to the list. What must follow it there.
    pub fn failed(&mut self, subject: &Arc<str>) -> Vec<Held<T>> {
        self.blocked.insert(subject.clone());
        self.chains.remove(subject).into_iter().flatten().collect()
    }

    /// What became of an event is told and will be recorded: it no longer holds `position` back.
    pub fn settled(&mut self, sequence: i64) {
        self.fresh.remove(&sequence);
    }

    /// What became of these is recorded.
    pub fn recorded(&mut self, sequences: impl IntoIterator<Item = i64>) {
        for sequence in sequences {
            self.held.remove(&sequence);
            self.fresh.remove(&sequence);
        }
    }

    /// No event of the subject waits in the list any more.
    pub fn free(&mut self, subject: &str) {
        if !self.chains.contains_key(subject) {
            self.blocked.remove(subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_failed_event_holds_back_its_subject_and_no_other() {
        let mut order = Order::new(0, []);
        for (sequence, subject) in [(1, "a"), (2, "b"), (3, "a"), (4, "c")] {
            assert_eq!(order.take(sequence, subject, ()), None);
        }
        let first = order.pop().expect("one");
        assert_eq!((first.sequence, order.pop().map(|held| held.sequence)), (1, Some(2)));
        assert_eq!(order.pop().map(|held| held.sequence), Some(4), "3 waits for 1");
        assert_eq!(order.pop(), None);
        let behind = order.failed(&first.subject);
        assert_eq!(behind.iter().map(|held| held.sequence).collect::<Vec<_>>(), [3]);
        assert_eq!(order.position(), 0, "nothing is recorded yet");
        order.recorded([1, 3]);
        assert_eq!(order.position(), 1, "2 is under way");
        assert!(order.take(5, "a", ()).is_some(), "it goes behind");
        order.take_listed(1, "a", 1, ());
        order.take_listed(1, "a", 1, ());
        let again = order.pop().expect("the one of the list");
        assert_eq!((again.sequence, again.attempts, again.listed), (1, 1, true));
        order.ended(&again.subject);
        order.recorded([1, 5]);
        order.free("a");
        assert_eq!(order.take(6, "a", ()), None, "nothing waits any more");
    }

    proptest! {
        /// Whatever fails and however often: each event ends once, and those of a subject in the order of their numbers.
        #[test]
        fn events_of_a_subject_end_in_order_and_once(
            subjects in prop::collection::vec(0u8..5, 1..60),
            failures in prop::collection::vec(0u8..3, 60),
            room in 1usize..6,
        ) {
            let mut order: Order<u8> = Order::new(0, []);
            // sequence → (subject, attempts): what a table would hold.
            let mut list: BTreeMap<i64, (String, i64, bool)> = BTreeMap::new();
            let mut ended: Vec<(String, i64)> = Vec::new();
            let mut next = 0;
            let mut under_way: Vec<Held<u8>> = Vec::new();
            for _ in 0..10_000 {
                while next < subjects.len() && order.len() < 8 {
                    let (sequence, subject) = (next as i64 + 1, format!("s{}", subjects[next]));
                    if let Some(held) = order.take(sequence, &subject, failures[next]) {
                        list.insert(sequence, (subject, 0, false));
                        order.recorded([held.sequence]);
                    }
                    next += 1;
                }
                let due: Vec<_> = list.iter().filter(|(_, of)| of.2).map(|(s, of)| (*s, of.clone())).collect();
                for (sequence, (subject, attempts, _)) in due {
                    order.take_listed(sequence, &subject, attempts, failures[sequence as usize - 1]);
                }
                while under_way.len() < room {
                    match order.pop() { Some(held) => under_way.push(held), None => break }
                }
                if under_way.is_empty() {
                    if next == subjects.len() && list.is_empty() { break; }
                    continue;
                }
                let held = under_way.remove(0);
                if held.attempts < i64::from(held.what) {
                    let behind = order.failed(&held.subject);
                    list.insert(held.sequence, (held.subject.to_string(), held.attempts + 1, true));
                    for held in &behind {
                        list.insert(held.sequence, (held.subject.to_string(), held.attempts, false));
                    }
                    order.recorded(behind.iter().map(|held| held.sequence).chain([held.sequence]));
                } else {
                    ended.push((held.subject.to_string(), held.sequence));
                    list.remove(&held.sequence);
                    order.ended(&held.subject);
                    order.recorded([held.sequence]);
                    let mut waits = false;
                    for (_, of) in list.iter_mut().filter(|(_, of)| of.0 == *held.subject) {
                        (of.2, waits) = (true, true);
                    }
                    if !waits { order.free(&held.subject); }
                }
            }
            prop_assert_eq!(ended.len(), subjects.len(), "each once");
            prop_assert_eq!(order.position(), subjects.len() as i64);
            let mut last: BTreeMap<String, i64> = BTreeMap::new();
            for (subject, sequence) in ended {
                let before = last.insert(subject, sequence).unwrap_or(0);
                prop_assert!(before < sequence, "in order");
            }
        }
    }
}
