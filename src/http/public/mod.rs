//! The public door: CRLs, OCSP, CA certificates, health.
