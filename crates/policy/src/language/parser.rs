//! The parser: operator precedence as in CEL's grammar. Recursion is bounded by the nesting that `tokens` admits.

use super::tokens::{Token, TokenKind};
use super::tree::{Binary, Id, Kind, Literal, Tree};
use super::{Wrong, is_reserved};
use crate::fault::FaultKind;

pub(super) fn parse(tokens: Vec<Token>) -> Result<Tree, Wrong> {
    let mut parser = Parser {
        tokens,
        next: 0,
        tree: Tree::default(),
    };
    parser.tree.first = parser.peek().at;
    let root = parser.choice()?;
    if parser.peek().kind != TokenKind::End {
        return Err(parser.wanted("an operator or the end"));
    }
    parser.tree.root = root;
    Ok(parser.tree)
}

struct Parser {
    /// With one for the end, which is never consumed.
    tokens: Vec<Token>,
    next: usize,
    tree: Tree,
}

/// How strongly an operator binds.
fn binary(text: &str) -> Option<(Binary, u8)> {
    Some(match text {
        "||" => (Binary::Or, 1),
        "&&" => (Binary::And, 2),
        "==" => (Binary::Equal, 3),
        "!=" => (Binary::NotEqual, 3),
        "<" => (Binary::Less, 3),
        "<=" => (Binary::LessOrEqual, 3),
        ">" => (Binary::Greater, 3),
        ">=" => (Binary::GreaterOrEqual, 3),
        "in" => (Binary::In, 3),
        "+" => (Binary::Add, 4),
        "-" => (Binary::Subtract, 4),
        "*" => (Binary::Multiply, 5),
        "/" => (Binary::Divide, 5),
        "%" => (Binary::Remainder, 5),
        _ => return None,
    })
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next]
    }

    /// The offset of the next token, if it is this operator; it is consumed then.
    fn take(&mut self, text: &str) -> Option<usize> {
        let token = self.peek();
        let at = token.at;
        token.is(text).then(|| {
            self.next += 1;
            at
        })
    }

    fn expect(&mut self, text: &str) -> Result<(), Wrong> {
        match self.take(text) {
            Some(_) => Ok(()),
            None => Err(self.wanted(&format!("`{text}`"))),
        }
    }

    fn wanted(&self, what: &str) -> Wrong {
        let token = self.peek();
        let found = match token.text.as_str() {
            "" => "the end".to_owned(),
            text => format!("`{text}`"),
        };
        let hint = match token.text.as_str() {
            "=" => "; `==` compares",
            "and" | "AND" => "; `&&` is and",
            "or" | "OR" => "; `||` is or",
            _ => "",
        };
        Wrong::new(
            token.at,
            FaultKind::Syntax,
            format!("expected {what}, found {found}{hint}"),
        )
    }

    fn choice(&mut self) -> Result<Id, Wrong> {
        let test = self.operators(1)?;
        let Some(at) = self.take("?") else {
            return Ok(test);
        };
        let yes = self.operators(1)?;
        self.expect(":")?;
        let no = self.choice()?;
        Ok(self.tree.add(Kind::Choice { test, yes, no }, at))
    }

    /// Operators that bind at least this strongly.
    fn operators(&mut self, least: u8) -> Result<Id, Wrong> {
        let mut left = self.prefix()?;
        while let Some((operator, strength)) =
            binary(&self.peek().text).filter(|(_, strength)| *strength >= least)
        {
            let at = self.peek().at;
            self.next += 1;
            let right = self.operators(strength + 1)?;
            let kind = Kind::Binary {
                operator,
                left,
                right,
            };
            left = self.tree.add(kind, at);
        }
        Ok(left)
    }

    fn prefix(&mut self) -> Result<Id, Wrong> {
        if let Some(at) = self.take("!") {
            let inner = self.prefix()?;
            return Ok(self.tree.add(Kind::Not(inner), at));
        }
        if let Some(at) = self.take("-") {
            let inner = self.prefix()?;
            return Ok(self.tree.add(Kind::Negative(inner), at));
        }
        self.postfix()
    }

    fn postfix(&mut self) -> Result<Id, Wrong> {
        let mut node = self.primary()?;
        loop {
            if let Some(at) = self.take("[") {
                self.choice()?;
                self.expect("]")?;
                node = self.unsupported("an index", at);
                continue;
            }
            let Some(at) = self.take(".") else {
                return Ok(node);
            };
            let token = self.peek();
            if token.kind != TokenKind::Name || is_reserved(&token.text) {
                return Err(self.wanted("a name"));
            }
            let (name, place) = (token.text.clone(), token.at);
            self.next += 1;
            if self.take("(").is_some() {
                let mut args = vec![node];
                args.append(&mut self.arguments(")")?);
                let name = format!(".{name}");
                node = self.tree.add(Kind::Call { name, args }, place);
            } else if let Kind::Name(path) = &mut self.tree.node_mut(node).kind {
                path.push('.');
                path.push_str(&name);
            } else {
                node = self.unsupported("a member of a value", at);
            }
        }
    }

    fn unsupported(&mut self, what: &str, at: usize) -> Id {
        self.tree.add(Kind::Unsupported(what.to_owned()), at)
    }

    fn primary(&mut self) -> Result<Id, Wrong> {
        if self.take("(").is_some() {
            let inner = self.choice()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if let Some(at) = self.take("[") {
            let elements = self.arguments("]")?;
            return Ok(self.tree.add(Kind::List(elements), at));
        }
        let token = self.peek().clone();
        let (text, at) = (token.text.as_str(), token.at);
        let kind = match token.kind {
            TokenKind::Operator | TokenKind::End => return Err(self.wanted("a value")),
            TokenKind::Name => match text {
                "null" => Kind::Unsupported("the literal null".to_owned()),
                "true" => Kind::Literal(Literal::Bool(true)),
                "false" => Kind::Literal(Literal::Bool(false)),
                name if is_reserved(name) => return Err(self.wanted("a value")),
                name => {
                    let name = name.to_owned();
                    self.next += 1;
                    if self.take("(").is_none() {
                        return Ok(self.tree.add(Kind::Name(name), at));
                    }
                    let args = self.arguments(")")?;
                    return Ok(self.tree.add(Kind::Call { name, args }, at));
                }
            },
            TokenKind::Number if text.ends_with(['u', 'U']) => {
                Kind::Unsupported(format!("the literal {text}"))
            }
            TokenKind::String if text.starts_with(['b', 'B']) => {
                Kind::Unsupported("a literal of bytes".to_owned())
            }
            TokenKind::Number => Kind::Literal(number(text, at)?),
            TokenKind::String => Kind::Literal(Literal::String(string(text, at)?)),
        };
        self.next += 1;
        Ok(self.tree.add(kind, at))
    }

    /// What stands between brackets, with commas, up to the closing one.
    fn arguments(&mut self, close: &str) -> Result<Vec<Id>, Wrong> {
        let mut found = Vec::new();
        if self.take(close).is_some() {
            return Ok(found);
        }
        loop {
            found.push(self.choice()?);
            if self.take(",").is_none() {
                break;
            }
        }
        self.expect(close)?;
        Ok(found)
    }
}

