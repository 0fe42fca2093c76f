//! Text from others on a terminal: ids, reasons and payloads may have escape sequences, which can rewrite what a person
//! sees, set the title of the window, or on some terminals put a command at the prompt.

use std::borrow::Cow;

/// The text for one line or one cell of a table: control characters, line ends and invisible characters are escaped, such
/// as `\u{1b}`.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden)
}

/// As [`printable`], for text of several lines: line feeds and tabs stay.
#[must_use]
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_hidden(c) && c != '\n' && c != '\t')
}

/// Control characters, and those that have no width or change the direction of others.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

fn escaped(text: &str, hides: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&hides) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hides(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escape_sequences_are_shown_and_not_obeyed() {
        for (text, shown) in [
            ("ann", "ann"),
            ("Ünïcödé 猫", "Ünïcödé 猫"),
            ("ann\u{1b}[2J\u{7}", "ann\\u{1b}[2J\\u{7}"),
            ("a\u{9b}31m", "a\\u{9b}31m"),
            ("a\u{202e}b\u{200b}", "a\\u{202e}b\\u{200b}"),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ] {
            assert_eq!(printable(text), shown);
        }
        assert_eq!(
            printable_lines("{\n\t\"a\": \u{1b}\r\n}"),
            "{\n\t\"a\": \\u{1b}\\r\n}"
        );
    }

    proptest! {
        #[test]
        fn nothing_printable_has_a_control_character(text: String) {
            prop_assert!(!printable(&text).chars().any(is_hidden));
            let lines = printable_lines(&text);
            prop_assert!(!lines.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
        }
    }
}
