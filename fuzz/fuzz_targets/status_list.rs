//! Status lists under a signature that holds: no octets may make the reader fall; what it opens, it can answer for, and says what a plain
//! reading of the same blocks says.
#![no_main]

use fleetmark_status::header::{HEADER_LENGTH, Header, SIGNATURE_LENGTH};
use fleetmark_status::{Answer, List, Terms, Verify};
use libfuzzer_sys::fuzz_target;

struct Anybody([u8; 8]);

impl Verify for Anybody {
    fn key_id(&self) -> [u8; 8] {
        self.0
    }

    fn verify(&self, message: &[u8], _: &[u8; SIGNATURE_LENGTH]) -> bool {
        message.len() >= HEADER_LENGTH
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(header) = Header::parse(data) else { return };
    let terms = Terms { now: header.this_update, lowest_sequence: header.sequence, max_age: 0 };
    let Ok(list) = List::open(data, &header.scope, &terms, &Anybody(header.key_id)) else { return };
    let body = &data[HEADER_LENGTH..data.len() - SIGNATURE_LENGTH];
    let not_good = plain(&header, body).expect("a body that opens can be read");
    let first = u32::from(header.scope.slice) << 20;
    for (index, not_good) in not_good.iter().enumerate() {
        let expected = if *not_good { Answer::NotGood } else { Answer::Good };
        assert_eq!(list.query(first + index as u32), expected, "{index}");
    }
});

/// Bit by bit, as docs/status-list.md has it.
fn plain(header: &Header, body: &[u8]) -> Option<Vec<bool>> {
    let mut at = 0;
    let bits = |from: &mut usize, count: u32| -> Option<usize> {
        let mut number = 0;
        for _ in 0..count {
            number = number << 1 | usize::from(body.get(*from / 8)? >> (7 - *from % 8) & 1);
            *from += 1;
        }
        Some(number)
    };
    let count = header.count as usize;
    if header.shift == 0 {
        return (0..count).map(|_| Some(bits(&mut at, 1)? == 1)).collect();
    }
    let size = 1 << header.shift;
    let blocks = count.div_ceil(size);
    let mut directory = Vec::new();
    for _ in 0..=blocks {
        directory.push((bits(&mut at, u32::from(header.width))?, bits(&mut at, 6)?));
    }
    let codes = at;
    let mut not_good = Vec::new();
    for pair in directory.windows(2) {
        let [(offset, parameters), (end, _)] = *pair else { return None };
        assert_eq!(at, codes + offset);
        let lists_good = parameters >> 5 == 1;
        let start = not_good.len();
        not_good.resize((start + size).min(count), lists_good);
        let mut next = 0;
        while at < codes + end {
            let mut high = 0;
            while bits(&mut at, 1)? == 0 {
                high += 1;
            }
            next += (high << (parameters & 31)) + bits(&mut at, parameters as u32 & 31)?;
            not_good[start + next] = !lists_good;
            next += 1;
        }
    }
    Some(not_good)
}
