//! Finds card numbers in a text, in one piece or in groups of digits.
//!
//! Exempt are four forms that would otherwise be found by chance and are none: hexadecimal hashes and ids, UUIDs, IBANs
//! with a right check number, and telephone numbers that begin with a plus.

use std::ops::Range;

use super::fold::{self, Folded};
use super::number::{
    MAX_DIGITS, MIN_DIGITS, integer_digits, is_card_number, parts_of_number, stays,
};

/// A card number in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CardNumber {
    /// Where it stands, with its separators.
    pub(super) range: Range<usize>,
    digits: [u8; MAX_DIGITS],
    count: usize,
}

impl CardNumber {
    /// A number of these digits, wherever they stand.
    pub(super) fn of(range: Range<usize>, from: &[u8]) -> Option<Self> {
        if !is_card_number(from) {
            return None;
        }
        let mut digits = [b'0'; MAX_DIGITS];
        digits[..from.len()].copy_from_slice(from);
        Some(Self {
            range,
            digits,
            count: from.len(),
        })
    }

    /// Its digits, without separators.
    pub(super) fn digits(&self) -> &[u8] {
        &self.digits[..self.count]
    }

    /// Its digits with asterisks for those that are hidden.
    pub(super) fn masked(&self) -> String {
        let digits = self.digits().iter().enumerate();
        digits
            .map(|(index, digit)| match stays(index, self.count) {
                true => char::from(*digit),
                false => '*',
            })
            .collect()
    }
}

/// Shorter groups of digits do not begin a card number.
const FIRST_GROUP: usize = 4;
/// As many separators may stand between two groups: ` - `.
const MAX_SEPARATORS: usize = 3;
/// The digits of the longest telephone number: ITU-T E.164.
const MAX_TELEPHONE: usize = 15;

/// The first card number at or after `from` in a text that is folded.
fn find(text: &[u8], from: usize) -> Option<CardNumber> {
    if text.len() < from + MIN_DIGITS {
        return None;
    }
    // A group of four digits has one at each fourth byte.
    let mut at = from + FIRST_GROUP - 1;
    while at < text.len() {
        if !text[at].is_ascii_digit() {
            at += FIRST_GROUP;
            continue;
        }
        let mut start = at;
        while start > from && text[start - 1].is_ascii_digit() {
            start -= 1;
        }
        let end = end_of_digits(text, at);
        // What follows an asterisk is the end of a number that is masked already.
        let is_end = start > 0 && text[start - 1] == b'*';
        if end - start >= FIRST_GROUP && !is_end {
            let found = longest_from(text, start, end).filter(|found| !is_exempt(text, found));
            if let Some(found) = found.or_else(|| scientific(text, from, start, end)) {
                return Some(found);
            }
        }
        at = end + FIRST_GROUP;
    }
    None
}

fn end_of_digits(text: &[u8], from: usize) -> usize {
    let rest = text[from..].iter();
    from + rest.take_while(|byte| byte.is_ascii_digit()).count()
}

/// The longest card number that begins with the group of digits at `start..end`.
fn longest_from(text: &[u8], start: usize, mut end: usize) -> Option<CardNumber> {
    let mut digits = [0; MAX_DIGITS];
    let (mut count, mut group, mut longest) = (0, start..end, None);
    loop {
        if count + group.len() > MAX_DIGITS {
            return longest;
        }
        digits[count..count + group.len()].copy_from_slice(&text[group.clone()]);
        count += group.len();
        longest = CardNumber::of(start..end, &digits[..count]).or(longest);
        // Another group follows only one of four to six digits, or the eight of 8-8.
        let next = end + separators(text, end);
        if !matches!(group.len(), 4..=6 | 8) || next == end {
            return longest;
        }
        end = end_of_digits(text, next);
        if end == next {
            return longest;
        }
        group = next..end;
    }
}

