-- Which roots are trusted, signed by those that were trusted before: a device that comes back after years follows them from the root
-- that it knows. Rows are never deleted. signers, roots: SHA-256 over the roots' certificates, 32 octets each.
CREATE TABLE trust_bundles (
    number BIGINT NOT NULL PRIMARY KEY,
    made_at BIGINT NOT NULL,
    signers BYTEA NOT NULL,
    roots BYTEA NOT NULL,
    der BYTEA NOT NULL
);
