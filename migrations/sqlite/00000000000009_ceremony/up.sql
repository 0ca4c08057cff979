-- What the root is asked for where its key is on another machine. A row is there until the authority is made that it asks for.
CREATE TABLE root_requests (
    id TEXT NOT NULL PRIMARY KEY,
    kind SMALLINT NOT NULL,
    fleet TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    position BIGINT NOT NULL,
    csr BLOB NOT NULL,
    certificate BLOB,
    asked_at BIGINT NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX root_requests_kind ON root_requests (kind, fleet);
