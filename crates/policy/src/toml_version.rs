//! Documents are TOML 1.0, whatever version the parser reads: a document is the same for every engine and for every version
//! of this one. TOML 1.1 has two more escapes, and line ends and a last comma in inline tables.

/// The first place of a valid text where it is TOML 1.1 and not 1.0, with what it uses.
pub(crate) fn beyond_toml_1_0(text: &str) -> Option<(usize, &'static str)> {
    let bytes = text.as_bytes();
    let mut open = Vec::new();
    let mut after_comma = false;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let in_table = open.last() == Some(&b'{');
        match byte {
            b'"' | b'\'' => match string(bytes, at) {
                Ok(end) => at = end,
                Err(place) => return Some((place, "the escapes \\e and \\x are not in TOML 1.0")),
            },
            b'#' => {
                let comment = bytes[at..].iter().take_while(|byte| **byte != b'\n');
                at += comment.count();
                continue;
            }
            b'\n' if in_table => {
                return Some((
                    at,
                    "an inline table is on one line in TOML 1.0; use [table] or [[table]]",
                ));
            }
            b'}' if after_comma => {
                return Some((at, "an inline table has no last comma in TOML 1.0"));
            }
            b'[' | b'{' => open.push(*byte),
            b']' | b'}' => {
                open.pop();
            }
            _ => {}
        }
        if !matches!(byte, b' ' | b'\t' | b'\n') {
            after_comma = *byte == b',' && in_table;
        }
        at += 1;
    }
    None
}

/// The last byte of the string that begins here, or the place of an escape that TOML 1.0 lacks.
fn string(bytes: &[u8], start: usize) -> Result<usize, usize> {
    let quote = bytes[start];
    let long = bytes.get(start + 1) == Some(&quote) && bytes.get(start + 2) == Some(&quote);
    let mut at = start + if long { 3 } else { 1 };
    while let Some(byte) = bytes.get(at) {
        if *byte == b'\\' && quote == b'"' {
            if matches!(bytes.get(at + 1), Some(b'e' | b'x')) {
                return Err(at);
            }
            at += 2;
        } else if *byte != quote {
            at += 1;
        } else if !long {
            return Ok(at);
        } else {
            // Up to two quotes before the closing three belong to the string.
            let quotes = bytes[at..]
                .iter()
                .take_while(|byte| **byte == quote)
                .count();
            if quotes >= 3 {
                return Ok(at + quotes - 1);
            }
            at += quotes;
        }
    }
    Ok(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_toml_1_1_has_in_addition_is_found() {
        for (text, place) in [
            ("a = \"\\e\"", 5),
            ("a = \"\"\"x\\x41\"\"\"", 8),
            ("a = { b = 1,\n c = 2 }", 12),
            ("a = { b = 1, }", 13),
            ("a = [ { b = [1,\n2], # c\n } ]", 23),
        ] {
            assert_eq!(
                beyond_toml_1_0(text).map(|(at, _)| at),
                Some(place),
                "{text}"
            );
        }
        for text in [
            "a = \"\\\\x\"\n[t]\nb = '\\x'",
            "a = [\n  { b = [1,\n 2,\n] },\n]",
            "a = '''\n\\x { \n'''\nb = {}",
            "a = \"\"\"{ \"\" \\\"\"\"\"\"\nb = { c = '{' }",
            "# { it's \"\na = 1",
            "[[a.\"{\"]]\nb = 1\n",
        ] {
            assert_eq!(beyond_toml_1_0(text), None, "{text}");
        }
    }
}
