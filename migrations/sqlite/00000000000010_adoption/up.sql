-- How many certificates of an external authority were adopted on sight: in all, and within the hour that began at sighted_hour.
ALTER TABLE external_authorities ADD COLUMN sighted BIGINT NOT NULL DEFAULT 0;
ALTER TABLE external_authorities ADD COLUMN sighted_hour BIGINT NOT NULL DEFAULT 0;
ALTER TABLE external_authorities ADD COLUMN sighted_within BIGINT NOT NULL DEFAULT 0;

-- Certificates of external authorities that are adopted when they are first seen. device: the name that the naming rule must give.
CREATE TABLE expected_certificates (
    fingerprint BLOB NOT NULL PRIMARY KEY,
    authority BIGINT NOT NULL,
    device TEXT,
    expected_at BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX expected_certificates_authority ON expected_certificates (authority, fingerprint);
