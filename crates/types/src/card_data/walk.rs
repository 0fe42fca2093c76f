//! One pass over the JSON text of a transaction, which collects what is to be changed.
//!
//! Invariant: edits are made within the values and names that have card data, so that every other byte stays. The pass
//! accepts a little more than JSON; whether a text is JSON is decided where it is parsed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use serde::de::IgnoredAny;

use super::codes;
use super::number::{MIN_DIGITS, integer_digits, parts_of_number};
use super::text::{self, CardNumber};
use super::verification::is_verification_data;
use super::{CardDataFound, CardDataMode, CardIds, CardPolicy, Protected};
use crate::headers::TRACEPARENT;
use crate::{Amount, MAX_DEPTH, Rejection, TraceContext, without_mark};

/// Deeper texts are refused as transactions, and masked without regard to their members.
const DEEPEST: usize = MAX_DEPTH + 2;
/// JSON within a string of JSON is looked through up to this depth.
const MAX_NESTED: u8 = 2;
/// Integer digits that an [`Amount`] may have.
const AMOUNT_DIGITS: usize = 12;
/// What the name of a member with a card number gets, to name the member with its token.
const TOKEN_SUFFIX: &str = "_token";

/// The text is no JSON, or too deep.
#[derive(Debug)]
pub(super) struct Malformed;

/// What a member is, for the numbers in its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Numbers in it are card numbers.
    Inspected,
    /// `user_id` or `transaction_id`.
    Id(&'static str),
    /// `amount`, which may have as many digits as the shortest card number.
    Amount,
    /// Not looked at.
    Exempt,
}

/// A member whose value is being read.
struct Member<'m> {
    kind: Kind,
    name: &'m [u8],
    /// The tokens of its numbers.
    tokens: Vec<String>,
}

struct Edit {
    range: Range<usize>,
    with: String,
}

pub(super) struct Walk<'t, 'p> {
    text: &'t [u8],
    at: usize,
    policy: &'p CardPolicy,
    nested: u8,
    edits: Vec<Edit>,
    found: CardDataFound,
    refusal: Option<Rejection>,
}

