-- How many devices one operator may revoke, hold, release, retire or change in an hour; NULL: the larger of 10 and 1 %.
ALTER TABLE fleets ADD COLUMN blast_radius BIGINT;

-- Which devices an operator changed, and when last. Rows older than an hour count no more and are deleted in time.
CREATE TABLE touched (
    operator BIGINT NOT NULL,
    fleet TEXT NOT NULL,
    subject BIGINT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (operator, fleet, subject)
);

-- What one operator allowed another beyond the limit. Rows are never deleted.
CREATE TABLE allowances (
    id BIGINT NOT NULL PRIMARY KEY,
    fleet TEXT NOT NULL,
    operator BIGINT NOT NULL,
    devices BIGINT NOT NULL,
    allowed_by BIGINT NOT NULL,
    allowed_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX allowances_fleet ON allowances (fleet, expires_at);
