//! Whether a snapshot may be used for a partition: it must be of the same log, at an offset between the oldest record that
//! the log still has and the committed offset, and look back far enough.

use tollgate_engine::snapshot::Header;
use tollgate_log::SnapshotRequirements;
use tollgate_types::Currency;

/// What the rules in force need of histories.
#[derive(Debug, Clone, Copy)]
pub(super) struct RulesNeed {
    /// How far they look back.
    pub(super) lookback_seconds: u64,
    /// The base currency, by which amounts are remembered.
    pub(super) base_currency: Option<Currency>,
}

/// Whether the histories of a snapshot are those required, and fit the rules.
///
/// # Errors
/// Why they are not.
pub(super) fn check(
    header: &Header,
    required: &SnapshotRequirements,
    needs: &RulesNeed,
) -> Result<(), &'static str> {
    let committed = &required.committed;
    let checks = [
        (
            header.partition == committed.partition,
            "it is of another partition",
        ),
        (
            header.partitions == committed.partitions,
            "the topic had another number of partitions",
        ),
        (
            header.log == format!("{:016x}", committed.log),
            "it is of another log: the topic or the group's offsets were created anew",
        ),
        (
            header.offset <= committed.offset,
            "it is beyond the committed offset",
        ),
        (
            header.offset >= required.oldest,
            "the log no longer has the records after it",
        ),
        (
            header.lookback_seconds >= needs.lookback_seconds,
            "the rules look back further now than when it was written",
        ),
        (
            header.base_currency == needs.base_currency,
            "the rules had another base currency when it was written",
        ),
    ];
    checks
        .into_iter()
        .find(|(good, _)| !good)
        .map_or(Ok(()), |(_, reason)| Err(reason))
}

#[cfg(test)]
mod tests {
    use tollgate_engine::snapshot::FORMAT;
    use tollgate_log::Position;
    use tollgate_types::Timestamp;

    use super::*;

    fn header() -> Header {
        Header {
            format: FORMAT,
            partition: 3,
            partitions: 12,
            log: "00000000000000f3".to_owned(),
            offset: 1_234,
            lookback_seconds: 7,
            base_currency: None,
            written_at: Timestamp::from_micros(0).unwrap(),
            bytes: 0,
        }
    }

    fn needs(lookback_seconds: u64, base_currency: Option<Currency>) -> RulesNeed {
        RulesNeed {
            lookback_seconds,
            base_currency,
        }
    }

    #[test]
    fn a_snapshot_of_other_rules_is_used_only_if_it_looks_back_as_far_and_has_the_same_base_currency()
     {
        let required = SnapshotRequirements {
            committed: Position {
                partition: 3,
                partitions: 12,
                log: 0xf3,
                offset: 1_234,
            },
            oldest: 0,
        };
        let (euro, dollar) = (Currency::parse("EUR").ok(), Currency::parse("USD").ok());
        for (written, needed, usable) in [
            ((7, None), (7, None), true),
            ((8, None), (7, None), true),
            ((6, None), (7, None), false),
            ((7, euro), (7, euro), true),
            ((7, None), (7, euro), false),
            ((7, euro), (7, None), false),
            ((7, euro), (7, dollar), false),
        ] {
            let header = Header {
                lookback_seconds: written.0,
                base_currency: written.1,
                ..header()
            };
            let checked = check(&header, &required, &needs(needed.0, needed.1));
            assert_eq!(checked.is_ok(), usable, "{written:?} {needed:?}");
        }
    }

    #[test]
    fn a_snapshot_is_used_for_its_own_partition_and_log_up_to_the_committed_offset_and_without_a_gap()
     {
        let checked = |change: &dyn Fn(&mut SnapshotRequirements)| {
            let mut required = SnapshotRequirements {
                committed: Position {
                    partition: 3,
                    partitions: 12,
                    log: 0xf3,
                    offset: 1_234,
                },
                oldest: 1_234,
            };
            change(&mut required);
            check(&header(), &required, &needs(7, None))
        };
        assert_eq!(checked(&|_| {}), Ok(()));
        assert_eq!(checked(&|required| required.committed.offset += 1), Ok(()));
        for change in [
            &|required: &mut SnapshotRequirements| required.committed.offset -= 1,
            &|required: &mut SnapshotRequirements| required.oldest += 1,
            &|required: &mut SnapshotRequirements| required.committed.log += 1,
            &|required: &mut SnapshotRequirements| required.committed.partition += 1,
            &|required: &mut SnapshotRequirements| required.committed.partitions += 1,
        ] as [&dyn Fn(&mut SnapshotRequirements); 5]
        {
            assert!(checked(change).is_err());
        }
    }
}