/// The length of the separators at this place, as people, forms and encoded queries write them. 0 for none.
fn separators(text: &[u8], at: usize) -> usize {
    let mut end = at;
    for _ in 0..MAX_SEPARATORS {
        end += match text.get(end..).unwrap_or_default() {
            [b' ' | b'-' | b'.' | b'_' | b'/' | b'+' | b'\t', ..] => 1,
            [b'%', b'2', b'0', ..] => 3,
            _ => break,
        };
    }
    end - at
}

/// A number of which `start..end` are the digits behind the point, with an exponent: `4.111111111111111E+15`, as
/// spreadsheets write numbers of this length.
fn scientific(text: &[u8], from: usize, start: usize, end: usize) -> Option<CardNumber> {
    let begin = start.checked_sub(2).filter(|begin| *begin >= from)?;
    if !(text[begin].is_ascii_digit() && text[begin + 1] == b'.') {
        return None;
    }
    let more = text.get(end..)?.iter();
    let is_of_exponent = |byte: &&u8| matches!(byte, b'e' | b'E' | b'+' | b'0'..=b'9');
    let range = begin..end + more.take(4).take_while(is_of_exponent).count();
    let (mantissa, exponent) = parts_of_number(&text[range.clone()])?;
    CardNumber::of(range, &integer_digits(mantissa, exponent)?)
}

/// The lengths of common hashes and ids in hexadecimal digits.
const HEX_LENGTHS: [usize; 8] = [16, 24, 32, 40, 48, 64, 96, 128];

/// Whether a found number is a part of something that is no card number.
fn is_exempt(text: &[u8], found: &CardNumber) -> bool {
    let range = &found.range;
    if range.start > 0 && text[range.start - 1] == b'+' && found.count <= MAX_TELEPHONE {
        return true;
    }
    let word = surrounding(text, range, u8::is_ascii_alphanumeric);
    let is_hex = word.iter().all(u8::is_ascii_hexdigit)
        && word.iter().any(u8::is_ascii_alphabetic)
        && HEX_LENGTHS.contains(&word.len());
    is_hex
        || is_uuid(surrounding(text, range, |byte| {
            byte.is_ascii_hexdigit() || *byte == b'-'
        }))
        || {
            let spaced = surrounding(text, range, |byte| {
                byte.is_ascii_alphanumeric() || *byte == b' '
            });
            is_iban(word) || is_iban(spaced)
        }
}

/// The longest stretch around `range` whose bytes all belong.
fn surrounding<'t>(
    text: &'t [u8],
    range: &Range<usize>,
    belongs: impl Fn(&u8) -> bool,
) -> &'t [u8] {
    let before = text[..range.start].iter().rev();
    let after = text[range.end..].iter();
    let start = range.start - before.take_while(|byte| belongs(byte)).count();
    let end = range.end + after.take_while(|byte| belongs(byte)).count();
    &text[start..end]
}

fn is_uuid(word: &[u8]) -> bool {
    let at_hyphens = |(at, byte): (usize, &u8)| (*byte == b'-') == matches!(at, 8 | 13 | 18 | 23);
    word.len() == 36
        && word.iter().enumerate().all(at_hyphens)
        && word.iter().any(u8::is_ascii_alphabetic)
}

/// Whether this is an IBAN with a right check number: ISO 13616.
fn is_iban(text: &[u8]) -> bool {
    let code: Vec<u8> = text
        .iter()
        .copied()
        .filter(|byte| *byte != b' ')
        .take(35)
        .collect();
    let [a, b, c, d, rest @ ..] = code.as_slice() else {
        return false;
    };
    if !(15..=34).contains(&code.len())
        || ![a, b].iter().all(|byte| byte.is_ascii_uppercase())
        || ![c, d].iter().all(|byte| byte.is_ascii_digit())
    {
        return false;
    }
    let remainder =
        rest.iter()
            .chain([a, b, c, d])
            .fold(0_u32, |remainder, byte| {
                match char::from(*byte).to_digit(36) {
                    Some(value @ 0..=9) => (remainder * 10 + value) % 97,
                    Some(value) => (remainder * 100 + value) % 97,
                    None => remainder,
                }
            });
    remainder == 1
}

