//! What a policy costs a transaction: fifty rules of four conditions each over thirty variables.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[path = "../tests/workload/mod.rs"]
mod workload;

use divan::Bencher;
use tollgate_policy::{Slots, check};

fn main() {
    divan::main();
}

#[divan::bench]
fn evaluate_50_rules(bencher: Bencher<'_, '_>) {
    let policy = workload::policy();
    let texts = workload::texts();
    let mut slots = Slots::new(&policy.layout);
    workload::fill(&policy, &mut slots, &texts, 7);
    bencher.bench_local(|| workload::evaluate(&policy, divan::black_box(&slots)));
}

#[divan::bench]
fn fill_30_slots_and_evaluate_50_rules(bencher: Bencher<'_, '_>) {
    let policy = workload::policy();
    let texts = workload::texts();
    let mut slots = Some(Slots::new(&policy.layout));
    let mut turn = 0;
    bencher.bench_local(|| {
        turn = (turn + 1) % 1_000;
        let mut filled = slots.take().unwrap_or_default().reuse(&policy.layout);
        workload::fill(&policy, &mut filled, &texts, turn);
        let fired = workload::evaluate(&policy, &filled);
        slots = Some(filled);
        fired
    });
}

#[divan::bench]
fn check_a_document_of_50_rules(bencher: Bencher<'_, '_>) {
    let document = workload::document();
    bencher.bench_local(|| check(divan::black_box(&document)));
}
