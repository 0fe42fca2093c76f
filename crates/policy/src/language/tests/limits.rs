//! The longest and deepest conditions need little stack, to check, to evaluate and to drop.

use super::super::MOST_BYTES;
use super::{Type, Value, Variables, evaluate};
use crate::fault::FaultKind;

/// Evaluates on a small stack. Threads of a service have 2 MiB, and their callers have used some of it.
fn on_a_small_stack(source: String) -> Result<Option<Value>, Vec<super::Wrong>> {
    let variables = Variables::from([
        ("n".to_owned(), (Type::Number, Some(Value::Number(1.0)))),
        ("b".to_owned(), (Type::Bool, Some(Value::Bool(true)))),
        (
            "t".to_owned(),
            (Type::String, Some(Value::String("t".into()))),
        ),
    ]);
    std::thread::Builder::new()
        .stack_size(512 * 1024)
        .spawn(move || evaluate(&source, &variables))
        .unwrap()
        .join()
        .unwrap()
}

/// A part as often as it fits into a condition.
fn filled(first: &str, part: &str, last: &str) -> String {
    let times = (MOST_BYTES - first.len() - last.len()) / part.len();
    format!("{first}{}{last}", part.repeat(times))
}

#[test]
fn rows_of_operators_as_long_as_a_condition_need_little_stack() {
    for (source, expected) in [
        (filled("n", "+n", ""), Value::Number(2_048.0)),
        (filled("n", "-1", ""), Value::Number(-2_046.0)),
        (filled("n", "*n", ""), Value::Number(1.0)),
        (filled("b", "&&b", ""), Value::Bool(true)),
        (filled("b", "||b", ""), Value::Bool(true)),
        (filled("b", "==b", ""), Value::Bool(true)),
        (filled("b", "!=!b", ""), Value::Bool(true)),
        (filled("n in [0", ",1", "]"), Value::Bool(true)),
        (filled("b", " in [true]", ""), Value::Bool(true)),
    ] {
        assert!(source.len() > MOST_BYTES - 12);
        assert_eq!(
            on_a_small_stack(source.clone()),
            Ok(Some(expected)),
            "{source}"
        );
    }
}

#[test]
fn calls_in_a_row_as_long_as_a_condition_are_refused_on_a_small_stack() {
    let faults = on_a_small_stack(filled("t", ".size()", "")).unwrap_err();
    assert!(faults.iter().all(|wrong| wrong.kind == FaultKind::Type));
    let faults = on_a_small_stack(filled("t", ".x(t)", "")).unwrap_err();
    assert_eq!(faults.len(), 1);
    let faults = on_a_small_stack(filled("t", "[0]", "")).unwrap_err();
    assert_eq!(faults[0].kind, FaultKind::Unsupported);
}

#[test]
fn nesting_ends_at_thirty_two_whatever_nests() {
    for (open, close) in [
        ("(", ")"),
        ("!", ""),
        ("-", ""),
        ("!(", ")"),
        ("b ? b : ", ""),
        ("b ? (b ? b : b) : (", ")"),
        ("[", "]"),
        ("size(", ")"),
    ] {
        for depth in [16, 200] {
            let source = format!("{}b{}", open.repeat(depth), close.repeat(depth));
            let found = on_a_small_stack(source.clone());
            if depth > 32 {
                assert_eq!(found.unwrap_err()[0].kind, FaultKind::TooDeep, "{source}");
            }
        }
    }
    let most = format!("{}b{}", "(".repeat(32), ")".repeat(32));
    assert_eq!(on_a_small_stack(most), Ok(Some(Value::Bool(true))));
    let more = format!("{}b{}", "(".repeat(33), ")".repeat(33));
    let faults = on_a_small_stack(more).unwrap_err();
    assert_eq!((faults[0].kind, faults[0].at), (FaultKind::TooDeep, 32));
}

#[test]
fn a_condition_one_byte_too_long_is_refused_before_it_is_parsed() {
    let most = filled("b", "&&b", "");
    let faults = on_a_small_stack(format!("{most}{}", " ".repeat(MOST_BYTES + 1 - most.len())));
    assert_eq!(faults.unwrap_err()[0].kind, FaultKind::TooLong);
}
