//! TLS at the doors: client certificates verified against the authorities as they are now, server certificates swapped
//! without a restart, no resumption.
