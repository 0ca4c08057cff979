/* The vectors, as cases.py writes them into cases.c. */
#ifndef CASES_H
#define CASES_H

#include "fleetmark_status.h"

typedef struct {
    uint32_t index;
    int code;
} query;

typedef struct {
    const char *name;
    const uint8_t *octets;
    uint32_t length;
    uint8_t point[65];
    fleetmark_status_terms terms;
    int code; /* what opening the list returns */
    const query *queries;
    uint32_t query_count;
} vector;

extern const vector vectors_of_docs[];
extern const uint32_t vector_count;

#endif
