//! Back-pressure: the records in flight stay within a budget of records and bytes.
//!
//! Beyond the budget the loop waits a moment for half of it to be free, then pauses its partitions and goes on polling,
//! so that the group never considers this member dead.

use crate::in_flight::Usage;

/// The budget, and whether the partitions are paused because of it.
#[derive(Debug)]
pub(super) struct Budget {
    max: Usage,
    paused: bool,
    stage: &'static str,
}

impl Budget {
    pub(super) const fn new(max: Usage, stage: &'static str) -> Self {
        Self {
            max,
            paused: false,
            stage,
        }
    }

    /// True while more may be read.
    pub(super) const fn allows(&self, used: Usage) -> bool {
        used.is_within(self.max)
    }

    /// The usage down to which the workers must come before reading goes on: half of the budget.
    pub(super) const fn low(&self) -> Usage {
        Usage {
            records: self.max.records / 2,
            bytes: self.max.bytes / 2,
        }
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.paused
    }

    /// The partitions are paused or resumed.
    pub(super) fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
        metrics::gauge!("tollgate_log_paused", "stage" => self.stage)
            .set(f64::from(u8::from(paused)));
    }
}
