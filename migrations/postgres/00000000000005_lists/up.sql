-- Lists as they were made and are given out. kind: 1 CRL of a shard, 2 status list. slice: a certificate's index / 2^14 for a CRL.
-- number never goes back. position: the ledger's size that the list was made at.
CREATE TABLE published_lists (
    kind SMALLINT NOT NULL,
    authority BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    slice BIGINT NOT NULL,
    number BIGINT NOT NULL,
    this_update BIGINT NOT NULL,
    next_update BIGINT NOT NULL,
    position BIGINT NOT NULL,
    octets BYTEA NOT NULL,
    PRIMARY KEY (kind, authority, epoch, slice)
);
