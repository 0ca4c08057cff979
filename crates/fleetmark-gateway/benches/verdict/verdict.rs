//! What a verdict costs: kept, and asked of policy anew, beside one P-256 verification on this machine.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use fleetmark_domain::{Epoch, Index, Kind, Serial, Standing, Timestamp};
use fleetmark_gateway::judge::{Judge, Presented, Wanted};
use fleetmark_gateway::testing::Double;
use fleetmark_ledger::entry::{AuthorityKind, AuthorityState};
use fleetmark_policy::{Act, DEFAULT_FLEET, DEFAULT_INSTALLATION, Set};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType, SerialNumber};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey};
use rustix::time::{ClockId, clock_gettime};

use crate::Outcome;
use crate::report::Report;

const ROUNDS: u32 = 20_000;

/// Takes the figures.
pub fn run(report: &Report) -> Outcome<()> {
    let (judge, der) = world()?;
    let presented = Presented::parse(&der).map_err(|reason| reason.as_str())?;
    // Between rcgen's usual dates.
    let now = Timestamp(1_800_000_000);
    let wanted = |topic| Wanted {
        act: Act::Publish,
        topic: Some(topic),
        source: None,
        protocol: Some("mqtt"),
        firmware: None,
        shown: true,
    };
    let own = wanted("default/sensor-01/temperature");
    let verdict = judge.judge(&presented, &own, now);
    if !verdict.allow {
        return Err(format!("denied: {}", verdict.reason.as_str()).into());
    }
    let cached = measure(ROUNDS, || drop(black_box(judge.judge(&presented, &own, now))));
    let topics: Vec<_> = (0..ROUNDS).map(|number| format!("default/sensor-01/{number}")).collect();
    let mut anew = topics.iter().map(String::as_str);
    let uncached = measure(ROUNDS, || {
        let topic = anew.next().unwrap_or_default();
        drop(black_box(judge.judge(&presented, &wanted(topic), now)));
    });
    let parsed = measure(ROUNDS, || drop(black_box(Presented::parse(&der))));
    report.figure("verdict, cached", cached, "µs", None);
    report.figure("verdict, uncached, beside a verification", uncached, "µs", Some(verification()?));
    report.figure("certificate parsed", parsed, "µs", None);
    Ok(())
}

/// Microseconds of this thread's CPU each, in the least disturbed tenth.
fn measure(rounds: u32, mut act: impl FnMut()) -> f64 {
    let each = rounds / 10;
    let tenth = || {
        let started = cpu();
        (0..each).for_each(|_| act());
        (cpu() - started).as_secs_f64() * 1e6 / f64::from(each)
    };
    std::iter::repeat_with(tenth).take(10).fold(f64::INFINITY, f64::min)
}

fn cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

fn world() -> Outcome<(Judge, Vec<u8>)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority = params.self_signed(&key)?.der().clone();
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::default();
    let serial = Serial::new(Epoch(1), Index(0), [7; 8]);
    params.serial_number = Some(SerialNumber::from_slice(serial.octets()));
    params.subject_alt_names = vec![SanType::URI("spiffe://fleet.test/device/default/sensor-01".try_into()?)];
    params.use_authority_key_identifier_extension = true;
    let device = params.signed_by(&KeyPair::generate()?, &issuer)?.der().clone();
    let double = Double::new(&["default"]);
    double.authority(1, AuthorityKind::Of(Kind::Device), AuthorityState::Active, &authority);
    double.certificate("default", Epoch(1), Index(0), 1, &device, Standing::Good, 7);
    let set = |text| Set::compile(text).map(Arc::new).map_err(|_| "a default set does not compile");
    double.policy("system", set(DEFAULT_INSTALLATION)?);
    double.policy("default", set(DEFAULT_FLEET)?);
    Ok((Judge::new(double.knowledge()), device.to_vec()))
}

fn verification() -> Outcome<f64> {
    let random = ring::rand::SystemRandom::new();
    let wrong = |_| "ring refused its own key";
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).map_err(|_| "no randomness")?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).map_err(wrong)?;
    let message = [7; 512];
    let signature = pair.sign(&random, &message).map_err(|_| "no signature")?;
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key().as_ref());
    Ok(measure(2_000, || {
        let _ = black_box(public.verify(&message, signature.as_ref()));
    }))
}
