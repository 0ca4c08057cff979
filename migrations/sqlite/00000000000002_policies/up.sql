-- Every policy set that was ever put, by the ledger of its scope. Rows are never changed or deleted: what a ledger's entry
-- names by its hash must be found.
CREATE TABLE policy_sets (
    ledger TEXT NOT NULL,
    version BIGINT NOT NULL,
    text TEXT NOT NULL,
    hash BLOB NOT NULL,
    note TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (ledger, version)
);

-- Every activation, from 1 in each ledger; the one with the highest number counts.
CREATE TABLE policy_activations (
    ledger TEXT NOT NULL,
    number BIGINT NOT NULL,
    version BIGINT NOT NULL,
    activated_at BIGINT NOT NULL,
    activated_by TEXT NOT NULL,
    PRIMARY KEY (ledger, number),
    FOREIGN KEY (ledger, version) REFERENCES policy_sets (ledger, version)
) WITHOUT ROWID;
