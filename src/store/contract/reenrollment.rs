//! Who may enroll, and enroll anew: rule × state of the device × hardware × permit, every cell.

use std::fmt::Write as _;

use fleetmark_domain::{Kind, Refusal, Standing, Timestamp};

use super::{certificate, subject};
use crate::store::acts::admit::newcomer;
use crate::store::acts::record::Reenrollment;
use crate::store::model::{Certificate, Hardware, HardwareId, HardwareSource, Permits, Subject, SubjectState};
use crate::store::rows::{Rows, certificate_id};

const NOW: Timestamp = Timestamp(1_000);
const OWN: HardwareId = [0xaa; 32];
const OTHER: HardwareId = [0xbb; 32];
const OF_ANOTHER: HardwareId = [0xcc; 32];
const OF_OUT: HardwareId = [0xdd; 32];

const RULES: [Reenrollment; 4] = [Reenrollment::Deny, Reenrollment::SameHardware, Reenrollment::Permit, Reenrollment::Always];

/// What the device that is asked for is.
#[derive(Clone, Copy)]
struct Known {
    /// Column of the table.
    called: &'static str,
    /// Whether a confirmed certificate is, or was, there.
    confirmed: bool,
    /// Whether a certificate waits for its confirmation.
    waits: bool,
    /// Its hardware.
    bound: bool,
}

const KNOWN: [Known; 6] = [
    Known { called: "registered", confirmed: false, waits: false, bound: false },
    Known { called: "registered, bound", confirmed: false, waits: false, bound: true },
    Known { called: "waits", confirmed: false, waits: true, bound: false },
    Known { called: "waits, bound", confirmed: false, waits: true, bound: true },
    Known { called: "confirmed", confirmed: true, waits: false, bound: false },
    Known { called: "confirmed, bound", confirmed: true, waits: true, bound: true },
];

const SHOWN: [(&str, Option<HardwareId>); 5] = [
    ("own", Some(OWN)),
    ("other", Some(OTHER)),
    ("another's", Some(OF_ANOTHER)),
    ("of one put out", Some(OF_OUT)),
    ("none", None),
];

/// Prints the table and compares it: what is shown, then for each rule the verdict, and the verdict with a permit.
pub fn table(rows: &mut dyn Rows) {
    let mut found = String::new();
    let another = put(rows, "another", |subject| subject.state = SubjectState::Active);
    let out = put(rows, "out", |subject| subject.state = SubjectState::Out);
    bind(rows, OF_ANOTHER, &another);
    bind(rows, OF_OUT, &out);
    for (number, known) in KNOWN.into_iter().enumerate() {
        let mut device = put(rows, &format!("re-{number}"), |subject| {
            subject.last_generation = u32::from(known.confirmed) + u32::from(known.waits);
            subject.confirmed_generation = u32::from(known.confirmed);
        });
        if known.waits {
            let index = u32::try_from(number).unwrap();
            let waiting =
                Certificate { generation: device.last_generation, token: None, ..certificate(77, index, Some(device.id)) };
            rows.insert_certificate(&Certificate { confirm_before: Some(Timestamp(5_000)), ..waiting }).unwrap();
        }
        for (shown, hardware) in SHOWN {
            // What is shown is its own only where it has hardware.
            rows.delete_hardware(&OWN).unwrap();
            if known.bound {
                bind(rows, OWN, &device);
            }
            let mut line = format!("{:<18}| {shown:<15}|", known.called);
            for until in [None, Some(NOW), Some(Timestamp(NOW.0 + 1))] {
                device.permits = Permits { reenroll_until: until, ..Permits::default() };
                rows.update_subject(&device).unwrap();
                let verdicts = RULES.map(|rule| verdict(rows, &device, rule, hardware));
                // A permit that has ended changes nothing.
                if until == Some(NOW) {
                    let text = verdicts.join(" ");
                    assert!(line.contains(verdicts[0].as_str()), "{line}: {text}");
                } else {
                    let same = verdicts.iter().all(|verdict| *verdict == verdicts[0]);
                    let text = if same { verdicts[0].clone() } else { verdicts.join(" ") };
                    write!(line, " {text} |").unwrap();
                }
            }
            writeln!(found, "{}", line.trim_end_matches(" |")).unwrap();
        }
        rows.delete_hardware(&OWN).unwrap();
    }
    assert_eq!(found, TABLE, "{found}");
    lapsed(rows);
    strangers(rows);
}

