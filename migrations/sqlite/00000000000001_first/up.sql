-- Times are seconds since 1970 UTC. '' in a column `fleet` means no fleet. Lists and maps are JSON text.
-- Each index costs every enrollment: what only a person looks for, such as a fingerprint, has none.
CREATE TABLE installation (
    name TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE fleets (
    name TEXT NOT NULL PRIMARY KEY,
    open BOOLEAN NOT NULL,
    profile TEXT NOT NULL,
    unconfirmed_ttl BIGINT,
    list_superseded BOOLEAN NOT NULL,
    list_quarantined BOOLEAN NOT NULL,
    max_age BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE authorities (
    id INTEGER NOT NULL PRIMARY KEY,
    kind SMALLINT NOT NULL,
    fleet TEXT NOT NULL,
    state SMALLINT NOT NULL,
    key_label TEXT NOT NULL,
    certificate BLOB NOT NULL,
    issuer BIGINT REFERENCES authorities (id),
    created_at BIGINT NOT NULL
);

CREATE TABLE epochs (
    number INTEGER NOT NULL PRIMARY KEY,
    authority BIGINT NOT NULL REFERENCES authorities (id),
    opened_at BIGINT NOT NULL,
    closed_at BIGINT,
    next_index BIGINT NOT NULL
);
-- At most one open epoch an authority.
CREATE UNIQUE INDEX epochs_open ON epochs (authority) WHERE closed_at IS NULL;

-- id: epoch * 2^32 + first index.
CREATE TABLE leases (
    id INTEGER NOT NULL PRIMARY KEY,
    length BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- Rows are never deleted, so that an id is never used again.
CREATE TABLE subjects (
    id INTEGER NOT NULL PRIMARY KEY,
    kind SMALLINT NOT NULL,
    fleet TEXT NOT NULL,
    name TEXT NOT NULL,
    folded TEXT NOT NULL,
    state SMALLINT NOT NULL,
    role SMALLINT,
    grants TEXT,
    dns_names TEXT NOT NULL,
    addresses TEXT NOT NULL,
    attributes TEXT NOT NULL,
    last_generation BIGINT NOT NULL,
    confirmed_generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL
);
CREATE UNIQUE INDEX subjects_name ON subjects (kind, fleet, folded);

-- id: epoch * 2^32 + index, so that the primary key is UNIQUE (epoch, index) and rows are added at the table's end.
-- authority and subject have no REFERENCES: the check would cost every enrollment two look-ups.
CREATE TABLE certificates (
    id INTEGER NOT NULL PRIMARY KEY,
    serial BLOB NOT NULL,
    authority BIGINT NOT NULL,
    subject BIGINT,
    generation BIGINT NOT NULL,
    key_hash BLOB NOT NULL,
    fingerprint BLOB NOT NULL,
    standing SMALLINT NOT NULL,
    reason SMALLINT,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    renew_after BIGINT NOT NULL,
    confirm_before BIGINT,
    issued_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    ledger TEXT NOT NULL,
    position BIGINT NOT NULL,
    token BLOB,
    der BLOB NOT NULL
);
CREATE UNIQUE INDEX certificates_key ON certificates (key_hash);
-- The installation's own certificates have no subject; nulls are distinct.
CREATE UNIQUE INDEX certificates_subject ON certificates (subject, generation);
-- These grow at their right edge and touch one page a batch.
CREATE INDEX certificates_ledger ON certificates (ledger);
CREATE INDEX certificates_not_after ON certificates (not_after);
-- These hold few rows.
CREATE INDEX certificates_not_good ON certificates (authority) WHERE standing >= 2;
CREATE INDEX certificates_unconfirmed ON certificates (confirm_before) WHERE standing = 0 AND confirm_before IS NOT NULL;

CREATE TABLE tokens (
    id BLOB NOT NULL PRIMARY KEY,
    secret_hash BLOB NOT NULL,
    kind SMALLINT NOT NULL,
    fleet TEXT NOT NULL,
    subject BIGINT,
    state SMALLINT NOT NULL,
    key_hash BLOB,
    expires_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by BIGINT NOT NULL,
    note TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE ledgers (
    name TEXT NOT NULL PRIMARY KEY,
    origin TEXT NOT NULL,
    key_label TEXT NOT NULL,
    key BLOB NOT NULL,
    size BIGINT NOT NULL,
    root BLOB NOT NULL,
    frontier BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE ledger_entries (
    ledger TEXT NOT NULL,
    position BIGINT NOT NULL,
    entry BLOB NOT NULL,
    details BLOB,
    PRIMARY KEY (ledger, position)
) WITHOUT ROWID;

CREATE TABLE ledger_nodes (
    ledger TEXT NOT NULL,
    level SMALLINT NOT NULL,
    place BIGINT NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (ledger, level, place)
) WITHOUT ROWID;

CREATE TABLE crls (
    authority INTEGER NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL,
    this_update BIGINT NOT NULL,
    next_update BIGINT NOT NULL,
    position BIGINT NOT NULL,
    der BLOB NOT NULL
);

CREATE TABLE remembered (
    subject BIGINT NOT NULL,
    key TEXT NOT NULL,
    request_hash BLOB NOT NULL,
    resource TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (subject, key)
) WITHOUT ROWID;
