//! What the first start makes: root, authorities, the first fleet, the first operator, the doors' certificates.
