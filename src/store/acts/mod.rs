//! Named transactions: one file a use case.
