//! When the latest transactions of a user reached the log, by the timestamps of their records.
//!
//! Invariant: `recent` holds, in order, the arrivals in (latest − window, latest], and is absent while that is the latest
//! alone. So a user who pays now and then takes no memory beside the struct.

use std::collections::VecDeque;

use super::layout::{ALLOCATION_OVERHEAD, slack};

/// Arrivals of one user. Times are milliseconds since 1970.
pub(crate) struct Arrivals {
    /// [`NEVER`] where there is none.
    latest: i64,
    recent: Option<Box<Recent>>,
}

const NEVER: i64 = i64::MIN;

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            latest: NEVER,
            recent: None,
        }
    }
}

/// Times, and how often each occurred.
#[derive(Default)]
pub(crate) struct Recent {
    times: VecDeque<(i64, u32)>,
    total: u32,
}

impl Arrivals {
    /// Number of arrivals in (r − window, r], with the one at `time`, which is not added. r is `time`, or the latest so far
    /// where that is later.
    pub(crate) fn count(&self, time: i64, window: i64) -> u32 {
        let Some(latest) = self.latest() else {
            return 1;
        };
        let after = time.max(latest).saturating_sub(window);
        match &self.recent {
            None => 1 + u32::from(latest > after),
            Some(recent) => {
                let before = recent.times.iter().take_while(|(time, _)| *time <= after);
                let before: u32 = before.map(|(_, count)| count).sum();
                (recent.total - before).saturating_add(1)
            }
        }
    }

    /// Adds an arrival.
    pub(crate) fn add(&mut self, time: i64, window: i64) {
        let Some(latest) = self.latest() else {
            self.latest = time;
            return;
        };
        let new_latest = time.max(latest);
        let after = new_latest.saturating_sub(window);
        self.latest = new_latest;
        if self.recent.is_none() && latest > after && time > after {
            let mut recent = Recent::default();
            recent.insert(latest);
            self.recent = Some(Box::new(recent));
        }
        if let Some(recent) = &mut self.recent {
            recent.evict(after);
            if time > after {
                recent.insert(time);
            }
            if recent.total == 1 {
                self.recent = None;
            }
        }
    }

    /// The latest arrival.
    pub(crate) fn latest(&self) -> Option<i64> {
        (self.latest != NEVER).then_some(self.latest)
    }

    /// Every arrival that is held, with how often it occurred, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, u32)> {
        let alone = match &self.recent {
            None => self.latest().map(|latest| (latest, 1)),
            Some(_) => None,
        };
        let recent = self.recent.iter().flat_map(|recent| recent.times.iter());
        alone.into_iter().chain(recent.copied())
    }

    /// How many entries [`Arrivals::iter`] returns.
    pub(crate) fn len(&self) -> usize {
        match &self.recent {
            None => usize::from(self.latest != NEVER),
            Some(recent) => recent.times.len(),
        }
    }

    /// The arrivals that another one held; times must ascend.
    pub(crate) fn restored(times: impl Iterator<Item = (i64, u32)>) -> Self {
        let mut recent = Recent::default();
        for (time, count) in times {
            recent.times.push_back((time, count));
            recent.total = recent.total.saturating_add(count);
        }
        Self {
            latest: recent.times.back().map_or(NEVER, |(time, _)| *time),
            recent: (recent.total > 1).then(|| Box::new(recent)),
        }
    }

    /// Memory held beside the struct itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.recent.as_ref().map_or(0, |recent| {
            let times = recent.times.capacity() * size_of::<(i64, u32)>() + ALLOCATION_OVERHEAD;
            size_of::<Recent>() + ALLOCATION_OVERHEAD + times
        })
    }
}

impl Recent {
    fn insert(&mut self, time: i64) {
        let at = self.times.partition_point(|(each, _)| *each < time);
        self.total = self.total.saturating_add(1);
        if let Some((same, count)) = self.times.get_mut(at)
            && *same == time
        {
            *count = count.saturating_add(1);
            return;
        }
        if self.times.len() == self.times.capacity() {
            self.times.reserve_exact(slack(self.times.len()).max(2));
        }
        self.times.insert(at, (time, 1));
    }

    /// Removes the arrivals up to this time.
    fn evict(&mut self, until: i64) {
        while let Some((_, count)) = self.times.pop_front_if(|(time, _)| *time <= until) {
            self.total = self.total.saturating_sub(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_are_those_of_a_list_of_all_arrivals(
            steps in prop::collection::vec((1..400_i64, any::<bool>()), 0..200), window in 1..100_i64, cut in 0..200_usize,
        ) {
            let (mut arrivals, mut all) = (Arrivals::default(), Vec::new());
            for (n, (time, add)) in steps.into_iter().enumerate() {
                let r = all.iter().copied().max().unwrap_or(i64::MIN).max(time);
                let expected = 1 + all.iter().filter(|each| (r - window + 1..=r).contains(*each)).count();
                prop_assert_eq!(arrivals.count(time, window) as usize, expected);
                if add {
                    arrivals.add(time, window);
                    all.push(time);
                }
                if n == cut {
                    arrivals = Arrivals::restored(arrivals.iter().collect::<Vec<_>>().into_iter());
                }
                prop_assert_eq!(arrivals.iter().count(), arrivals.len());
            }
        }
    }
}
