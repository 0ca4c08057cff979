-- What a token admits beside its fleet: how many devices, which names, from which networks, whether a person approves each.
-- terms: JSON. spent: how many devices enrolled with it. origin: the device that a transfer token moves.
ALTER TABLE tokens ADD COLUMN terms TEXT NOT NULL DEFAULT '{}';
ALTER TABLE tokens ADD COLUMN spent BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tokens ADD COLUMN origin BIGINT;

-- group_id: the enrollment group that a device came in by. permits: JSON, what an operator granted this one device.
-- moved_from: the device of another fleet that it was before.
ALTER TABLE subjects ADD COLUMN group_id BIGINT;
ALTER TABLE subjects ADD COLUMN permits TEXT NOT NULL DEFAULT '{}';
ALTER TABLE subjects ADD COLUMN moved_from BIGINT;

-- hook: whom the server asks before it issues; JSON whose secret is encrypted. wave: a renewal pulled forward; JSON.
ALTER TABLE fleets ADD COLUMN hook TEXT;
ALTER TABLE fleets ADD COLUMN wave TEXT;

-- Enrollment groups: ways in that many devices share. Rows are never deleted, so that an id is never used again.
-- rules: JSON. material: what the proof is judged by: a maker's CA certificates in DER, an encrypted group key.
-- key_hash: the key of the claim certificate.
CREATE TABLE enrollment_groups (
    id BIGINT NOT NULL PRIMARY KEY,
    fleet TEXT NOT NULL,
    name TEXT NOT NULL,
    folded TEXT NOT NULL,
    proof SMALLINT NOT NULL,
    state SMALLINT NOT NULL,
    rules TEXT NOT NULL,
    material BYTEA NOT NULL,
    key_hash BYTEA,
    admitted BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by BIGINT NOT NULL,
    version BIGINT NOT NULL
);
CREATE UNIQUE INDEX enrollment_groups_name ON enrollment_groups (fleet, folded);
CREATE INDEX enrollment_groups_key ON enrollment_groups (key_hash) WHERE key_hash IS NOT NULL;

-- The serials that a group admits, where it lists them. device: the name under which that one enrolls; '' where it may choose.
CREATE TABLE enrollment_serials (
    group_id BIGINT NOT NULL,
    serial TEXT NOT NULL,
    device TEXT NOT NULL,
    PRIMARY KEY (group_id, serial)
);

-- Which hardware a device is. id: SHA-256 over what the hardware proved to be: a maker's key, an endorsement key.
CREATE TABLE hardware (
    id BYTEA NOT NULL PRIMARY KEY,
    subject BIGINT NOT NULL,
    source SMALLINT NOT NULL,
    since BIGINT NOT NULL
);
CREATE INDEX hardware_subject ON hardware (subject);

-- Requests that a person decides.
CREATE TABLE enrollment_requests (
    id BIGINT NOT NULL PRIMARY KEY,
    fleet TEXT NOT NULL,
    name TEXT NOT NULL,
    folded TEXT NOT NULL,
    key_hash BYTEA NOT NULL,
    state SMALLINT NOT NULL,
    proof TEXT NOT NULL,
    source TEXT NOT NULL,
    key_type TEXT NOT NULL,
    reason TEXT NOT NULL,
    asked_at BIGINT NOT NULL,
    decided_at BIGINT,
    decided_by BIGINT,
    expires_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX enrollment_requests_key ON enrollment_requests (fleet, folded, key_hash);
CREATE INDEX enrollment_requests_state ON enrollment_requests (fleet, state);
CREATE INDEX enrollment_requests_expiry ON enrollment_requests (expires_at);

-- Public keys that nobody gets a certificate for.
CREATE TABLE blocked_keys (
    key_hash BYTEA NOT NULL PRIMARY KEY,
    reason TEXT NOT NULL,
    blocked_at BIGINT NOT NULL,
    blocked_by BIGINT NOT NULL
);
