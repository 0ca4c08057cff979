//! Tables and records for people. Programs take `--json`.

use serde_json::Value;

use super::failure::harmless;

/// The longest cell, in characters.
const MAX_CELL: usize = 64;

/// A column: what stands over it, and the field that it shows.
#[derive(Debug, Clone, Copy)]
pub struct Column(pub &'static str, pub &'static str);

/// The items as a table with a head; columns are as wide as they must be and two spaces apart.
pub fn table(columns: &[Column], items: &[Value]) -> String {
    let head = columns.iter().map(|Column(title, _)| (*title).to_owned()).collect();
    let body = items.iter().map(|item| columns.iter().map(|Column(_, field)| cell(field, item.get(*field))).collect());
    align(&std::iter::once(head).chain(body).collect::<Vec<_>>())
}

/// A record, a field a line: those named first, then all others by their names.
pub fn record(first: &[&str], value: &Value) -> String {
    let Some(fields) = value.as_object() else {
        return text(value) + "\n";
    };
    let named = first.iter().filter_map(|name| fields.get_key_value(*name));
    let others = fields.iter().filter(|(name, _)| !first.contains(&name.as_str()));
    let rows: Vec<Vec<String>> =
        named.chain(others).map(|(name, value)| vec![harmless(name), field_text(name, value)]).collect();
    align(&rows)
}

fn cell(field: &str, value: Option<&Value>) -> String {
    let whole = value.map_or_else(|| "-".to_owned(), |value| field_text(field, value));
    if whole.chars().count() <= MAX_CELL { whole } else { whole.chars().take(MAX_CELL - 1).chain(['…']).collect() }
}

/// A field's value. No list of granted fleets means all of them, which a dash would hide.
fn field_text(field: &str, value: &Value) -> String {
    if field == "fleets" && value.is_null() { "all".to_owned() } else { text(value) }
}

/// A value on one line.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(string) => harmless(string),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Object(fields) if fields.is_empty() => "none".to_owned(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{}={}", harmless(name), text(value))).collect::<Vec<_>>().join(", ")
        }
    }
}

fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let gap = width.saturating_sub(cell.chars().count()) + 2;
            line.push_str(cell);
            line.push_str(&" ".repeat(gap));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: [Column; 3] = [Column("NAME", "name"), Column("STATE", "state"), Column("FLEETS", "fleets")];

    #[test]
    fn columns_are_aligned_and_lines_end_without_spaces() {
        let items = [
            json!({"name": "sensor-01", "state": "good", "fleets": ["a", "b"]}),
            json!({"name": "é", "state": null, "fleets": []}),
            json!({"name": "y", "fleets": null}),
            json!({"name": "x", "state": true}),
        ];
        let expected = "NAME       STATE  FLEETS\n\
                        sensor-01  good   a, b\n\
                        é          -      none\n\
                        y          -      all\n\
                        x          yes    -\n";
        assert_eq!(table(&COLUMNS, &items), expected);
        assert_eq!(table(&COLUMNS, &[]), "NAME  STATE  FLEETS\n");
    }

    #[test]
    fn a_record_names_the_first_fields_first() {
        let value = json!({"a": 1, "name": "n", "attributes": {"site": "b", "x": "1"}});
        assert_eq!(record(&["name"], &value), "name        n\na           1\nattributes  site=b, x=1\n");
    }

    #[test]
    fn long_and_hostile_cells_do_no_harm() {
        let items = [json!({"name": "x".repeat(200), "state": "a\nb\u{1b}[31m"})];
        let text = table(&COLUMNS, &items);
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\u{1b}') && text.contains('…'));
        assert!(text.lines().all(|line| line.chars().count() < 100));
    }
}
