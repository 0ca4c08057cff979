//! Tiles in paths: `x001/x234/067`, and `.p/W` behind it for a partial one (C2SP tlog-tiles).

use fleetmark_domain::Refusal;

use crate::registrar::feed::{Place, TILE_WIDTH};

/// Reads a tile's index and width.
///
/// # Errors
/// `NotFound` for what is not of that form: each place has one path.
pub fn parse(path: &str) -> Result<Place, Refusal> {
    read(path).ok_or(Refusal::NotFound)
}

fn read(path: &str) -> Option<Place> {
    let (index, width) = match path.split_once(".p/") {
        Some((index, width)) => (index, partial(width)?),
        None => (path, TILE_WIDTH),
    };
    let place = Place { index: number(index)?, width };
    (written(place.index) == index).then_some(place)
}

/// 1 to 255, without leading zeros.
fn partial(text: &str) -> Option<u16> {
    let width: u8 = digits(text)?.parse().ok()?;
    (width > 0 && !text.starts_with('0')).then_some(width.into())
}

fn number(path: &str) -> Option<u64> {
    let mut index = 0_u64;
    for part in path.split('/') {
        let digits = digits(part.strip_prefix('x').unwrap_or(part)).filter(|digits| digits.len() == 3)?;
        index = index.checked_mul(1_000)?.checked_add(digits.parse().ok()?)?;
    }
    Some(index)
}

fn digits(text: &str) -> Option<&str> {
    text.bytes().all(|octet| octet.is_ascii_digit()).then_some(text)
}

/// The index as tlog-tiles writes it: three digits a part, all but the last after an `x`.
fn written(index: u64) -> String {
    let mut path = format!("{:03}", index % 1_000);
    let mut rest = index / 1_000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1_000);
        rest /= 1_000;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_tlog_tiles() {
        // The first is the specification's own example.
        for (path, index, width) in [
            ("x001/x234/067", 1_234_067, 256),
            ("000", 0, 256),
            ("255.p/7", 255, 7),
            ("x001/000", 1_000, 256),
            ("x001/000.p/255", 1_000, 255),
            ("x018/x446/x744/x073/x709/x551/615", u64::MAX, 256),
        ] {
            assert_eq!(parse(path), Ok(Place { index, width }), "{path}");
            assert_eq!(written(index), path.split(".p/").next().unwrap());
        }
    }

    #[test]
    fn each_place_has_one_path() {
        for path in [
            "",
            "0",
            "00",
            "0000",
            "x000/001",
            "x001",
            "001/002",
            "x001/x002",
            "x001//002",
            "/001",
            "001/",
            "-01",
            "+01",
            "0a1",
            "000.p",
            "000.p/",
            "000.p/0",
            "000.p/256",
            "000.p/01",
            "000.p/+1",
            "000.p/1/",
            "000.p/1.p/1",
            "x1000/000",
            "x018/x446/x744/x073/x709/x551/616",
            "x999/x999/x999/x999/x999/x999/x999/999",
            "000.P/1",
            "X001/000",
            "٠٠٠",
        ] {
            assert_eq!(parse(path), Err(Refusal::NotFound), "{path}");
        }
    }
}
