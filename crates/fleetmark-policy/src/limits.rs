//! What a text may not exceed before a recursive parser sees it.
//!
//! Cedar's parser and its conversions call themselves once a level, in up to 50 KiB of stack each in an unoptimised build; a
//! long text with enough brackets, or with enough operators in one policy, would use up any stack. What these limits let
//! through is compiled on a thread with [`STACK`]. Evaluation watches its stack itself and ends in an error, which is a no.

use crate::finding::Finding;

/// Brackets and `if`s inside one another.
pub(crate) const MAX_DEPTH: usize = 20;
/// Operators of one policy; a chain of them is as deep as it is long.
pub(crate) const MAX_OPERATORS: usize = 200;

/// The stack, in octets, of the thread that compiles; the deepest text of the limits takes half of it unoptimised.
pub(crate) const STACK: usize = 16 << 20;
/// Operators of two characters, which count once.
const PAIRS: [&str; 6] = ["&&", "||", "==", "!=", "<=", ">="];

/// Checks the depth of every policy in `text`.
///
/// # Errors
/// The first place that is too deep.
pub(crate) fn check(text: &str) -> Result<(), Finding> {
    let mut depth = Depth::default();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '"' => string(rest),
            // As Cedar's lexer has it.
            '/' if rest.starts_with("//") => rest.find(['\n', '\r']).unwrap_or(rest.len()),
            c if c.is_ascii_alphabetic() || c == '_' => {
                let taken = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                depth.word(rest.get(..taken).unwrap_or_default());
                taken
            }
            c => {
                depth.symbol(c);
                if PAIRS.iter().any(|pair| rest.starts_with(pair)) { 2 } else { c.len_utf8() }
            }
        };
        let offset = text.len().saturating_sub(rest.len());
        if let Some(message) = depth.excess() {
            return Err(Finding::at(text, offset, message));
        }
        rest = rest.get(taken..).unwrap_or_default();
    }
    Ok(())
}

/// The length of the string literal that `rest` begins with.
fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at.saturating_add(1),
            _ => {}
        }
    }
    rest.len()
}

#[derive(Default)]
struct Depth {
    brackets: usize,
    ifs: usize,
    operators: usize,
}

impl Depth {
    fn word(&mut self, word: &str) {
        match word {
            "if" => self.ifs = self.ifs.saturating_add(1),
            "in" | "has" | "like" | "is" => self.operators = self.operators.saturating_add(1),
            _ => {}
        }
    }

    fn symbol(&mut self, symbol: char) {
        match symbol {
            '(' | '[' | '{' => self.brackets = self.brackets.saturating_add(1),
            ')' | ']' | '}' => self.brackets = self.brackets.saturating_sub(1),
            // A policy ends; what is open now is an error that the parser reports, or is still counted.
            ';' => (self.ifs, self.operators) = (0, 0),
            '&' | '|' | '+' | '-' | '*' | '.' | '!' | '=' | '<' | '>' | '/' | '%' => {
                self.operators = self.operators.saturating_add(1);
            }
            _ => {}
        }
        // `a["b"]["c"]` is a chain too.
        if symbol == '[' {
            self.operators = self.operators.saturating_add(1);
        }
    }

    fn excess(&self) -> Option<String> {
        if self.brackets.saturating_add(self.ifs) > MAX_DEPTH {
            return Some(format!("more than {MAX_DEPTH} brackets and ifs inside one another; write several policies"));
        }
        (self.operators > MAX_OPERATORS)
            .then(|| format!("more than {MAX_OPERATORS} operators in one policy; use a set, a group or several policies"))
    }
}