impl<'t, 'p> Walk<'t, 'p> {
    /// Takes card data out of a text.
    ///
    /// # Errors
    /// The text is no JSON.
    pub(super) fn over(text: &'t [u8], policy: &'p CardPolicy) -> Result<Protected<'t>, Malformed> {
        Self::nested(text, policy, 0)
    }

    fn nested(
        text: &'t [u8],
        policy: &'p CardPolicy,
        nested: u8,
    ) -> Result<Protected<'t>, Malformed> {
        let mut walk = Self {
            text,
            at: 0,
            policy,
            nested,
            edits: Vec::new(),
            found: CardDataFound::default(),
            refusal: None,
        };
        walk.at = text.len() - without_mark(text).len();
        walk.skip_space();
        let mut whole = Member {
            kind: Kind::Inspected,
            name: b"",
            tokens: Vec::new(),
        };
        walk.value(0, &mut whole)?;
        walk.skip_space();
        if walk.at < text.len() {
            return Err(Malformed);
        }
        Ok(Protected {
            text: walk.edited(),
            found: walk.found,
            refusal: walk.refusal,
        })
    }

    fn edited(&mut self) -> Cow<'t, [u8]> {
        if self.edits.is_empty() {
            return Cow::Borrowed(self.text);
        }
        // A member with a token is added when its object ends.
        self.edits
            .sort_by_key(|edit| (edit.range.start, edit.range.end));
        let mut out = Vec::with_capacity(self.text.len() + 64);
        let mut copied = 0;
        for edit in &self.edits {
            out.extend_from_slice(&self.text[copied..edit.range.start]);
            out.extend_from_slice(edit.with.as_bytes());
            copied = edit.range.end;
        }
        out.extend_from_slice(&self.text[copied..]);
        Cow::Owned(out)
    }

    fn edit(&mut self, range: Range<usize>, with: String) {
        self.edits.push(Edit { range, with });
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(Malformed);
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self, depth: usize, member: &mut Member<'_>) -> Result<(), Malformed> {
        match self.peek().ok_or(Malformed)? {
            b'"' => {
                let (content, escaped) = self.string()?;
                self.inspect_string(content, escaped, member);
                Ok(())
            }
            b'{' if depth < DEEPEST => self.object(depth, member.kind),
            b'[' if depth < DEEPEST => self.array(depth, member),
            b'-' | b'0'..=b'9' => {
                let number = self.number();
                if number.len() < MIN_DIGITS {
                    return Ok(());
                }
                self.inspect_number(number, member)
            }
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => Err(Malformed),
        }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), Malformed> {
        if !self.text[self.at..].starts_with(word) {
            return Err(Malformed);
        }
        self.at += word.len();
        Ok(())
    }

    /// The content of a string, and whether it has escapes.
    fn string(&mut self) -> Result<(Range<usize>, bool), Malformed> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = self.text.get(self.at..).ok_or(Malformed)?;
            self.at += memchr::memchr2(b'"', b'\\', rest).ok_or(Malformed)?;
            if self.text[self.at] == b'"' {
                self.at += 1;
                return Ok((start..self.at - 1, escaped));
            }
            escaped = true;
            self.at += 2;
        }
    }

    fn number(&mut self) -> Range<usize> {
        let start = self.at;
        while matches!(
            self.peek(),
            Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
        ) {
            self.at += 1;
        }
        start..self.at
    }

    fn array(&mut self, depth: usize, member: &mut Member<'_>) -> Result<(), Malformed> {
        self.expect(b'[')?;
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.skip_space();
            self.value(depth + 1, member)?;
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                _ => return self.expect(b']'),
            }
        }
    }

    fn object(&mut self, depth: usize, around: Kind) -> Result<(), Malformed> {
        let begins = self.at;
        self.expect(b'{')?;
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        // Where the last member ended, if one before it is kept.
        let mut last_end = None;
        let mut with_tokens = Vec::new();
        loop {
            self.skip_space();
            let starts = self.at;
            let (raw_name, escaped) = self.string()?;
            let name = self.decoded(&raw_name, escaped);
            self.skip_space();
            self.expect(b':')?;
            self.skip_space();
            let value = self.at;
            let before = (self.edits.len(), self.found, self.refusal.clone());
            let mut member = Member {
                kind: self.kind_of(&name, depth, around),
                name: &name,
                tokens: Vec::new(),
            };
            self.value(depth + 1, &mut member)?;
            let tokens = member.tokens;
            let ends = self.at;
            self.skip_space();
            let another = self.peek() == Some(b',');
            if another {
                self.at += 1;
            }
            if is_verification_data(&name, &self.text[value..ends]) {
                self.edits.truncate(before.0);
                (self.found, self.refusal) = (before.1, before.2);
                self.found.codes += 1;
                // With the comma before it, or else the one behind it.
                let dropped = match last_end {
                    Some(last_end) => last_end..ends,
                    None if another => starts..self.at,
                    None => starts..ends,
                };
                self.edit(dropped, String::new());
                last_end = last_end.map(|_| ends);
            } else {
                let changed = self.inspect_name(&raw_name, &name);
                if !tokens.is_empty() {
                    let shown =
                        changed.unwrap_or_else(|| String::from_utf8_lossy(&name).into_owned());
                    with_tokens.push((ends, shown, tokens.join(" ")));
                }
                last_end = Some(ends);
            }
            if !another {
                self.expect(b'}')?;
                self.add_tokens(begins..self.at, with_tokens);
                return Ok(());
            }
        }
    }

    /// Adds a member for each token, except where the object has one of that name.
    fn add_tokens(&mut self, object: Range<usize>, with_tokens: Vec<(usize, String, String)>) {
        if with_tokens.is_empty() {
            return;
        }
        let members: BTreeMap<String, IgnoredAny> =
            serde_json::from_slice(&self.text[object]).unwrap_or_default();
        for (at, shown, tokens) in with_tokens {
            let name = format!("{shown}{TOKEN_SUFFIX}");
            if members.contains_key(&name) {
                continue;
            }
            let quoted = serde_json::to_string(&name).unwrap_or_default();
            self.edit(at..at, format!(",{quoted}:\"{tokens}\""));
        }
    }

    fn decoded(&self, content: &Range<usize>, escaped: bool) -> Cow<'t, [u8]> {
        let raw = &self.text[content.clone()];
        if escaped && let Some(decoded) = self.unescaped(content) {
            return Cow::Owned(decoded.into_bytes());
        }
        Cow::Borrowed(raw)
    }

    /// The text of a string with escapes; `None` if one of them is no character.
    fn unescaped(&self, content: &Range<usize>) -> Option<String> {
        serde_json::from_slice(&self.text[content.start - 1..=content.end]).ok()
    }

    fn kind_of(&self, name: &[u8], depth: usize, around: Kind) -> Kind {
        if around == Kind::Exempt {
            return Kind::Exempt;
        }
        if depth == 0 && self.nested == 0 {
            match name {
                b"user_id" => return Kind::Id("user_id"),
                b"transaction_id" => return Kind::Id("transaction_id"),
                b"amount" => return Kind::Amount,
                // Its ids are hexadecimal, and may have digits only.
                _ if name == TRACEPARENT.as_bytes() && self.is_trace() => return Kind::Exempt,
                _ => {}
            }
        }
        let exempt = &self.policy.exempt;
        match exempt.iter().any(|exempt| exempt.as_bytes() == name) {
            true => Kind::Exempt,
            false => Kind::Inspected,
        }
    }

    /// Whether the value that begins here is a trace context.
    fn is_trace(&self) -> bool {
        let inner = self.text[self.at..].strip_prefix(b"\"");
        let inner = inner.and_then(|rest| rest.split(|byte| *byte == b'"').next());
        inner.and_then(TraceContext::parse).is_some()
    }

    fn inspect_string(&mut self, content: Range<usize>, escaped: bool, member: &mut Member<'_>) {
        let keeps_ids = matches!(member.kind, Kind::Id(_)) && self.policy.ids == CardIds::Allow;
        if content.len() < codes::MIN_TEXT || member.kind == Kind::Exempt || keeps_ids {
            return;
        }
        if escaped && let Some(text) = self.unescaped(&content) {
            let changed = self
                .inspect_nested(&text, member)
                .or_else(|| self.replaced(text.as_bytes(), member));
            if let Some(changed) = changed {
                let quoted = serde_json::to_string(&String::from_utf8_lossy(&changed));
                self.edit(
                    content.start - 1..content.end + 1,
                    quoted.unwrap_or_default(),
                );
            }
            return;
        }
        let raw = &self.text[content.clone()];
        if let Some(changed) = self.replaced(raw, member) {
            self.edit(content, String::from_utf8_lossy(&changed).into_owned());
        }
    }

    fn replaced(&mut self, text: &[u8], member: &mut Member<'_>) -> Option<Vec<u8>> {
        let is_amount = |text| Amount::parse_decimal(text).is_ok();
        if member.kind == Kind::Amount && std::str::from_utf8(text).is_ok_and(is_amount) {
            return None;
        }
        let numbers = text::replaced(text, |number| self.take(number, member));
        if matches!(member.kind, Kind::Id(_)) {
            return numbers;
        }
        let hidden = codes::hidden(numbers.as_deref().unwrap_or(text));
        self.found.codes += hidden.as_ref().map_or(0, |(_, codes)| *codes);
        hidden.map(|(text, _)| text).or(numbers)
    }

    /// The text of a string that is JSON itself, without card data; `None` if it is none or has none.
    fn inspect_nested(&mut self, text: &str, member: &Member<'_>) -> Option<Vec<u8>> {
        if self.nested == MAX_NESTED
            || matches!(member.kind, Kind::Id(_))
            || !text
                .trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
                .starts_with(['{', '['])
        {
            return None;
        }
        let inner = Walk::nested(text.as_bytes(), self.policy, self.nested + 1).ok()?;
        self.found.numbers += inner.found.numbers;
        self.found.codes += inner.found.codes;
        if inner.refusal.is_some() {
            self.refusal.get_or_insert_with(|| refused(member.name));
        }
        match inner.text {
            Cow::Owned(changed) => Some(changed),
            Cow::Borrowed(_) => None,
        }
    }

    fn inspect_number(
        &mut self,
        range: Range<usize>,
        member: &mut Member<'_>,
    ) -> Result<(), Malformed> {
        let (mantissa, exponent) = parts_of_number(&self.text[range.clone()]).ok_or(Malformed)?;
        let digits = integer_digits(mantissa, exponent);
        let number = digits.and_then(|digits| CardNumber::of(range.clone(), &digits));
        if let Some(number) = number.filter(|number| self.is_inspected(member.kind, number)) {
            let shown = self
                .take(&number, member)
                .unwrap_or_else(|| number.masked());
            self.edit(range, format!("\"{shown}\""));
        }
        Ok(())
    }

    /// Whether a number in such a member is a card number to be taken out.
    fn is_inspected(&self, kind: Kind, number: &CardNumber) -> bool {
        match kind {
            Kind::Inspected => true,
            Kind::Id(_) => self.policy.ids == CardIds::Reject,
            Kind::Amount => number.digits().len() > AMOUNT_DIGITS,
            Kind::Exempt => false,
        }
    }

    /// Takes card numbers out of the name of a member; returns the new name if there were any.
    fn inspect_name(&mut self, content: &Range<usize>, name: &[u8]) -> Option<String> {
        if name.len() < MIN_DIGITS {
            return None;
        }
        let mut whole = Member {
            kind: Kind::Inspected,
            name: b"",
            tokens: Vec::new(),
        };
        let changed = text::replaced(name, |number| self.take(number, &mut whole))?;
        let shown = String::from_utf8_lossy(&changed).into_owned();
        let quoted = serde_json::to_string(&shown).unwrap_or_default();
        self.edit(content.start - 1..content.end + 1, quoted);
        Some(shown)
    }

    /// Counts a card number; returns what takes its place, or `None` if it is masked.
    fn take(&mut self, number: &CardNumber, member: &mut Member<'_>) -> Option<String> {
        if let Kind::Id(field) = member.kind {
            self.found.ids += 1;
            self.refusal.get_or_insert_with(|| refused_id(field));
            return None;
        }
        self.found.numbers += 1;
        match (self.policy.mode, &self.policy.key) {
            (CardDataMode::Mask, Some(key)) => {
                member.tokens.push(key.token(number.digits()));
                None
            }
            (CardDataMode::Tokenise, Some(key)) => Some(key.token(number.digits())),
            (CardDataMode::Reject, _) => {
                self.refusal.get_or_insert_with(|| refused(member.name));
                None
            }
            (CardDataMode::Mask | CardDataMode::Tokenise | CardDataMode::Allow, _) => None,
        }
    }
}

fn refused_id(field: &'static str) -> Rejection {
    Rejection::new(
        field,
        "has a card number, and ids are stored in clear; send another id, such as a token of the card",
    )
}

/// Names the member, unless its name could be something else than a name.
fn refused(name: &[u8]) -> Rejection {
    let plain = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let named = match std::str::from_utf8(name) {
        Ok(name) if (1..=64).contains(&name.len()) && name.bytes().all(|byte| plain(&byte)) => {
            format!("the member {name}")
        }
        _ => "a member".to_owned(),
    };
    Rejection::new(
        "",
        format!("{named} has a card number, which is refused here"),
    )
}