/// The text with every card number replaced by what `replace` returns for it; `None` if there is none.
pub(super) fn replaced(
    text: &[u8],
    mut replace: impl FnMut(&CardNumber) -> Option<String>,
) -> Option<Vec<u8>> {
    let folded = Folded::of(text);
    let view = folded.as_ref().map_or(text, |folded| &folded.text);
    let mut out: Option<Vec<u8>> = None;
    let mut copied = 0;
    let mut from = 0;
    while let Some(found) = find(view, from) {
        let place = match &folded {
            Some(folded) => folded.original(&found.range),
            None => found.range.clone(),
        };
        let out = out.get_or_insert_with(|| Vec::with_capacity(text.len()));
        out.extend_from_slice(&text[copied..place.start]);
        match replace(&found) {
            Some(replacement) => out.extend_from_slice(replacement.as_bytes()),
            None => mask_in_place(&text[place.clone()], found.count, out),
        }
        copied = place.end;
        from = found.range.end;
    }
    out.map(|mut out| {
        out.extend_from_slice(&text[copied..]);
        out
    })
}

/// Appends a number with its separators, and asterisks for the digits that are hidden.
fn mask_in_place(number: &[u8], digits: usize, out: &mut Vec<u8>) {
    let mut index = 0;
    // What is no UTF-8 belongs to no number.
    for character in number.utf8_chunks().flat_map(|chunk| chunk.valid().chars()) {
        let is_digit = fold::digit(character).is_some() || character.is_ascii_digit();
        if is_digit && !stays(index, digits) {
            out.push(b'*');
        } else {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        index += usize::from(is_digit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        replaced(text.as_bytes(), |_| None).map_or_else(
            || text.to_owned(),
            |masked| String::from_utf8(masked).unwrap(),
        )
    }

    #[test]
    fn a_number_is_found_in_one_piece_and_in_the_groups_that_people_write() {
        for (text, expected) in [
            ("4111111111111111", "411111******1111"),
            ("4111 1111 1111 1111", "4111 11** **** 1111"),
            ("4111-1111-1111-1111", "4111-11**-****-1111"),
            (
                "4111\u{a0}1111\u{2011}1111\u{a0}1111",
                "4111\u{a0}11**\u{2011}****\u{a0}1111",
            ),
            ("3782 822463 10005", "3782 82**** *0005"),
            ("card:4111111111111111;", "card:411111******1111;"),
            ("card4111111111111111x", "card411111******1111x"),
            ("4111111111111111=2512101", "411111******1111=2512101"),
            ("4111 1111 1111 1111 12/26", "4111 11** **** 1111 12/26"),
            ("4222222222222", "*********2222"),
            ("1234 4111111111111111", "1234 411111******1111"),
            ("1234 4111 1111 1111 1111", "1234 4111 11** **** 1111"),
            (
                "4111111111111111,5555555555554444",
                "411111******1111,555555******4444",
            ),
        ] {
            assert_eq!(masked(text), expected);
        }
    }

    #[test]
    fn hashes_uuids_ibans_dates_and_longer_numbers_are_left_alone() {
        for text in [
            "a4111111111111111bcdef0123456789",
            "a4111111-1111-4111-8111-411111111111",
            "2026-03-01 12:30:00.123456",
            "17723682000000081772368200000008",
            "41111111111111111111",
            "+49 170 1234567",
        ] {
            assert_eq!(masked(text), text);
        }
        // The check number of an IBAN is right for one in 97; of these the digits of some pass as a card number.
        let ibans = (0..5_000_u32).filter_map(|account| {
            let tail = format!("4000{account:013}");
            (2..=98)
                .map(|check| format!("CH{check:02}{tail}"))
                .find(|iban| is_iban(iban.as_bytes()))
        });
        let passing: Vec<String> = ibans
            .filter(|iban| is_card_number(&iban.as_bytes()[2..]))
            .take(3)
            .collect();
        assert_eq!(passing.len(), 3);
        for iban in passing {
            assert_eq!(masked(&iban), iban);
        }
    }
}
