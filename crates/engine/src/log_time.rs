//! How far the log has come, by the timestamps of its records.
//!
//! Invariant: the time is at most the earliest of some [`GROUP`] records in a row. So fewer records than these, with a wrong
//! timestamp far ahead, do not move it.

const GROUP: u32 = 1_024;

/// The hour that the log has reached.
#[derive(Debug, Default)]
pub(crate) struct LogTime {
    hour: u32,
    /// The earliest of the present group, and how many records it has.
    earliest: u32,
    records: u32,
}

impl LogTime {
    /// A record of this time, in milliseconds since 1970.
    pub(crate) fn pass(&mut self, record_ms: i64) {
        let hour = hour(record_ms);
        self.earliest = match self.records {
            0 => hour,
            _ => self.earliest.min(hour),
        };
        self.records += 1;
        if self.records == GROUP {
            self.hour = self.hour.max(self.earliest);
            self.records = 0;
        }
    }

    /// The hour that the log has reached, since 1970; 0 at first.
    pub(crate) const fn hour(&self) -> u32 {
        self.hour
    }
}

/// The hour of a time in milliseconds since 1970.
pub(crate) fn hour(record_ms: i64) -> u32 {
    u32::try_from(record_ms / 3_600_000).unwrap_or(if record_ms < 0 { 0 } else { u32::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_records_from_the_future_do_not_move_the_time() {
        let mut time = LogTime::default();
        let pass = |time: &mut LogTime, hour: i64, records: u32| {
            (0..records).for_each(|_| time.pass(hour * 3_600_000));
        };
        pass(&mut time, 100, GROUP);
        assert_eq!(time.hour(), 100);
        pass(&mut time, 101, 1);
        pass(&mut time, 900_000, GROUP - 1);
        assert_eq!(time.hour(), 101);
        pass(&mut time, 50, GROUP);
        assert_eq!(time.hour(), 101, "it never goes back");
    }
}
