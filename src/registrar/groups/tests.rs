use super::*;

#[test]
fn arrivals_count_for_an_hour() {
    let mut arrivals = Arrivals::default();
    let start = 1_000 * MINUTE;
    for second in 0..120 {
        assert_eq!(arrivals.count(Timestamp(start + second)), u64::try_from(second).unwrap() + 1);
    }
    // The first minute's are forgotten with it.
    assert_eq!(arrivals.count(Timestamp(start + HOUR)), 61);
    assert_eq!(arrivals.count(Timestamp(start + HOUR + MINUTE)), 2);
    assert_eq!(arrivals.count(Timestamp(start + 9 * HOUR)), 1);
    // A clock that is put back a little forgets nothing; by hours, what it counted was never.
    assert_eq!(arrivals.count(Timestamp(start + 9 * HOUR - 10 * MINUTE)), 2);
    assert_eq!(arrivals.count(Timestamp(start)), 1);
    assert!(arrivals.minutes.len() <= 60);
}

#[test]
fn an_alarm_is_raised_once_an_hour() {
    let mut arrivals = Arrivals::default();
    assert!(arrivals.alarms(Timestamp(5)));
    assert!(!arrivals.alarms(Timestamp(5 + HOUR - 1)));
    assert!(arrivals.alarms(Timestamp(5 + HOUR)));
    assert!(arrivals.alarms(Timestamp(5)));
}

#[test]
fn serials_have_a_length() {
    for serial in ["A", "A/1, \u{e9}", &"x".repeat(MAX_SERIAL)] {
        assert!(check_serial(serial).is_ok(), "{serial}");
    }
    for serial in ["", "a\nb", &"x".repeat(MAX_SERIAL + 1)] {
        assert_eq!(check_serial(serial).expect_err(serial).refusal, Refusal::InvalidValue);
    }
    assert_eq!(serial_of(&hex::encode("A\u{e9}")), Some("A\u{e9}".to_owned()));
    assert_eq!(serial_of("zz"), None);
}
