//! Status lists under a signature that holds: no octets may make the reader fall; what it opens, it can answer for, and says what a plain
//! reading of the same blocks says; and the C functions say the same of the same octets.
#![no_main]

use std::ffi::{c_int, c_void};

use fleetmark_status::header::{HEADER_LENGTH, Header, SIGNATURE_LENGTH};
use fleetmark_status::{Answer, List, Scope, Terms, Verify};
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

/// As `include/fleetmark_status.h` has them.
#[repr(C)]
struct CTerms {
    fleet: [u8; 16],
    authority: [u8; 20],
    epoch: u32,
    max_age: u32,
    now: u64,
    lowest_sequence: u64,
    slice: u16,
}

#[repr(C)]
struct CVerifier {
    key_id: [u8; 8],
    context: *mut c_void,
    verify: Option<unsafe extern "C" fn(*mut c_void, *const u8, usize, *const u8) -> c_int>,
}

#[repr(C)]
struct CList {
    body: *const u8,
    length: usize,
    epoch: u32,
    count: u32,
    slice: u16,
    shift: u8,
    width: u8,
    sequence: u64,
    next_update: u64,
}

unsafe extern "C" {
    fn fleetmark_status_open_with(
        list: *mut CList,
        octets: *const u8,
        length: usize,
        terms: *const CTerms,
        verifier: *const CVerifier,
    ) -> c_int;
    fn fleetmark_status_query(list: *const CList, index: u32) -> c_int;
    fn fleetmark_status_query_serial(list: *const CList, serial: *const u8, length: usize) -> c_int;
}

unsafe extern "C" fn anybody(_: *mut c_void, _: *const u8, length: usize, _: *const u8) -> c_int {
    c_int::from(length >= HEADER_LENGTH)
}

fuzz_target!(|data: &[u8]| {
    let header = Header::parse(data);
    let scope = header.as_ref().map_or(Scope { fleet: [0; 16], authority: [0; 20], epoch: 0, slice: 0 }, |header| header.scope);
    let key = Anybody(header.as_ref().map_or([0; 8], |header| header.key_id));
    let now = header.as_ref().map_or(0, |header| header.this_update);
    let terms = Terms { now, lowest_sequence: header.as_ref().map_or(0, |header| header.sequence), max_age: 0 };
    let opened = List::open(data, &scope, &terms, &key);

    // Octets of their own, so that nothing lies behind them.
    let octets = data.to_vec().into_boxed_slice();
    let c_terms = CTerms {
        fleet: scope.fleet,
        authority: scope.authority,
        epoch: scope.epoch,
        max_age: terms.max_age,
        now: terms.now,
        lowest_sequence: terms.lowest_sequence,
        slice: scope.slice,
    };
    let verifier = CVerifier { key_id: key.0, context: std::ptr::null_mut(), verify: Some(anybody) };
    let mut c_list = CList {
        body: std::ptr::null(),
        length: 0,
        epoch: 0,
        count: 0,
        slice: 0,
        shift: 0,
        width: 0,
        sequence: 0,
        next_update: 0,
    };
    let code = unsafe { fleetmark_status_open_with(&mut c_list, octets.as_ptr(), octets.len(), &c_terms, &verifier) };
    assert_eq!(code, opened.as_ref().map_or_else(|refusal| c_int::from(refusal.code()), |_| 0));
    let (Ok(header), Ok(list)) = (header, opened) else {
        let answer = unsafe { fleetmark_status_query(&c_list, 0) };
        assert_eq!(answer, c_int::from(Answer::Unreadable.code()));
        return;
    };
    assert_eq!((c_list.sequence, c_list.next_update, c_list.count), (header.sequence, header.next_update, header.count));

    let body = &data[HEADER_LENGTH..data.len() - SIGNATURE_LENGTH];
    let not_good = plain(&header, body).expect("a body that opens can be read");
    let first = u32::from(header.scope.slice) << 20;
    for (index, not_good) in not_good.iter().enumerate() {
        let expected = if *not_good { Answer::NotGood } else { Answer::Good };
        assert_eq!(list.query(first + index as u32), expected, "{index}");
        if index < 64 {
            let index = first + index as u32;
            assert_eq!(unsafe { fleetmark_status_query(&c_list, index) }, c_int::from(expected.code()));
            let serial = [&[1][..], &scope.epoch.to_be_bytes(), &index.to_be_bytes(), &[0; 8]].concat();
            let answer = unsafe { fleetmark_status_query_serial(&c_list, serial.as_ptr(), serial.len()) };
            assert_eq!(answer, c_int::from(expected.code()));
        }
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
