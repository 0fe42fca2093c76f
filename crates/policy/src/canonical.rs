//! The canonical JSON form of a document (RFC 8785), which is what its hash is the SHA-256 of.

use std::fmt::Write as _;

use crate::source::{Item, Value};

/// The canonical text of a value without dates, infinities and the like.
pub(crate) fn canonical(item: &Item) -> String {
    let mut text = String::new();
    write_item(item, &mut text);
    text
}

fn write_item(item: &Item, to: &mut String) {
    match &item.value {
        Value::Table(table) => {
            let mut keys: Vec<(Vec<u16>, &String)> = table
                .keys()
                .map(|key| (key.encode_utf16().collect(), key))
                .collect();
            keys.sort_unstable();
            to.push('{');
            for (index, (_, key)) in keys.iter().enumerate() {
                if index > 0 {
                    to.push(',');
                }
                write_text(key, to);
                to.push(':');
                if let Some(entry) = table.get(*key) {
                    write_item(&entry.item, to);
                }
            }
            to.push('}');
        }
        Value::Array(elements) => {
            to.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    to.push(',');
                }
                write_item(element, to);
            }
            to.push(']');
        }
        Value::Text(text) => write_text(text, to),
        Value::Bool(value) => to.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => write_number(number.value, to),
        // Refused before; a document with one has no hash.
        Value::Other => to.push_str("null"),
    }
}

fn write_text(text: &str, to: &mut String) {
    to.push('"');
    for c in text.chars() {
        match c {
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '\r' => to.push_str("\\r"),
            '\t' => to.push_str("\\t"),
            '\u{8}' => to.push_str("\\b"),
            '\u{c}' => to.push_str("\\f"),
            '\0'..='\u{1f}' => {
                // Writing to a string does not fail.
                let _ = write!(to, "\\u{:04x}", u32::from(c));
            }
            _ => to.push(c),
        }
    }
    to.push('"');
}

/// A number as ECMAScript prints it: the shortest digits that give the same float, as a decimal from 1e-6 to below 1e21.
pub(crate) fn write_number(value: f64, to: &mut String) {
    if value == 0.0 {
        to.push('0');
        return;
    }
    let (digits, point) = shortest(value.abs());
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    if value < 0.0 {
        to.push('-');
    }
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    if (count..=21).contains(&point) {
        to.push_str(&digits);
        to.push_str(&zeros(point - count));
    } else if (1..=21).contains(&point) {
        let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
        to.push_str(whole);
        to.push('.');
        to.push_str(fraction);
    } else if (-5..=0).contains(&point) {
        to.push_str("0.");
        to.push_str(&zeros(-point));
        to.push_str(&digits);
    } else {
        let (first, rest) = digits.split_at(1);
        to.push_str(first);
        if !rest.is_empty() {
            to.push('.');
            to.push_str(rest);
        }
        let _ = write!(to, "e{:+}", point - 1);
    }
}

/// The shortest digits that read back as this number, of two equally near ones those that end evenly, and the power of ten
/// that 0.digits is multiplied with. The standard library takes the other ones of 1424953923781206.25.
fn shortest(value: f64) -> (String, i32) {
    let text = serde_json::to_string(&value).unwrap_or_default();
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    let zeros = all.len() - digits.len();
    let size = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
    let point = exponent.parse::<i32>().unwrap_or(0) + size(whole.len()) - size(zeros);
    (digits.trim_end_matches('0').to_owned(), point)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(value: f64) -> String {
        let mut text = String::new();
        write_number(value, &mut text);
        text
    }

    /// Appendix B of RFC 8785.
    #[test]
    fn numbers_are_those_of_the_rfc() {
        for (bits, text) in [
            (0x0000_0000_0000_0000_u64, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x8000_0000_0000_0001, "-5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
            (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
            (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5553, "333333333.3333332"),
            (0x41b3_de43_5555_5557, "333333333.33333343"),
            (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
        ] {
            assert_eq!(number(f64::from_bits(bits)), text, "{bits:x}");
        }
    }

    proptest! {
        #[test]
        fn a_number_reads_back_as_itself(value in proptest::num::f64::NORMAL) {
            prop_assert_eq!(number(value).parse::<f64>().unwrap().to_bits(), value.to_bits());
        }
    }
}
