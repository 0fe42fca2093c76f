//! What a card number (PAN) is: a length and a prefix that an issuer uses, and a check digit that is right.
//!
//! Prefixes are those of ISO/IEC 7812 as the schemes publish them. The check digit is that of Luhn (ISO/IEC 7812-1, annex
//! B): of ten random numbers with a known prefix and length one passes.

/// The shortest and the longest card number, in digits.
pub(super) const MIN_DIGITS: usize = 12;
pub(super) const MAX_DIGITS: usize = 19;

/// Whether these ASCII digits are a card number.
pub(super) fn is_card_number(digits: &[u8]) -> bool {
    (MIN_DIGITS..=MAX_DIGITS).contains(&digits.len())
        && is_of_an_issuer(digits)
        && passes_luhn(digits)
}

fn is_of_an_issuer(digits: &[u8]) -> bool {
    let prefix = |length: usize| {
        digits[..length]
            .iter()
            .fold(0_u32, |number, digit| number * 10 + u32::from(digit - b'0'))
    };
    let (two, three, four, six) = (prefix(2), prefix(3), prefix(4), prefix(6));
    match digits.len() {
        // Maestro alone issues so short ones; its wide ranges would match a tenth of all numeric ids of this length.
        12 | 15 if is_maestro(four) => true,
        13 => two / 10 == 4 || is_maestro(four),
        14 => matches!(two, 36 | 38 | 39) || matches!(three, 300..=305 | 309) || is_maestro(four),
        15 => matches!(two, 34 | 37),
        16..=19 => {
            let length = digits.len();
            let visa = two / 10 == 4 && (length == 16 || length == 19);
            let mastercard = length == 16 && matches!(four, 5100..=5599 | 2221..=2720);
            // Discover, UnionPay and RuPay share ranges; JCB and Diners issue up to 19 digits.
            let discover = four == 6011 || matches!(three, 644..=649) || two == 65;
            let union_pay = two == 62 || (two == 81 && six >= 810_000);
            let jcb = matches!(four, 3528..=3589);
            let diners = matches!(two, 36 | 38 | 39) || matches!(three, 300..=305 | 309);
            let maestro = matches!(two, 50 | 56..=58 | 63 | 67) || is_maestro(four);
            visa || mastercard || discover || union_pay || jcb || diners || maestro
        }
        _ => false,
    }
}

/// The ranges in which Maestro issues numbers of every length.
const fn is_maestro(four: u32) -> bool {
    matches!(
        four,
        5018 | 5020 | 5038 | 5612 | 5893 | 6304 | 6390 | 6759 | 6761..=6763 | 6771 | 6799
    )
}

fn passes_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let value = u32::from(digit - b'0') << (at % 2);
            if value > 9 { value - 9 } else { value }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Whether the digit at this index stays in a masked number of `digits` digits: the first six and the last four, or the
/// last four alone where that would leave fewer than four unknown.
pub(super) const fn stays(index: usize, digits: usize) -> bool {
    index + 4 >= digits || (digits >= 14 && index < 6)
}

/// The mantissa of a JSON number without its sign, and the exponent; `None` if it is no number.
pub(super) fn parts_of_number(number: &[u8]) -> Option<(&[u8], i32)> {
    let number = number.strip_prefix(b"-").unwrap_or(number);
    let exponent_at = number.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let (mantissa, exponent) = match exponent_at {
        Some(at) => {
            let exponent = std::str::from_utf8(&number[at + 1..]).ok()?;
            (&number[..at], exponent.parse().ok()?)
        }
        None => (number, 0),
    };
    let mut parts = mantissa.splitn(2, |byte| *byte == b'.');
    let is_number = parts.all(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit));
    is_number.then_some((mantissa, exponent))
}

/// The digits of a number that is a whole number of 12 to 19 digits, however it is written: Java prints
/// `4.111111111111111E15`.
pub(super) fn integer_digits(mantissa: &[u8], exponent: i32) -> Option<Vec<u8>> {
    let point = mantissa.iter().position(|byte| *byte == b'.');
    let whole = i32::try_from(point.unwrap_or(mantissa.len())).ok()?;
    let mut digits: Vec<u8> = mantissa.to_vec();
    digits.retain(|byte| *byte != b'.');
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    digits.drain(..zeros);
    let length = usize::try_from(whole.checked_add(exponent)?).ok()?;
    let length = length.checked_sub(zeros)?;
    let is_whole = digits.iter().skip(length).all(|digit| *digit == b'0');
    if !is_whole || !(MIN_DIGITS..=MAX_DIGITS).contains(&length) {
        return None;
    }
    digits.resize(length, b'0');
    Some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that the schemes and the large acquirers publish for tests.
    const PUBLISHED: [&str; 24] = [
        "4111111111111111",
        "4012888888881881",
        "4222222222222",
        "4000000000000000006",
        "5555555555554444",
        "5105105105105100",
        "2223003122003222",
        "2720992593319364",
        "378282246310005",
        "371449635398431",
        "6011111111111117",
        "6011000990139424",
        "6445644564456445",
        "30569309025904",
        "38520000023237",
        "3056930009020004",
        "3530111333300000",
        "3566002020360505",
        "6200000000000005",
        "6205500000000000004",
        "6759649826438453",
        "6799990100000000019",
        "5018000000000009",
        "6304000000000000",
    ];

    #[test]
    fn the_numbers_that_schemes_publish_for_tests_are_card_numbers() {
        for number in PUBLISHED {
            assert!(is_card_number(number.as_bytes()), "{number}");
        }
    }

    #[test]
    fn a_wrong_check_digit_an_unknown_prefix_or_another_length_is_none() {
        for number in PUBLISHED {
            let mut wrong = number.as_bytes().to_vec();
            let last = wrong.len() - 1;
            wrong[last] = b'0' + (wrong[last] - b'0' + 1) % 10;
            assert!(!is_card_number(&wrong), "{number}");
        }
        for number in [
            // Milliseconds, microseconds and nanoseconds since 1970.
            "1772368200000",
            "1772368200000008",
            "1772368200000000006",
            "0000000000000000",
            "9999999999999995",
            "411111111111111",
            "41111111111",
            "2721000000000004",
        ] {
            assert!(!is_card_number(number.as_bytes()), "{number}");
        }
    }

    #[test]
    fn at_least_four_digits_of_every_number_are_hidden() {
        for digits in MIN_DIGITS..=MAX_DIGITS {
            let hidden = (0..digits).filter(|index| !stays(*index, digits)).count();
            assert!(hidden >= 4, "{digits}");
            assert!((digits - 4..digits).all(|index| stays(index, digits)));
        }
    }
}