/// Deny, same-hardware, permit, always; one word where all four agree. Behind the bar: with a permit.
const TABLE: &str = "\
registered        | own            | ok | ok
registered        | other          | ok | ok
registered        | another's      | hardware_of_another_device | hardware_of_another_device
registered        | of one put out | identity_out | ok
registered        | none           | ok | ok
registered, bound | own            | ok | ok
registered, bound | other          | hardware_mismatch | ok
registered, bound | another's      | hardware_of_another_device | hardware_of_another_device
registered, bound | of one put out | identity_out | ok
registered, bound | none           | hardware_mismatch | ok
waits             | own            | name_taken | ok
waits             | other          | name_taken | ok
waits             | another's      | hardware_of_another_device | hardware_of_another_device
waits             | of one put out | identity_out | ok
waits             | none           | claim_bound_to_other_key | ok
waits, bound      | own            | ok | ok
waits, bound      | other          | hardware_mismatch | ok
waits, bound      | another's      | hardware_of_another_device | hardware_of_another_device
waits, bound      | of one put out | identity_out | ok
waits, bound      | none           | hardware_mismatch | ok
confirmed         | own            | reenrollment_denied reenrollment_denied reenrollment_denied ok | ok
confirmed         | other          | reenrollment_denied reenrollment_denied reenrollment_denied ok | ok
confirmed         | another's      | hardware_of_another_device | hardware_of_another_device
confirmed         | of one put out | identity_out | ok
confirmed         | none           | reenrollment_denied | ok
confirmed, bound  | own            | reenrollment_denied ok reenrollment_denied ok | ok
confirmed, bound  | other          | reenrollment_denied hardware_mismatch reenrollment_denied ok | ok
confirmed, bound  | another's      | hardware_of_another_device | hardware_of_another_device
confirmed, bound  | of one put out | identity_out | ok
confirmed, bound  | none           | hardware_mismatch | ok
";

/// A certificate that was not confirmed in time keeps no name.
fn lapsed(rows: &mut dyn Rows) {
    let device = put(rows, "re-lapsed", |subject| subject.last_generation = 1);
    let waiting = certificate(77, 99, Some(device.id));
    rows.insert_certificate(&Certificate { confirm_before: Some(NOW), token: None, generation: 1, ..waiting }).unwrap();
    for hardware in [Some(OTHER), None] {
        assert_eq!(verdict(rows, &device, Reenrollment::Deny, hardware), "ok");
    }
    let held = put(rows, "re-held", |subject| subject.last_generation = 1);
    let mut waiting = certificate(77, 98, Some(held.id));
    waiting.standing = Standing::Held;
    rows.insert_certificate(&Certificate { token: None, generation: 1, ..waiting }).unwrap();
    assert!(rows.certificate(certificate_id(waiting_epoch(), fleetmark_domain::Index(98))).unwrap().is_some());
    assert_eq!(verdict(rows, &held, Reenrollment::Always, None), "claim_bound_to_other_key");
}

fn waiting_epoch() -> fleetmark_domain::Epoch {
    fleetmark_domain::Epoch(77)
}

/// Names that nobody has, and twins.
fn strangers(rows: &mut dyn Rows) {
    let stranger = subject(Kind::Device, Some("alpha"), "re-stranger");
    for rule in RULES {
        for (hardware, expected) in [
            (None, "ok"),
            (Some(OTHER), "ok"),
            (Some(OF_ANOTHER), "hardware_of_another_device"),
            (Some(OF_OUT), "identity_out"),
        ] {
            assert_eq!(verdict(rows, &stranger, rule, hardware), expected);
        }
        let twin = subject(Kind::Device, Some("alpha"), "RE-0");
        assert_eq!(verdict(rows, &twin, rule, Some(OTHER)), "name_taken");
    }
    // What was the device of another fleet may bring its hardware along, also once that one was put out.
    let out = rows.hardware(&OF_OUT).unwrap().unwrap().subject;
    let moved = put(rows, "re-moved", |subject| subject.moved_from = Some(out));
    assert_eq!(verdict(rows, &moved, Reenrollment::Deny, Some(OF_OUT)), "ok");
}

fn verdict(rows: &mut dyn Rows, asked: &Subject, rule: Reenrollment, hardware: Option<HardwareId>) -> String {
    let new = subject(Kind::Device, Some("alpha"), asked.name.as_str());
    match newcomer(rows, &new, rule, hardware, NOW) {
        Ok(subject) => {
            assert_eq!(subject.id, asked.id);
            "ok".to_owned()
        }
        Err(error) => {
            assert_ne!(error.refusal(), Refusal::StorageUnavailable);
            error.refusal().code().to_owned()
        }
    }
}

fn put(rows: &mut dyn Rows, name: &str, change: impl FnOnce(&mut Subject)) -> Subject {
    let mut new = subject(Kind::Device, Some("alpha"), name);
    change(&mut new);
    let id = rows.insert_subject(&new).unwrap();
    let known = Subject { id, ..new };
    rows.advance_subject(&known).unwrap();
    rows.update_subject(&known).unwrap();
    known
}

fn bind(rows: &mut dyn Rows, id: HardwareId, subject: &Subject) {
    rows.put_hardware(&Hardware { id, subject: subject.id, source: HardwareSource::MakerKey, since: NOW }).unwrap();
}
