//! Tokens of a condition. Size and nesting are limited here, so that neither parsing nor evaluation can exhaust the stack.

use super::{MOST_BYTES, MOST_NESTING, Wrong};
use crate::fault::FaultKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    String,
    Number,
    Name,
    Operator,
    End,
}

#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    /// As written; empty at the end.
    pub(super) text: String,
    /// The first character.
    pub(super) at: usize,
}

impl Token {
    pub(super) fn is(&self, text: &str) -> bool {
        self.text == text
    }
}

/// The tokens, and one for the end.
///
/// # Errors
/// Where the condition is too long or nested too deeply, or a character begins no token.
pub(super) fn tokens(source: &str) -> Result<Vec<Token>, Wrong> {
    if source.len() > MOST_BYTES {
        return Err(Wrong::new(
            0,
            FaultKind::TooLong,
            format!("a condition has at most {MOST_BYTES} bytes"),
        ));
    }
    let text: Vec<char> = source.chars().collect();
    let mut nesting = Nesting::default();
    let mut found: Vec<Token> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let space = space(rest);
        if space > 0 {
            at += space;
            continue;
        }
        let (kind, length) = token(rest).ok_or_else(|| {
            let shown: String = rest.iter().take(20).collect();
            Wrong::new(
                at,
                FaultKind::Syntax,
                format!("no part of the language, or a text or number that does not end: {shown}"),
            )
        })?;
        let token = Token {
            kind,
            text: rest[..length].iter().collect(),
            at,
        };
        nesting.follow(found.last(), &token)?;
        found.push(token);
        at += length;
    }
    found.push(Token {
        kind: TokenKind::End,
        text: String::new(),
        at: text.len(),
    });
    Ok(found)
}

/// How deep the tokens so far are nested.
struct Nesting {
    /// The `?` in each open bracket; the first is outside all of them.
    choices: Vec<usize>,
    /// `!` and `-` in a row.
    prefixes: usize,
}

impl Default for Nesting {
    fn default() -> Self {
        Self {
            choices: vec![0],
            prefixes: 0,
        }
    }
}

impl Nesting {
    fn follow(&mut self, before: Option<&Token>, token: &Token) -> Result<(), Wrong> {
        // A minus after a value is a subtraction.
        let after_value = before.is_some_and(|before| match before.kind {
            TokenKind::Operator => matches!(before.text.as_str(), ")" | "]" | "}"),
            _ => !before.is("in"),
        });
        let is_prefix = token.is("!") || token.is("-") && !after_value;
        self.prefixes = if is_prefix { self.prefixes + 1 } else { 0 };
        match token.text.as_str() {
            "(" | "[" | "{" => self.choices.push(0),
            ")" | "]" | "}" if self.choices.len() > 1 => {
                self.choices.pop();
            }
            "?" => {
                if let Some(choices) = self.choices.last_mut() {
                    *choices += 1;
                }
            }
            _ => {}
        }
        let choices: usize = self.choices.iter().sum();
        if self.choices.len() - 1 + choices + self.prefixes > MOST_NESTING {
            return Err(Wrong::new(
                token.at,
                FaultKind::TooDeep,
                format!("nested deeper than {MOST_NESTING}: split the rule, or leave brackets out"),
            ));
        }
        Ok(())
    }
}

/// How many characters of white space and comments there are.
fn space(text: &[char]) -> usize {
    let mut at = 0;
    loop {
        match &text[at..] {
            ['\t' | '\n' | '\u{c}' | '\r' | ' ', ..] => at += 1,
            ['/', '/', rest @ ..] => at += 2 + rest.iter().take_while(|c| **c != '\n').count(),
            _ => return at,
        }
    }
}

/// The kind of the token that begins here, and its characters.
fn token(text: &[char]) -> Option<(TokenKind, usize)> {
    if let Some(length) = string(text) {
        return Some((TokenKind::String, length));
    }
    if let Some(length) = number(text) {
        let ends = !text.get(length).copied().is_some_and(is_word);
        return ends.then_some((TokenKind::Number, length));
    }
    let is_name = text
        .first()
        .is_some_and(|c| is_word(*c) && !c.is_ascii_digit());
    if is_name {
        let length = text.iter().take_while(|c| is_word(**c)).count();
        return Some((TokenKind::Name, length));
    }
    let length = match text {
        ['&', '&', ..] | ['|', '|', ..] | ['=' | '!' | '<' | '>', '=', ..] => 2,
        [
            '-' | '+' | '*' | '/' | '%' | '!' | '<' | '>' | '=' | '?' | ':' | '.' | ',' | '(' | ')'
            | '[' | ']' | '{' | '}',
            ..,
        ] => 1,
        _ => return None,
    };
    Some((TokenKind::Operator, length))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The characters of a string literal: in one or three quotes of either kind, perhaps of bytes (`b`), perhaps raw (`r`).
fn string(text: &[char]) -> Option<usize> {
    let mut start = usize::from(matches!(text.first(), Some('b' | 'B')));
    let raw = matches!(text.get(start), Some('r' | 'R'));
    start += usize::from(raw);
    let quote = *text.get(start).filter(|c| matches!(**c, '\'' | '"'))?;
    let is_quote = |at: usize| text.get(at) == Some(&quote);
    if is_quote(start + 1) && is_quote(start + 2) {
        let mut at = start + 3;
        while at < text.len() {
            if is_quote(at) && is_quote(at + 1) && is_quote(at + 2) {
                return Some(at + 3);
            }
            at += if text[at] == '\\' && !raw { 2 } else { 1 };
        }
        // Three quotes that do not end: an empty string, and what follows is a fault.
        return Some(start + 2);
    }
    let mut at = start + 1;
    while let Some(c) = text.get(at) {
        match c {
            c if *c == quote => return Some(at + 1),
            '\r' | '\n' => return None,
            '\\' if !raw => at += 2,
            _ => at += 1,
        }
    }
    None
}

/// The characters of a number literal.
fn number(text: &[char]) -> Option<usize> {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        rest.iter().take_while(|c| c.is_ascii_digit()).count()
    };
    let exponent = |from: usize| {
        if !matches!(text.get(from), Some('e' | 'E')) {
            return 0;
        }
        let sign = usize::from(matches!(text.get(from + 1), Some('+' | '-')));
        match digits(from + 1 + sign) {
            0 => 0,
            digits => 1 + sign + digits,
        }
    };
    let whole = digits(0);
    let is_hex = whole > 0 && text[0] == '0' && matches!(text.get(1), Some('x' | 'X'));
    let hex = if is_hex {
        text[2..]
            .iter()
            .take_while(|c| c.is_ascii_hexdigit())
            .count()
    } else {
        0
    };
    let mut length = if hex > 0 {
        2 + hex
    } else if text.get(whole) == Some(&'.') && digits(whole + 1) > 0 {
        let end = whole + 1 + digits(whole + 1);
        end + exponent(end)
    } else if whole > 0 {
        whole + exponent(whole)
    } else {
        return None;
    };
    length += usize::from(matches!(text.get(length), Some('u' | 'U')));
    Some(length)
}
