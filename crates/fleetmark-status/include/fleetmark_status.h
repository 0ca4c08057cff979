/*
 * Fleetmark's status list, read by firmware: a signed, compact list of the certificates of an epoch that are not good.
 * docs/status-list.md describes the format and every code. No heap, no global state, no locks: any thread may query.
 *
 * Whoever has no list that opens, and whoever gets an answer other than FLEETMARK_STATUS_GOOD, does not let the device in.
 */
#ifndef FLEETMARK_STATUS_H
#define FLEETMARK_STATUS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    /* Answers for a certificate. */
    FLEETMARK_STATUS_GOOD = 0,
    FLEETMARK_STATUS_NOT_GOOD = 1,                   /* revoked, held, or never issued */
    FLEETMARK_STATUS_BEYOND = 2,                     /* not in this list's range: fetch a newer list, or another slice */
    FLEETMARK_STATUS_CERTIFICATE_OF_OTHER_EPOCH = 3, /* fetch the list of the certificate's epoch */
    FLEETMARK_STATUS_FOREIGN_SERIAL = 4,             /* no serial number of Fleetmark's */
    FLEETMARK_STATUS_UNREADABLE = 5,                 /* the list did not open, or its memory changed since */

    /* Why a list did not open. */
    FLEETMARK_STATUS_OPENED = 0,
    FLEETMARK_STATUS_MALFORMED = 16,
    FLEETMARK_STATUS_UNKNOWN_VERSION = 17,
    FLEETMARK_STATUS_OTHER_KEY = 18,
    FLEETMARK_STATUS_OTHER_FLEET = 19,
    FLEETMARK_STATUS_OTHER_AUTHORITY = 20,
    FLEETMARK_STATUS_OTHER_EPOCH = 21,
    FLEETMARK_STATUS_OTHER_SLICE = 22,
    FLEETMARK_STATUS_ROLLED_BACK = 23,
    FLEETMARK_STATUS_NOT_YET = 24,
    FLEETMARK_STATUS_STALE = 25,
    FLEETMARK_STATUS_TOO_OLD = 26,
    FLEETMARK_STATUS_BAD_SIGNATURE = 27,
    FLEETMARK_STATUS_BAD_BLOCKS = 28,
    FLEETMARK_STATUS_BAD_KEY = 29
};

/* What a list must be about, and fulfil. */
typedef struct {
    uint8_t fleet[16];        /* the first octets of SHA-256 over "<trust domain>/<fleet>" in lower case */
    uint8_t authority[20];    /* the authority's subject key identifier: the certificate's authority key identifier */
    uint32_t epoch;           /* octets 1 to 4 of the certificate's serial */
    uint32_t max_age;         /* seconds */
    uint64_t now;             /* seconds since 1970, from a source that an attacker cannot set */
    uint64_t lowest_sequence; /* the highest that was accepted for this scope, from memory that outlives power; 0 at first */
    uint16_t slice;           /* FLEETMARK_STATUS_SLICE_OF(index) */
} fleetmark_status_terms;

/* An index is octets 5 to 8 of the certificate's serial; a slice has 2^20 of them. */
#define FLEETMARK_STATUS_SLICE_OF(index) ((uint16_t)((uint32_t)(index) >> 20))

/* An opened list; filled by the functions below. Only `sequence`, `next_update` and `count` are for reading. */
typedef struct {
    const uint8_t *body;
    size_t length;
    uint32_t epoch;
    uint32_t count; /* indices covered, from the slice's first */
    uint16_t slice;
    uint8_t shift;
    uint8_t width;
    uint64_t sequence;    /* to keep as the next lowest */
    uint64_t next_update; /* seconds since 1970: open a newer list before */
} fleetmark_status_list;

/*
 * Opens a list. `octets` stay where they are, unchanged, as long as `list` is used: flash will do.
 * `point` is the trusted key: SEC 1, uncompressed, 65 octets. Returns FLEETMARK_STATUS_OPENED or why not.
 * Only in a library that was built with P-256.
 */
int fleetmark_status_open(fleetmark_status_list *list, const uint8_t *octets, size_t length, const fleetmark_status_terms *terms,
                          const uint8_t *point);

/* A firmware's own ECDSA on P-256 with SHA-256: returns 1 where `signature` (r and s, 32 octets each) is the key's over `message`. */
typedef struct {
    uint8_t key_id[8]; /* the first octets of SHA-256 over the key's point */
    void *context;
    int (*verify)(void *context, const uint8_t *message, size_t length, const uint8_t *signature);
} fleetmark_status_verifier;

/* The same with the firmware's own P-256. */
int fleetmark_status_open_with(fleetmark_status_list *list, const uint8_t *octets, size_t length,
                               const fleetmark_status_terms *terms, const fleetmark_status_verifier *verifier);

/* The answer for an index of the list's epoch. */
int fleetmark_status_query(const fleetmark_status_list *list, uint32_t index);

/* The answer for a certificate's serial number: the content octets of its DER INTEGER. */
int fleetmark_status_query_serial(const fleetmark_status_list *list, const uint8_t *serial, size_t length);

#ifdef __cplusplus
}
#endif

#endif
