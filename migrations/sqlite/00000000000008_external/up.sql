-- Other authorities, each bound to one fleet: CA certificates of another PKI whose devices' certificates the fleet takes.
-- id: 2^30 or more. state: what operators say; stale: what the authority says of its certificates is past its end.
-- rules: JSON. material: the CA certificates in DER, one after the other. epoch: the numbering space that is open.
CREATE TABLE external_authorities (
    id INTEGER NOT NULL PRIMARY KEY,
    fleet TEXT NOT NULL,
    name TEXT NOT NULL,
    folded TEXT NOT NULL,
    state SMALLINT NOT NULL,
    stale BOOLEAN NOT NULL,
    rules TEXT NOT NULL,
    material BLOB NOT NULL,
    epoch BIGINT,
    next_index BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by BIGINT NOT NULL,
    version BIGINT NOT NULL
);
CREATE UNIQUE INDEX external_authorities_name ON external_authorities (fleet, folded);
CREATE UNIQUE INDEX external_authorities_epoch ON external_authorities (epoch);

-- What is known of an adopted certificate beside its row in certificates, whose id is `certificate`. issuer: SHA-256 over the issuer's
-- Name. own_*: what we say; foreign_*: what the other authority says; the worse of both is in certificates. next_update: until
-- when an answer about it alone (OCSP) holds.
CREATE TABLE external_certificates (
    fingerprint BLOB NOT NULL PRIMARY KEY,
    certificate BIGINT NOT NULL,
    authority BIGINT NOT NULL,
    issuer BLOB NOT NULL,
    serial BLOB NOT NULL,
    key_hash BLOB NOT NULL,
    own_standing SMALLINT NOT NULL,
    own_reason SMALLINT,
    foreign_standing SMALLINT NOT NULL,
    foreign_reason SMALLINT,
    not_after BIGINT NOT NULL,
    next_update BIGINT
) WITHOUT ROWID;
CREATE UNIQUE INDEX external_certificates_place ON external_certificates (certificate);
CREATE UNIQUE INDEX external_certificates_serial ON external_certificates (authority, issuer, serial);

-- The newest revocation list of an external authority at a URL. number: CRLNumber's octets. etag, modified: for asking again.
CREATE TABLE foreign_lists (
    authority BIGINT NOT NULL,
    url TEXT NOT NULL,
    issuer BLOB NOT NULL,
    number BLOB NOT NULL,
    this_update BIGINT NOT NULL,
    next_update BIGINT NOT NULL,
    etag TEXT NOT NULL,
    modified TEXT NOT NULL,
    fetched_at BIGINT NOT NULL,
    der BLOB NOT NULL,
    PRIMARY KEY (authority, url)
);
