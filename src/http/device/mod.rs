//! The device door: enroll, renew, confirm, time, EST.
