//! Enrolls by keys that were derived for a group.
