//! Which open import starts next: objects of one folder are imported one after the other, in the order of their first
//! timestamps. No I/O, and the time is passed in.
//!
//! Events about objects that were uploaded together arrive in any order. So an import waits a moment for others of its
//! folder, and if there are any, the beginning of each is read before the first one starts.
//! Invariant: at most one import of a folder runs at a time, and every import starts after a bounded time, as long as the
//! beginnings of the others can be read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

/// The imports of a folder that are compared with each other, in the order of their requests.
const COMPARED: usize = 100;
/// How many times the pause an import waits at most while others arrive.
const MAX_PAUSES: u32 = 10;

/// What is to be done for an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    /// Read its beginning, and say what its first timestamp is.
    Peek,
    /// Start it.
    Start,
}

/// The imports that have not started.
#[derive(Debug)]
pub(super) struct ImportQueue {
    /// How long an import waits for others of its folder.
    pause: Duration,
    waiting: HashMap<String, Waiting>,
    arrivals: u64,
}

#[derive(Debug)]
struct Waiting {
    folder: String,
    arrival: u64,
    since: Instant,
    /// It has begun before, on this instance or on another one.
    begun: bool,
    first: First,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Unknown,
    Requested,
    Known(i64),
}

impl ImportQueue {
    pub(super) fn new(pause: Duration) -> Self {
        Self {
            pause,
            waiting: HashMap::new(),
            arrivals: 0,
        }
    }

    /// Adds an open import that has not started, unless it is known.
    pub(super) fn add(
        &mut self,
        id: &str,
        folder: impl FnOnce() -> String,
        begun: bool,
        now: Instant,
    ) {
        if self.waiting.contains_key(id) {
            return;
        }
        self.arrivals += 1;
        let waiting = Waiting {
            folder: folder(),
            arrival: self.arrivals,
            since: now,
            begun,
            first: First::Unknown,
        };
        self.waiting.insert(id.to_owned(), waiting);
    }

    /// Forgets all other imports.
    pub(super) fn retain(&mut self, is_open: impl Fn(&str) -> bool) {
        self.waiting.retain(|id, _| is_open(id));
    }

    /// Forgets an import, which has started or is requested anew.
    pub(super) fn remove(&mut self, id: &str) {
        self.waiting.remove(id);
    }

    /// The first timestamp of an object. One that cannot be read has none, and comes first: its import says why.
    pub(super) fn set_first(&mut self, id: &str, first: Option<i64>) {
        if let Some(waiting) = self.waiting.get_mut(id) {
            waiting.first = First::Known(first.unwrap_or(i64::MIN));
        }
    }

    /// The beginning of an import is being read.
    pub(super) fn set_requested(&mut self, id: &str) {
        if let Some(waiting) = self.waiting.get_mut(id) {
            waiting.first = First::Requested;
        }
    }

    /// What is to be done now, while imports of these folders are running.
    pub(super) fn actions(&self, running: &HashSet<String>, now: Instant) -> Vec<(String, Action)> {
        let mut folders: BTreeMap<&str, Vec<(&String, &Waiting)>> = BTreeMap::new();
        for (id, waiting) in &self.waiting {
            if !running.contains(&waiting.folder) {
                folders
                    .entry(&waiting.folder)
                    .or_default()
                    .push((id, waiting));
            }
        }
        let mut actions = Vec::new();
        for mut imports in folders.into_values() {
            imports.sort_by_key(|(_, waiting)| waiting.arrival);
            imports.truncate(COMPARED);
            self.actions_of(&imports, now, &mut actions);
        }
        actions
    }

