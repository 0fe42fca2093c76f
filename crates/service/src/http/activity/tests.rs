use std::time::Duration;

use super::*;

fn limits() -> ConnectionLimits {
    ConnectionLimits {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(90),
        write: Duration::from_secs(30),
        ..ConnectionLimits::default()
    }
}

fn after(begin: Instant, seconds: u64) -> Instant {
    begin + Duration::from_secs(seconds)
}

fn deadline(activity: &Activity, begin: Instant) -> Option<(u64, Close)> {
    let (at, why) = activity.deadline(&limits())?;
    Some((at.duration_since(begin).as_secs(), why))
}

#[test]
fn the_first_head_is_due_from_the_accept_on_however_many_bytes_arrive() {
    let begin = Instant::now();
    let activity = Activity::new(begin);
    assert_eq!(deadline(&activity, begin), Some((10, Close::Head)));
    activity.read(after(begin, 9));
    assert_eq!(deadline(&activity, begin), Some((10, Close::Head)));
}

#[test]
fn a_kept_connection_may_be_idle_for_longer_than_a_head_may_take() {
    let begin = Instant::now();
    let activity = Activity::new(begin);
    let request = activity.begin_request(false);
    assert_eq!(deadline(&activity, begin), None);
    activity.end_request(request, after(begin, 1));
    assert_eq!(deadline(&activity, begin), Some((91, Close::Idle)));
    activity.read(after(begin, 50));
    activity.read(after(begin, 55));
    assert_eq!(deadline(&activity, begin), Some((60, Close::Head)));
}

#[test]
fn pings_do_not_keep_an_idle_http2_connection_open() {
    let begin = Instant::now();
    let activity = Activity::new(begin);
    let request = activity.begin_request(true);
    activity.end_request(request, after(begin, 1));
    activity.read(after(begin, 60));
    assert_eq!(deadline(&activity, begin), Some((91, Close::Idle)));
}

#[test]
fn an_answer_that_nobody_takes_has_a_deadline_in_the_socket_and_in_the_window_of_a_stream() {
    let (begin, limits) = (Instant::now(), limits());
    let activity = Activity::new(begin);
    let (first, second) = (activity.begin_request(true), activity.begin_request(true));
    activity.answer_begins(first, after(begin, 3), limits.write);
    activity.answer_begins(second, after(begin, 2), limits.write);
    assert_eq!(deadline(&activity, begin), Some((32, Close::Write)));
    activity.answer_taken(second, limits.quota(), after(begin, 4), &limits);
    assert_eq!(deadline(&activity, begin), Some((33, Close::Write)));
    activity.write_blocked(after(begin, 1));
    activity.write_blocked(after(begin, 2));
    assert_eq!(deadline(&activity, begin), Some((31, Close::Write)));
    activity.flushed();
    activity.end_request(first, after(begin, 5));
    assert_eq!(deadline(&activity, begin), Some((34, Close::Write)));
    activity.end_request(second, after(begin, 5));
    assert_eq!(deadline(&activity, begin), Some((95, Close::Idle)));
}

#[test]
fn a_service_may_give_an_answer_less_time_than_its_listener() {
    let begin = Instant::now();
    let activity = Activity::new(begin);
    let request = activity.begin_request(false);
    activity.answer_begins(request, begin, Duration::from_secs(10));
    assert_eq!(deadline(&activity, begin), Some((10, Close::Write)));
}

#[test]
fn a_byte_now_and_then_does_not_keep_a_connection_alive() {
    let (begin, limits) = (Instant::now(), limits());
    let activity = Activity::new(begin);
    let request = activity.begin_request(true);
    activity.answer_begins(request, begin, limits.write);
    for second in 1..30 {
        activity.answer_taken(request, 1, after(begin, second), &limits);
    }
    assert_eq!(deadline(&activity, begin), Some((30, Close::Write)));
    activity.answer_taken(request, limits.quota(), after(begin, 29), &limits);
    assert_eq!(deadline(&activity, begin), Some((59, Close::Write)));
    activity.end_request(request, after(begin, 30));
    activity.write_blocked(after(begin, 30));
    for second in 31..60 {
        activity.wrote(1, after(begin, second), &limits);
    }
    assert_eq!(deadline(&activity, begin), Some((60, Close::Write)));
    activity.wrote(limits.quota(), after(begin, 59), &limits);
    assert_eq!(deadline(&activity, begin), Some((89, Close::Write)));
}

#[test]
fn an_answer_has_a_deadline_however_fast_others_on_its_connection_are_taken() {
    let (begin, limits) = (Instant::now(), limits());
    let activity = Activity::new(begin);
    let (held, other) = (activity.begin_request(true), activity.begin_request(true));
    activity.answer_begins(held, begin, limits.write);
    activity.answer_begins(other, begin, limits.write);
    let whole = limits.answer.as_secs();
    for second in 1..whole {
        activity.answer_taken(held, 1, after(begin, second), &limits);
        activity.answer_taken(other, limits.quota(), after(begin, second), &limits);
    }
    assert_eq!(deadline(&activity, begin), Some((whole, Close::Write)));
}
