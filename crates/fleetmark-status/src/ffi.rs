//! The functions of `include/fleetmark_status.h`, which says what callers owe. The only module with `unsafe`.
#![expect(unsafe_code, reason = "pointers from C")]
#![allow(clippy::missing_safety_doc, reason = "the header file says what holds for each pointer")]

use core::ffi::{c_int, c_void};
use core::slice;

use crate::blocks::Blocks;
use crate::header::{HEADER_LENGTH, LONGEST, SIGNATURE_LENGTH, Scope};
use crate::reader::{List, Range, Terms, Verify};
use crate::reason::{Answer, Refusal};

/// `fleetmark_status_list`: an opened list. It borrows the octets that it was opened from.
#[repr(C)]
#[derive(Debug)]
pub struct RawList {
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

/// `fleetmark_status_terms`: what a list must be about, and fulfil.
#[repr(C)]
#[derive(Debug)]
pub struct RawTerms {
    fleet: [u8; 16],
    authority: [u8; 20],
    epoch: u32,
    max_age: u32,
    now: u64,
    lowest_sequence: u64,
    slice: u16,
}

/// `fleetmark_status_verifier`: a P-256 verification that the firmware brings.
#[repr(C)]
#[derive(Debug)]
pub struct RawVerifier {
    key_id: [u8; 8],
    context: *mut c_void,
    verify: Option<unsafe extern "C" fn(*mut c_void, *const u8, usize, *const u8) -> c_int>,
}

impl Verify for RawVerifier {
    fn key_id(&self) -> [u8; 8] {
        self.key_id
    }

    fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_LENGTH]) -> bool {
        let Some(verify) = self.verify else { return false };
        // SAFETY: the header file asks for a function that reads no more than this and returns.
        (unsafe { verify(self.context, message.as_ptr(), message.len(), signature.as_ptr()) }) == 1
    }
}

/// Opens a list with the firmware's own P-256.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fleetmark_status_open_with(
    list: *mut RawList,
    octets: *const u8,
    length: usize,
    terms: *const RawTerms,
    verifier: *const RawVerifier,
) -> c_int {
    // SAFETY: passed on as it came.
    unsafe { close(list) };
    // SAFETY: null, or what the header file asks for.
    let Some(verifier) = (unsafe { verifier.as_ref() }) else { return refused(Refusal::BadKey) };
    // SAFETY: passed on as they came.
    unsafe { open(list, octets, length, terms, verifier) }
}

/// Opens a list with this library's P-256.
#[cfg(feature = "p256")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fleetmark_status_open(
    list: *mut RawList,
    octets: *const u8,
    length: usize,
    terms: *const RawTerms,
    point: *const u8,
) -> c_int {
    // SAFETY: passed on as it came.
    unsafe { close(list) };
    // SAFETY: null, or 65 octets.
    let Some(point) = (unsafe { point.cast::<[u8; 65]>().as_ref() }) else { return refused(Refusal::BadKey) };
    match crate::key::P256Key::from_point(point) {
        // SAFETY: passed on as they came.
        Ok(key) => unsafe { open(list, octets, length, terms, &key) },
        Err(refusal) => refused(refusal),
    }
}

/// The answer for an index of the list's epoch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fleetmark_status_query(list: *const RawList, index: u32) -> c_int {
    // SAFETY: passed on as it came.
    answered(unsafe { opened(list) }.map_or(Answer::Unreadable, |list| list.query(index)))
}

/// The answer for a certificate's serial.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fleetmark_status_query_serial(list: *const RawList, serial: *const u8, length: usize) -> c_int {
    if length != 17 {
        return answered(Answer::ForeignSerial);
    }
    // SAFETY: null, or 17 octets by the caller's word.
    let Some(serial) = (unsafe { serial.cast::<[u8; 17]>().as_ref() }) else { return answered(Answer::ForeignSerial) };
    // SAFETY: passed on as it came.
    answered(unsafe { opened(list) }.map_or(Answer::Unreadable, |list| list.query_serial(serial)))
}

/// First of all, whatever fails then: a list that did not open answers `unreadable`.
///
/// # Safety
/// `list` is null or writable; what is in it need not be a list yet.
#[inline(always)]
#[expect(clippy::inline_always, reason = "size: it is one store")]
unsafe fn close(list: *mut RawList) {
    if !list.is_null() {
        // SAFETY: not null, and writable by the caller's word.
        unsafe { (&raw mut (*list).body).write(core::ptr::null()) };
    }
}

/// # Safety
/// `list` is null or writable and closed, `octets` null or `length` octets that outlive the list, `terms` null or readable.
unsafe fn open(list: *mut RawList, octets: *const u8, length: usize, terms: *const RawTerms, key: &impl Verify) -> c_int {
    // SAFETY: by the caller's word.
    let (Some(out), Some(raw)) = (unsafe { list.as_mut() }, unsafe { terms.as_ref() }) else {
        return refused(Refusal::Malformed);
    };
    if octets.is_null() || length > LONGEST {
        return refused(Refusal::Malformed);
    }
    // SAFETY: not null, and `length` octets by the caller's word.
    let octets = unsafe { slice::from_raw_parts(octets, length) };
    let scope = Scope { fleet: raw.fleet, authority: raw.authority, epoch: raw.epoch, slice: raw.slice };
    let terms = Terms { now: raw.now, lowest_sequence: raw.lowest_sequence, max_age: raw.max_age };
    match List::open(octets, &scope, &terms, key) {
        Err(refusal) => refused(refusal),
        Ok(list) => {
            let header = list.header();
            *out = RawList {
                // Within `octets`: the list opened, so that it has a header.
                body: octets.as_ptr().wrapping_add(HEADER_LENGTH),
                length: length.wrapping_sub(HEADER_LENGTH),
                epoch: raw.epoch,
                count: header.count,
                slice: raw.slice,
                shift: header.shift,
                width: header.width,
                sequence: header.sequence,
                next_update: header.next_update,
            };
            0
        }
    }
}

/// # Safety
/// `list` is null, or was filled by `open` from octets that are still there.
#[inline(always)]
#[expect(clippy::inline_always, reason = "size: a query has one list")]
unsafe fn opened<'a>(list: *const RawList) -> Option<Range<'a>> {
    // SAFETY: by the caller's word.
    let list = unsafe { list.as_ref() }?;
    if list.body.is_null() {
        return None;
    }
    // SAFETY: not null, so `open` wrote both.
    let octets = unsafe { slice::from_raw_parts(list.body, list.length) };
    let (shift, width) = (u32::from(list.shift), u32::from(list.width));
    Some(Range { blocks: Blocks { octets, count: list.count, shift, width }, epoch: list.epoch, slice: list.slice })
}

fn refused(refusal: Refusal) -> c_int {
    c_int::from(refusal.code())
}

fn answered(answer: Answer) -> c_int {
    c_int::from(answer.code())
}

/// Nothing in this crate panics; what it is linked with might. A firmware that wants another end resets in its watchdog.
#[cfg(all(feature = "ffi", target_os = "none", not(test)))]
#[panic_handler]
fn stopped(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