fn number(text: &str, at: usize) -> Result<Literal, Wrong> {
    let out_of_range = || Wrong::new(at, FaultKind::Syntax, format!("{text} is out of range"));
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let text = match hex {
        Some(digits) => i64::from_str_radix(digits, 16)
            .map_err(|_| out_of_range())?
            .to_string(),
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse::<i64>().map_err(|_| out_of_range())?.to_string()
        }
        // A decimal has a digit before its point.
        None if text.starts_with('.') => format!("0{text}"),
        None => text.to_owned(),
    };
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Literal::Number { text, value }),
        _ => Err(out_of_range()),
    }
}

/// The characters that a string literal stands for.
fn string(text: &str, at: usize) -> Result<String, Wrong> {
    let raw = text.starts_with(['r', 'R']);
    let quoted = text.trim_start_matches(['r', 'R']);
    let long = quoted.len() >= 6 && (quoted.starts_with("'''") || quoted.starts_with("\"\"\""));
    let width = if long { 3 } else { 1 };
    let body = &quoted[width..quoted.len() - width];
    if raw {
        return Ok(body.to_owned());
    }
    let mut found = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(escape) = rest.find('\\') {
        found.push_str(&rest[..escape]);
        let (c, length) = unescape(&rest[escape + 1..]).ok_or_else(|| {
            let shown: String = rest[escape..].chars().take(2).collect();
            Wrong::new(
                at,
                FaultKind::Syntax,
                format!("{shown} is no escape of a string; a backslash itself is \\\\"),
            )
        })?;
        found.push(c);
        rest = &rest[escape + 1 + length..];
    }
    found.push_str(rest);
    Ok(found)
}

/// The character that an escape stands for, and its bytes after the backslash.
fn unescape(text: &str) -> Option<(char, usize)> {
    let digits = |count: usize, radix: u32, from: usize| {
        let digits = text.get(from..from + count)?;
        let valid = digits.chars().all(|c| c.is_digit(radix));
        let code = u32::from_str_radix(digits, radix).ok().filter(|_| valid)?;
        Some((char::from_u32(code)?, from + count))
    };
    Some(match text.chars().next()? {
        'a' => ('\u{7}', 1),
        'b' => ('\u{8}', 1),
        'f' => ('\u{c}', 1),
        'n' => ('\n', 1),
        'r' => ('\r', 1),
        't' => ('\t', 1),
        'v' => ('\u{b}', 1),
        c @ ('\\' | '?' | '"' | '\'' | '`') => (c, 1),
        'x' | 'X' => return digits(2, 16, 1),
        'u' => return digits(4, 16, 1),
        'U' => return digits(8, 16, 1),
        '0'..='3' => return digits(3, 8, 0),
        _ => return None,
    })
}
