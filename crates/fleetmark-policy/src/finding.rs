//! What is wrong with a text, and where.

use cedar_policy::ffi::DetailedError;

/// One thing that is wrong with a set.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Line, from 1; 0 where it is about the whole.
    pub line: usize,
    /// Column in characters, from 1; 0 where it is about the whole.
    pub column: usize,
    /// The policy's id, where it is about one.
    pub policy: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
}

impl Finding {
    /// About the whole set.
    pub(crate) fn whole(message: impl Into<String>) -> Self {
        Self { line: 0, column: 0, policy: None, message: message.into() }
    }

    /// About what begins at `offset`, in octets.
    pub(crate) fn at(text: &str, offset: usize, message: impl Into<String>) -> Self {
        let (line, column) = place(text, offset);
        Self { line, column, policy: None, message: message.into() }
    }

    /// The same, about the policy `id`.
    pub(crate) fn of(mut self, id: &str) -> Self {
        self.policy = Some(id.to_owned());
        self
    }

    /// What Cedar says of `text`: one finding, and one for each that it relates to it.
    pub(crate) fn from_cedar(text: &str, error: &DetailedError) -> Vec<Self> {
        let message = match &error.help {
            Some(help) => format!("{}; {help}", error.message),
            None => error.message.clone(),
        };
        let own = match error.source_locations.first() {
            Some(label) => Self::at(text, label.loc.start, message),
            None => Self::whole(message),
        };
        let related = error.related.iter().flat_map(|other| Self::from_cedar(text, other));
        std::iter::once(own).chain(related).collect()
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        if let Some(policy) = &self.policy {
            write!(f, "policy {policy}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Line and column of an offset in octets; the end of the text for one beyond it.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    let before = text.get(..end).unwrap_or(text);
    let line = before.matches('\n').count();
    let column = before.rsplit('\n').next().unwrap_or(before).chars().count();
    (line.saturating_add(1), column.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_and_never_leave_the_text() {
        let text = "a\näb\n";
        let table = [(0, (1, 1)), (1, (1, 2)), (2, (2, 1)), (3, (2, 1)), (4, (2, 2)), (6, (3, 1)), (99, (3, 1))];
        for (offset, expected) in table {
            assert_eq!(place(text, offset), expected, "offset {offset}");
        }
    }
}
