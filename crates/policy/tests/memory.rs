//! Evaluation allocates nothing. A process of its own, since the allocator counts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod workload;

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tollgate_policy::Slots;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn slots_are_filled_again_and_rules_evaluated_without_an_allocation() {
    let policy = workload::policy();
    let texts = workload::texts();
    let mut slots = Slots::new(&policy.layout);
    let mut fired = 0;
    let region = Region::new(ALLOCATOR);
    for turn in 0..1_000 {
        slots = slots.reuse(&policy.layout);
        workload::fill(&policy, &mut slots, &texts, turn);
        fired += workload::evaluate(&policy, &slots);
    }
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0));
    assert!(fired > 1_000 && fired < 49_000, "{fired} of 50,000 fired");
}
