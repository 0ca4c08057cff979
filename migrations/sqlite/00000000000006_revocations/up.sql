-- How many devices an operator changed in which minute (seconds since 1970 / 60): the sum of an hour is read instead of its devices.
CREATE TABLE touched_minutes (
    operator BIGINT NOT NULL,
    fleet TEXT NOT NULL,
    minute BIGINT NOT NULL,
    devices BIGINT NOT NULL,
    PRIMARY KEY (operator, fleet, minute)
) WITHOUT ROWID;
INSERT INTO touched_minutes SELECT operator, fleet, at / 60, COUNT(*) FROM touched GROUP BY operator, fleet, at / 60;

-- Revocations, holds, quarantines and releases of many certificates at once, and how far each is. Rows are never deleted.
-- id: seconds since 1970 * 2^31 + random, so that they ascend in time. act: what comes of the certificates, as in
-- certificates.standing. selector: JSON. place, sweep: where it goes on. covered: how many devices an approval covers.
CREATE TABLE revocations (
    id INTEGER NOT NULL PRIMARY KEY,
    ledger TEXT NOT NULL,
    state SMALLINT NOT NULL,
    act SMALLINT NOT NULL,
    reason SMALLINT,
    selector TEXT NOT NULL,
    selection TEXT NOT NULL,
    note TEXT NOT NULL,
    ordered_by BIGINT NOT NULL,
    ordered_at BIGINT NOT NULL,
    approved_by BIGINT,
    approved_at BIGINT,
    cancelled_by BIGINT,
    runs_at BIGINT NOT NULL,
    expires_at BIGINT,
    devices BIGINT NOT NULL,
    certificates BIGINT NOT NULL,
    covered BIGINT NOT NULL,
    sweep BOOLEAN NOT NULL,
    place BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    started_at BIGINT,
    ended_at BIGINT,
    failure TEXT NOT NULL
);
-- Those that wait or run are few.
CREATE INDEX revocations_open ON revocations (state) WHERE state <= 2;