    fn actions_of(
        &self,
        imports: &[(&String, &Waiting)],
        now: Instant,
        actions: &mut Vec<(String, Action)>,
    ) {
        if let Some((id, _)) = imports.iter().find(|(_, waiting)| waiting.begun) {
            actions.push(((*id).clone(), Action::Start));
            return;
        }
        let age = |waiting: &Waiting| now.saturating_duration_since(waiting.since);
        let others_may_come = imports.iter().any(|(_, waiting)| age(waiting) < self.pause);
        let waited_long = imports
            .iter()
            .any(|(_, waiting)| age(waiting) >= self.pause * MAX_PAUSES);
        if others_may_come && !waited_long {
            return;
        }
        let unknown = imports
            .iter()
            .filter(|(_, waiting)| !matches!(waiting.first, First::Known(_)));
        if imports.len() > 1 && unknown.clone().next().is_some() {
            let unread = unknown.filter(|(_, waiting)| waiting.first == First::Unknown);
            actions.extend(unread.map(|(id, _)| ((*id).clone(), Action::Peek)));
            return;
        }
        let first = imports
            .iter()
            .min_by_key(|(_, waiting)| match waiting.first {
                First::Known(first) => (first, waiting.arrival),
                First::Unknown | First::Requested => (i64::MIN, waiting.arrival),
            });
        actions.extend(first.map(|(id, _)| ((*id).clone(), Action::Start)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAUSE: Duration = Duration::from_millis(500);

    fn queue(imports: &[(&str, &str)], now: Instant) -> ImportQueue {
        let mut queue = ImportQueue::new(PAUSE);
        for (id, folder) in imports {
            queue.add(id, || (*folder).to_owned(), false, now);
        }
        queue
    }

    #[test]
    fn an_import_waits_for_others_of_its_folder_and_starts_unread_if_none_come() {
        let now = Instant::now();
        let queue = queue(&[("a", "f")], now);
        let running = HashSet::new();
        assert_eq!(queue.actions(&running, now), []);
        let start = [("a".to_owned(), Action::Start)];
        assert_eq!(queue.actions(&running, now + PAUSE), start);
        let running = HashSet::from(["f".to_owned()]);
        assert_eq!(queue.actions(&running, now + PAUSE), []);
    }

    #[test]
    fn an_import_that_had_begun_comes_first_and_at_once() {
        let now = Instant::now();
        let mut queue = queue(&[("a", "f")], now);
        queue.add("b", || "f".to_owned(), true, now);
        let start = [("b".to_owned(), Action::Start)];
        assert_eq!(queue.actions(&HashSet::new(), now), start);
    }

    #[test]
    fn imports_that_keep_arriving_do_not_delay_the_first_without_end() {
        let now = Instant::now();
        let mut queue = queue(&[("a", "f")], now);
        let later = now + PAUSE * MAX_PAUSES;
        queue.add("b", || "f".to_owned(), false, later);
        let peek = |id: &str| (id.to_owned(), Action::Peek);
        assert_eq!(
            queue.actions(&HashSet::new(), later),
            [peek("a"), peek("b")]
        );
    }

    proptest! {
        #[test]
        fn the_imports_of_a_folder_start_in_the_order_of_their_first_timestamps(
            firsts in prop::collection::vec(prop::option::of(0..5_i64), 1..30),
        ) {
            let now = Instant::now();
            let ids: Vec<String> = (0..firsts.len()).map(|n| n.to_string()).collect();
            let imports: Vec<(&str, &str)> = ids.iter().map(|id| (&**id, "f")).collect();
            let mut queue = queue(&imports, now);
            let mut started = Vec::new();
            while started.len() < ids.len() {
                let actions = queue.actions(&HashSet::new(), now + PAUSE);
                prop_assert!(!actions.is_empty());
                for (id, action) in actions {
                    match action {
                        Action::Peek => queue.set_first(&id, firsts[id.parse::<usize>().unwrap()]),
                        Action::Start => {
                            queue.remove(&id);
                            started.push(id.parse::<usize>().unwrap());
                        }
                    }
                }
            }
            let mut expected: Vec<usize> = (0..firsts.len()).collect();
            expected.sort_by_key(|n| firsts[*n]);
            prop_assert_eq!(started, expected);
        }
    }
}
