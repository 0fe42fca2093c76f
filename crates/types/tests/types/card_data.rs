//! Card data is taken out of every text, in whatever form a producer sends it; everything else stays as it came.

use std::time::Instant;

use proptest::prelude::*;
use serde_json::Value;
use tollgate_types::{CardDataFound, CardDataMode, CardIds, CardPolicy, TokenKey, Transaction};

const PAN: &str = "4111111111111111";

fn policy(mode: CardDataMode) -> CardPolicy {
    CardPolicy::new(mode, TokenKey::new(&[7; 32]))
}

fn protected(mode: CardDataMode, text: &str) -> String {
    let protected = policy(mode).protect(text.as_bytes());
    String::from_utf8(protected.text.into_owned()).unwrap()
}

fn token(mode: CardDataMode, text: &str, member: &str) -> String {
    let value: Value = serde_json::from_str(&protected(mode, text)).unwrap();
    value[member].as_str().unwrap().to_owned()
}

/// A transaction with these further members.
fn with(members: &str) -> String {
    format!(
        r#"{{"transaction_id":"t-1","user_id":"u-1","amount":12.5, "timestamp":"2026-03-01T12:30:00Z",{members}}}"#
    )
}

#[test]
fn a_number_is_masked_and_a_token_stands_beside_it() {
    let text = with(r#""card_number":"4111 1111 1111 1111", "note" : 1"#);
    let tok = token(CardDataMode::Mask, &text, "card_number_token");
    let expected = with(&format!(
        r#""card_number":"4111 11** **** 1111","card_number_token":"{tok}", "note" : 1"#
    ));
    assert_eq!(protected(CardDataMode::Mask, &text), expected);
    assert!(tok.starts_with("tok_"));
    // The same card has the same token, however it is written.
    for value in [
        r#""4111111111111111""#,
        "4111111111111111",
        "4.111111111111111E15",
        "4111111111111111.0",
    ] {
        let text = with(&format!(r#""pan":{value}"#));
        assert_eq!(
            token(CardDataMode::Mask, &text, "pan_token"),
            tok,
            "{value}"
        );
        assert_eq!(token(CardDataMode::Mask, &text, "pan"), "411111******1111");
        assert_eq!(token(CardDataMode::Tokenise, &text, "pan"), tok);
    }
    let no_key = CardPolicy::new(CardDataMode::Mask, None)
        .protect(text.as_bytes())
        .text
        .into_owned();
    let expected = with(r#""card_number":"4111 11** **** 1111", "note" : 1"#);
    assert_eq!(String::from_utf8(no_key).unwrap(), expected);
}

#[test]
fn numbers_in_arrays_objects_names_escapes_and_json_texts_are_found() {
    for members in [
        format!(r#""cards":["{PAN}",{PAN},"x"]"#),
        format!(r#""payment":{{"card":{{"number":"{PAN}"}}}}"#),
        format!(r#""{PAN}":{{"uses":3}}"#),
        format!(r#""note":"line\nwith {PAN} and \"quotes\"""#),
        r#""note":"\u0034111111\u003111111111""#.to_owned(),
        format!(r#""raw":"{{\"pan\":\"{PAN}\",\"cvv\":\"123\"}}""#),
        format!(r#""raw":"[[\"{{\\\"pan\\\":{PAN}}}\"]]""#),
        format!(r#""memo":"pan={PAN};exp=12/26""#),
    ] {
        for mode in [
            CardDataMode::Mask,
            CardDataMode::Tokenise,
            CardDataMode::Reject,
        ] {
            let text = with(&members);
            let done = policy(mode).protect(text.as_bytes());
            let shown = String::from_utf8(done.text.into_owned()).unwrap();
            assert!(!shown.contains(PAN), "{shown}");
            assert!(done.found.numbers > 0, "{members}");
            assert_eq!(done.refusal.is_some(), mode == CardDataMode::Reject);
            let value: Value = serde_json::from_str(&shown).unwrap();
            assert!(!value.to_string().contains(PAN), "{value}");
            assert!(!value.to_string().contains("cvv"), "{value}");
            assert!(Transaction::parse(shown.as_bytes()).is_ok());
        }
    }
}

/// Forms that people, spreadsheets, encoders and those who hide a number write.
#[test]
fn a_number_is_found_with_any_separator_in_any_digits_and_with_invisible_characters() {
    let full_width: String = PAN.chars().map(wide).collect();
    for text in [
        "4111.1111.1111.1111",
        "4111_1111_1111_1111",
        "4111/1111/1111/1111",
        "4111\u{a0}1111\u{a0}1111\u{a0}1111",
        "4111 - 1111 - 1111 - 1111",
        "4111\\t1111\\t1111\\t1111",
        "pan=4111+1111+1111+1111&x=1",
        "/pay?pan=4111%201111%201111%201111",
        "4111\u{b7}1111\u{b7}1111\u{b7}1111",
        "41\u{200b}11111\u{200d}11111\u{feff}1111",
        "4111\u{ad}1111\u{2060}1111\u{202e}1111",
        "4.111111111111111E+15",
        "x 4.111111111111111e15 y",
        "\u{664}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}\u{661}",
        "４１１１ 1111 １１１１ 1111",
        "\\u00341\\u200b11111111111111",
        &full_width,
    ] {
        for members in [
            format!(r#""note":"{text}""#),
            format!(r#""{text}":{{"a":1}}"#),
            format!(r#""raw":"{{\"pan\":\"{}\"}}""#, text.replace('\\', "\\\\")),
        ] {
            let done = policy(CardDataMode::Mask)
                .protect(with(&members).as_bytes())
                .text
                .into_owned();
            let shown = String::from_utf8(done).unwrap();
            let value: Value = serde_json::from_str(&shown).unwrap();
            let hidden = value
                .to_string()
                .chars()
                .filter(|character| *character == '*')
                .count();
            assert_eq!(hidden, 6, "{text}: {shown}");
        }
        // In a text that is no JSON, and in a header or a line of a log.
        let text = text.replace("\\t", "\t");
        if !text.contains('\\') {
            let masked = policy(CardDataMode::Mask).mask(&text).into_owned();
            assert_eq!(masked.matches('*').count(), 6, "{masked}");
            assert_eq!(masked.chars().count(), text.chars().count());
        }
    }
}

fn wide(digit: char) -> char {
    char::from_u32(u32::from(digit) + 0xfee0).unwrap()
}

#[test]
fn a_code_within_a_text_is_hidden_and_counted() {
    for text in [
        "pan=4111111111111111&cvv=987&x=1",
        "card[number]=4111111111111111&card[cvc]=987",
        "the security code: 987",
        "<card><cvv2>987</cvv2></card>",
        r#"body: {\"security_code\":\"987\"}"#,
    ] {
        let done = policy(CardDataMode::Mask);
        let with = with(&format!(r#""raw":"{text}""#));
        let done = done.protect(with.as_bytes());
        let shown = String::from_utf8_lossy(&done.text);
        assert!(!shown.contains("987") && !shown.contains(PAN), "{shown}");
        assert_eq!(done.found.codes, 1, "{shown}");
        assert!(Transaction::parse(&done.text).is_ok());
    }
}

/// Makes a text of a shape from a random number.
type Maker<'m> = &'m mut dyn FnMut(u64) -> String;

/// How often what is no card number is taken for one. Run with `--nocapture` for the figures.
#[test]
fn few_ids_telephone_numbers_and_times_are_taken_for_card_numbers() {
    let policy = policy(CardDataMode::Mask);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    const RUNS: u64 = 20_000;
    let mut rate = |make: &mut dyn FnMut(u64) -> String| {
        let found = (0..RUNS).filter(|_| {
            let text = format!(r#"{{"a":"{}"}}"#, make(random()));
            policy.protect(text.as_bytes()).found.numbers > 0
        });
        found.count() as f64 / RUNS as f64
    };
    let shapes: [(&str, f64, Maker<'_>); 10] = [
        ("random numbers of 10 digits", 0.0, &mut |n| {
            format!("{:010}", n % 10_u64.pow(10))
        }),
        ("random numbers of 12 digits", 0.001, &mut |n| {
            format!("{:012}", n % 10_u64.pow(12))
        }),
        ("random numbers of 16 digits", 0.06, &mut |n| {
            format!("{:016}", n % 10_u64.pow(16))
        }),
        ("milliseconds since 1970", 0.0, &mut |n| {
            format!("{}", 1_600_000_000_000 + n % 300_000_000_000)
        }),
        ("microseconds since 1970", 0.0, &mut |n| {
            format!("{}", 1_600_000_000_000_000 + n % 300_000_000_000_000)
        }),
        ("times of day without punctuation", 0.0, &mut |n| {
            format!("202{}0{}1{}{:06}", n % 10, n % 9 + 1, n % 9, n % 240_000)
        }),
        ("telephone numbers with a plus", 0.0, &mut |n| {
            format!("+49 15{} {:07}", n % 10, n % 10_000_000)
        }),
        ("German telephone numbers without a plus", 0.11, &mut |n| {
            format!("4915{:09}", n % 1_000_000_000)
        }),
        ("IP addresses and ports", 0.0, &mut |n| {
            format!(
                "{}.{}.{}.{}:{}",
                n % 256,
                (n >> 8) % 256,
                (n >> 16) % 256,
                (n >> 24) % 256,
                (n >> 32) % 65_536
            )
        }),
        ("UUIDs", 0.001, &mut |n| {
            let (a, b) = (n, n.rotate_left(29).wrapping_mul(0x2545_f491_4f6c_dd1d));
            format!(
                "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
                a >> 32,
                a >> 16 & 0xffff,
                a & 0xfff,
                b >> 52,
                b & 0xffff_ffff_ffff
            )
        }),
    ];
    for (shape, most, make) in shapes {
        let rate = rate(make);
        println!("{shape}: {:.2} %", 100.0 * rate);
        assert!(rate <= most, "{shape}: {rate}");
    }
}

#[test]
fn verification_codes_are_dropped_wherever_they_stand() {
    for (members, expected) in [
        (r#""cvv":"123","a":1"#, r#""a":1"#),
        (r#""a":1,"cvv":"123""#, r#""a":1"#),
        (
            r#""a":1 , "CVC" : 123 , "c-v-v" : 1 , "b":2"#,
            r#""a":1 , "b":2"#,
        ),
        (r#""a":1,"b":{"pin":"1234"}"#, r#""a":1,"b":{}"#),
        (
            r#""a":1,"b":{"pin":"1234","c":2,"security_code":{"v":"4111111111111111"}}"#,
            r#""a":1,"b":{"c":2}"#,
        ),
        (r#""a":1,"c\u0076v":"123""#, r#""a":1"#),
        (
            "\"a\":1,\"cvv\"                                                                           \n:\"123\"",
            r#""a":1"#,
        ),
        (r#""a":1,"card[cvc]":"123","cvvCode":123"#, r#""a":1"#),
        (
            r#""a":1,"cvv_result":"M","cvv":true"#,
            r#""a":1,"cvv_result":"M","cvv":true"#,
        ),
    ] {
        for mode in [
            CardDataMode::Mask,
            CardDataMode::Tokenise,
            CardDataMode::Reject,
        ] {
            let done = policy(mode)
                .protect(with(members).as_bytes())
                .text
                .into_owned();
            assert_eq!(String::from_utf8(done).unwrap(), with(expected));
        }
    }
    let first = r#"{ "cvv" : "123", "cvc":1, "user_id":"u" }"#;
    assert_eq!(
        protected(CardDataMode::Mask, first),
        r#"{   "user_id":"u" }"#
    );
    assert_eq!(protected(CardDataMode::Mask, r#"{"cvv":"123"}"#), "{}");
}

#[test]
fn an_id_with_a_card_number_is_refused_with_the_member_unless_ids_are_allowed() {
    for (member, value) in [
        ("user_id", format!("\"{PAN}\"")),
        ("user_id", "\"card 4111-1111-1111-1111\"".to_owned()),
        ("transaction_id", format!("\"t-{PAN}\"")),
        ("user_id", PAN.to_owned()),
    ] {
        let text = format!(r#"{{"{member}":{value}}}"#);
        for mode in [
            CardDataMode::Mask,
            CardDataMode::Tokenise,
            CardDataMode::Reject,
        ] {
            let done = policy(mode).protect(text.as_bytes());
            assert_eq!(done.refusal.unwrap().field, member);
            assert_eq!(done.found.ids, 1);
            assert!(!String::from_utf8_lossy(&done.text).contains("1111111111"));
            let allowing = policy(mode).with_ids(CardIds::Allow);
            let done = allowing.protect(text.as_bytes());
            assert_eq!(&*done.text, text.as_bytes());
            assert!(done.refusal.is_none());
        }
        let done = policy(CardDataMode::Allow).protect(text.as_bytes());
        assert!(done.refusal.is_none());
        assert_eq!(&*done.text, text.as_bytes());
    }
}

#[test]
fn what_is_no_card_number_is_left_alone() {
    for members in [
        r#""order_id":"1772368200000","at":1772368200000,"micros":1772368200000008"#,
        r#""traceparent":"00-4111111111111111aaaaaaaaaaaaaaaa-4111111111111111-01""#,
        r#""uuid":"a4111111-1111-4111-8111-411111111111""#,
        r#""iban":"GB29 NWBK 6016 1331 9268 19""#,
        r#""location":{"latitude":52.4111111111111111,"longitude":13.41}"#,
        r#""phone":"+49 170 1234567","ratio":0.4111111111111111"#,
        r#""last_four":"1111","masked":"411111******1111""#,
    ] {
        assert_eq!(protected(CardDataMode::Mask, &with(members)), with(members));
    }
    let text =
        format!(r#"{{"amount":501800000009,"order_id":"{PAN}","sub":{{"order_id":[{PAN}]}}}}"#);
    let done = policy(CardDataMode::Reject).with_exempt(["order_id"]);
    assert_eq!(&*done.protect(text.as_bytes()).text, text.as_bytes());
}

#[test]
fn the_refusal_of_a_card_number_names_the_member_and_no_value() {
    let refused = |members: &str| {
        policy(CardDataMode::Reject)
            .protect(with(members).as_bytes())
            .refusal
            .unwrap()
            .to_string()
    };
    assert_eq!(
        refused(&format!(r#""card":{{"pan":"{PAN}"}}"#)),
        "the member pan has a card number, which is refused here"
    );
    assert!(refused(&format!(r#""{PAN}":1"#)).starts_with("a member has"));
}

#[test]
fn a_member_that_the_producer_named_as_the_token_is_not_given_twice() {
    let text = with(&format!(r#""pan":"{PAN}","pan_token":"mine""#));
    assert_eq!(
        protected(CardDataMode::Mask, &text)
            .matches("pan_token")
            .count(),
        1
    );
}

/// Run with `--nocapture` for the figures.
#[test]
fn the_cost_of_a_transaction_without_card_data_is_small() {
    let text = with(
        r#""location":{"latitude":52.52,"longitude":13.405},"currency":"EUR","merchant_id":"m-17","channel":"web""#,
    );
    let policy = policy(CardDataMode::Mask);
    let time = |work: &dyn Fn()| {
        let runs = 20_000;
        let began = Instant::now();
        (0..runs).for_each(|_| work());
        began.elapsed().as_nanos() / runs
    };
    // The best of several: other processes take the cores too.
    let best = |work: &dyn Fn()| (0..10).map(|_| time(work)).min().unwrap();
    let scan = best(&|| {
        assert!(
            policy
                .protect(std::hint::black_box(text.as_bytes()))
                .found
                .is_empty()
        )
    });
    let parse =
        best(&|| assert!(Transaction::parse(std::hint::black_box(text.as_bytes())).is_ok()));
    println!("{} bytes: scan {scan} ns, parse {parse} ns", text.len());
    assert!(scan < 2 * parse + 1_000, "scan {scan} ns, parse {parse} ns");
}

/// A card number of an issuer, with its check digit.
fn card_number() -> impl Strategy<Value = String> {
    let issuers = prop_oneof![
        Just(("4", 16)),
        Just(("4", 13)),
        Just(("4", 19)),
        Just(("51", 16)),
        Just(("2221", 16)),
        Just(("2720", 16)),
        Just(("34", 15)),
        Just(("37", 15)),
        Just(("6011", 16)),
        Just(("65", 16)),
        Just(("36", 14)),
        Just(("3528", 16)),
        Just(("62", 16)),
        Just(("62", 19)),
        Just(("5018", 12)),
        Just(("6759", 13)),
        Just(("6304", 19)),
    ];
    (issuers, prop::collection::vec(0..10_u8, 19)).prop_map(|((prefix, length), digits)| {
        let mut number = prefix.to_owned();
        for digit in digits.iter().take(length - 1 - prefix.len()) {
            number.push(char::from(b'0' + digit));
        }
        let sum: u32 = number
            .bytes()
            .rev()
            .enumerate()
            .map(|(at, digit)| {
                let value = u32::from(digit - b'0') * if at % 2 == 0 { 2 } else { 1 };
                value / 10 + value % 10
            })
            .sum();
        number.push(char::from(b'0' + ((10 - sum % 10) % 10) as u8));
        number
    })
}

/// A card number as a JSON value, in one of the forms that producers send.
fn written(number: &str, form: u8) -> String {
    let grouped = |separator: &str| {
        let groups: Vec<&str> = (0..number.len())
            .step_by(4)
            .map(|at| &number[at..number.len().min(at + 4)])
            .collect();
        groups.join(separator)
    };
    match form % 12 {
        0 => format!("\"{number}\""),
        1 => number.to_owned(),
        2 => format!("\"{}\"", grouped(" ")),
        3 => format!("\"{}\"", grouped("-")),
        4 => format!("\"card {number}, thanks\""),
        5 => format!("[{{\"deep\":[\"{number}\"]}}]"),
        6 => format!("\"{}\"", grouped(".")),
        7 => format!("\"{}\"", grouped("_")),
        8 => format!("\"{}\"", grouped("/")),
        9 => format!("\"{}\"", grouped("\u{a0}")),
        10 => format!("\"{}\"", number.chars().map(wide).collect::<String>()),
        _ => format!("\"{{\\\"pan\\\":\\\"{number}\\\"}}\""),
    }
}

/// The digits of a text, without the separators of a card number.
fn digits(text: &str) -> String {
    let narrow = |character| match character {
        '\u{ff10}'..='\u{ff19}' => char::from_u32(u32::from(character) - 0xfee0).unwrap(),
        other => other,
    };
    text.replace([' ', '-', '.', '_', '/', '\u{a0}'], "")
        .chars()
        .map(narrow)
        .collect()
}

proptest! {
    #[test]
    fn no_protected_text_has_the_number_and_the_other_members_are_as_they_came(
        number in card_number(),
        form: u8,
        mode in prop_oneof![Just(CardDataMode::Mask), Just(CardDataMode::Tokenise), Just(CardDataMode::Reject)],
        before in "[a-zA-Z ]{0,20}",
        after in -1_000_000..1_000_000_i64,
    ) {
        let (before, after) = (format!(r#""before": "{before}" "#), format!(r#" "after":{after}"#));
        let text = with(&format!(r#"{before},"data":{},{after}"#, written(&number, form)));
        let done = policy(mode).protect(text.as_bytes());
        let shown = String::from_utf8(done.text.into_owned()).unwrap();
        prop_assert!(!digits(&shown).contains(&number), "{shown}");
        let end = after + "}";
        prop_assert!(shown.contains(&before) && shown.ends_with(&end));
        prop_assert!(Transaction::parse(shown.as_bytes()).is_ok());
        prop_assert_eq!(done.found, CardDataFound { numbers: 1, ..CardDataFound::default() });
        // Protecting it again changes nothing.
        let again = policy(mode).protect(shown.as_bytes());
        prop_assert_eq!(&*again.text, shown.as_bytes());
        prop_assert!(again.found.is_empty() && again.refusal.is_none());
    }

    #[test]
    fn a_cut_off_text_has_the_number_no_more(number in card_number(), form in 0..5_u8, cut: prop::sample::Index) {
        let text = with(&format!(r#""data":{},"cvv":"987""#, written(&number, form)));
        let text = &text[..cut.index(text.len())];
        let shown = protected(CardDataMode::Mask, text);
        prop_assert!(!digits(&shown).contains(&number), "{shown}");
        prop_assert!(!shown.contains("987\""), "{shown}");
    }

    #[test]
    fn no_bytes_cause_a_panic_and_what_has_few_digits_is_unchanged(text in r#"[\[\]{},:"\\ntu0-9eE+. cvpin-]{0,80}"#, bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = policy(CardDataMode::Mask).protect(text.as_bytes());
        let _ = policy(CardDataMode::Tokenise).protect(&bytes);
        let few = text.replace(|c: char| c.is_ascii_digit(), "7").replace("cv", "cw").replace("pin", "pit");
        let done = policy(CardDataMode::Mask).protect(few.as_bytes());
        prop_assert_eq!(&*done.text, few.as_bytes());
    }
}
