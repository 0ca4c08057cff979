//! A list of devices: whatever comes, and in whatever parts, its lines are the same, and those that are taken are within limits.
#![no_main]

use fleetmark::registrar::imports::lines::{Fault, Format, Line, Lines, MAX_LINES};
use libfuzzer_sys::fuzz_target;

type Read = (Vec<Result<Line, Fault>>, Result<(), Fault>);

fn read(format: Format, octets: &[u8], part: usize) -> Read {
    let mut lines = Lines::new(format);
    let mut found = Vec::new();
    for part in octets.chunks(part) {
        if let Err(fault) = lines.push(part, |line| found.push(line)) {
            return (found, Err(fault));
        }
    }
    let end = lines.finish(|line| found.push(line));
    (found, end)
}

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (is_csv, part, octets) = input;
    let format = if is_csv { Format::Csv } else { Format::JsonLines };
    let (found, end) = read(format, octets, octets.len().max(1));
    let mut names = std::collections::HashSet::new();
    for line in &found {
        match line {
            Ok(line) => {
                assert!(line.number <= MAX_LINES && line.attributes.len() <= 32);
                assert!(names.insert(line.name.folded()), "a name stands there twice");
                let texts = line.attributes.iter().flat_map(|(key, value)| [key, value]);
                assert!(texts.into_iter().all(|text| !text.chars().any(char::is_control)));
            }
            Err(fault) => assert!(!fault.column.chars().chain(fault.text.chars()).any(char::is_control)),
        }
    }
    assert_eq!(read(format, octets, usize::from(part).max(1)), (found, end));
});
