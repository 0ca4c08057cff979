//! openssl, curl and nginx.
