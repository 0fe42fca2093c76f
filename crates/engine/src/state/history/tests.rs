use proptest::prelude::*;
use tollgate_types::{Indicator, Indicators, Status};

use super::*;

fn indicators(numbers: &[u8]) -> Indicators {
    let name = |n: &u8| match Indicator::BUILT_IN.get(usize::from(*n)) {
        Some(built_in) if *built_in != Indicator::CONFLICTING_DUPLICATE => *built_in,
        _ => Indicator::intern(&format!("rule_{n}")).unwrap(),
    };
    numbers.iter().map(name).collect()
}

#[derive(Debug, Clone)]
struct Step {
    ahead: i64,
    fired: Vec<u8>,
    score: f64,
    amount: i64,
    located: bool,
}

fn step(span: i64) -> impl Strategy<Value = Step> {
    (
        0..span,
        prop::collection::vec(0..9_u8, 0..5),
        prop::option::of(0.5..300.0),
        0..4_i64,
        any::<bool>(),
    )
        .prop_map(|(ahead, fired, score, amount, located)| Step {
            ahead,
            fired,
            score: score.unwrap_or_default(),
            amount,
            located,
        })
}

struct Known {
    id: u64,
    time: i64,
    amount: Amount,
    location: Option<Location>,
    fired: Indicators,
    score: f64,
}

/// How times go on from one entry to the next.
#[derive(Debug, Clone, Copy)]
enum Course {
    Ascending,
    Descending,
    Mixed,
}

fn check(
    steps: &[Step],
    bounds: Bounds,
    course: Course,
    every: usize,
) -> Result<(), TestCaseError> {
    let (mut history, mut known) = (History::default(), Vec::<Known>::new());
    let mut dropped = i64::MIN;
    for (n, step) in steps.iter().enumerate() {
        let at = i64::try_from(n).unwrap();
        let time = match course {
            Course::Ascending => at / 2 + step.ahead,
            Course::Descending => -at,
            Course::Mixed => at / 40 + step.ahead,
        };
        let newest = known.iter().map(|each| each.time).max();
        if newest.is_some_and(|newest| time < newest - bounds.lookback) {
            continue;
        }
        let fired = indicators(&step.fired);
        let id = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let entry = Entry {
            time,
            id,
            amount: Amount::from_ten_thousandths(step.amount).unwrap(),
            location: step.located.then_some(Location {
                latitude: at as f64 / 100.0,
                longitude: 1.0 / 3.0,
            }),
            sender: 7,
            indicators: &fired,
            status: Status::Review,
            score: step.score,
        };
        history.remember(&entry, bounds);
        let newest = newest.unwrap_or(time).max(time);
        known.retain(|each| each.time >= newest - bounds.lookback);
        known.push(Known {
            id,
            time,
            amount: entry.amount,
            location: entry.location,
            fired: fired.clone(),
            score: step.score,
        });
        // Sorting is stable: among equal times the later in the log is last.
        known.sort_by_key(|each| each.time);
        if known.len() > bounds.rows.max(BLOCK_ROWS) {
            // The oldest makes room for a newer one; one that is itself the oldest is not remembered.
            let gone = known.remove(0);
            dropped = dropped.max(gone.time);
        }
        if n % every != 0 && n + 1 < steps.len() {
            continue;
        }
        prop_assert_eq!(history.len(), known.len());
        prop_assert_eq!(history.newest(), known.last().map(|each| each.time));
        prop_assert_eq!(
            history.is_shortened(time, bounds),
            dropped >= newest - bounds.lookback
        );
        for each in &known {
            let found = history.find(each.id).unwrap();
            prop_assert_eq!(&found.indicators, &each.fired);
            prop_assert_eq!(found.score.to_bits(), each.score.to_bits());
            prop_assert!(found.is_of(each.amount) && found.sender == 7);
        }
        prop_assert!(history.find(1).is_none());
        for (after, before) in [
            (time - 30, time + 30),
            (time - 5_000, time + 2),
            (time, time + 9),
        ] {
            let within = |each: &&Known| after < each.time && each.time < before;
            prop_assert_eq!(
                history.count(after, before),
                known.iter().filter(within).count()
            );
            let same = known
                .iter()
                .filter(within)
                .filter(|each| each.amount == entry.amount)
                .count();
            prop_assert_eq!(
                history.count_amount(entry.amount, after, before, 2),
                (same >= 2).then_some(same)
            );
            let located = known.iter().filter(|each| each.location.is_some());
            let latest = located
                .clone()
                .rfind(|each| after < each.time && each.time <= before);
            let place =
                |each: Option<&Known>| each.and_then(|each| Some((each.time, each.location?)));
            prop_assert_eq!(history.latest_place(after, before, false), place(latest));
            let earliest = located.clone().find(within).map(|each| each.time);
            let earliest =
                earliest.and_then(|first| located.clone().rfind(|each| each.time == first));
            prop_assert_eq!(
                history.earliest_place(after, before, false),
                place(earliest)
            );
        }
        let rows = history.blocks().map(Block::heap_bytes).sum::<usize>();
        prop_assert!(history.heap_bytes() >= rows);
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_short_history_is_that_of_a_list(steps in prop::collection::vec(step(60), 1..150)) {
        check(&steps, Bounds { lookback: 40, rows: 1_000 }, Course::Ascending, 1)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_long_history_is_that_of_a_list_however_its_times_go_on(
        steps in prop::collection::vec(step(400), 1_500..3_000), course in 0..3_usize, lookback in 100..2_000_i64,
    ) {
        let course = [Course::Ascending, Course::Descending, Course::Mixed][course];
        check(&steps, Bounds { lookback, rows: 100_000 }, course, 211)?;
    }

    #[test]
    fn beyond_its_most_rows_a_history_keeps_the_newest_and_says_so(
        steps in prop::collection::vec(step(400), 1_500..2_500), course in 0..3_usize, lookback in 100..4_000_i64,
    ) {
        let course = [Course::Ascending, Course::Descending, Course::Mixed][course];
        check(&steps, Bounds { lookback, rows: 700 }, course, 193)?;
    }
}
