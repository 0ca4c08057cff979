/*
 * A firmware that lets devices in by a status list. First as a product would: a gate with a memory of the highest sequence. Then
 * every vector of docs/status-list.md, as the other readers judge them. Prints `ok ...` or `FAIL ...`, a line each.
 */
#include "board.h"
#include "cases.h"

static int failed;

static int same(const char *one, const char *other)
{
    while (*one && *one == *other) {
        one++;
        other++;
    }
    return *one == *other;
}

static void write_number(uint32_t number)
{
    char digits[11];
    int at = 10;
    digits[at] = 0;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    board_write(digits + at);
}

static void judge(const char *kind, const char *name, int said, int expected)
{
    board_write(said == expected ? "ok " : "FAIL ");
    board_write(kind);
    board_write(name);
    if (said != expected) {
        failed = 1;
        board_write(": ");
        write_number((uint32_t)said);
        board_write(", not ");
        write_number((uint32_t)expected);
    }
    board_write("\n");
}

static const vector *vector_named(const char *name)
{
    for (uint32_t at = 0; at < vector_count; at++) {
        if (same(vectors_of_docs[at].name, name)) {
            return &vectors_of_docs[at];
        }
    }
    board_write("FAIL no such vector\n");
    board_end(1);
    return 0;
}

/* --- the gate: what a product has --- */

typedef struct {
    fleetmark_status_terms terms; /* lowest_sequence from memory that outlives power */
    const uint8_t *point;
    fleetmark_status_list list;
} gate;

/* A newer list from the network, already in flash. The old one goes on counting when this one is refused. */
static int gate_take(gate *gate, const uint8_t *octets, uint32_t length, uint64_t now)
{
    fleetmark_status_list list;
    gate->terms.now = now;
    int code = fleetmark_status_open(&list, octets, length, &gate->terms, gate->point);
    if (code == FLEETMARK_STATUS_OPENED) {
        gate->list = list;
        gate->terms.lowest_sequence = list.sequence;
    }
    return code;
}

/* The answer for a device whose chain was verified already; `now` as at every decision. */
static int gate_ask(const gate *gate, const uint8_t serial[17], uint64_t now)
{
    if (now > gate->list.next_update) {
        return FLEETMARK_STATUS_STALE;
    }
    return fleetmark_status_query_serial(&gate->list, serial, 17);
}

static void serial_of(uint8_t serial[17], uint32_t epoch, uint32_t index)
{
    serial[0] = 1;
    for (int at = 0; at < 4; at++) {
        serial[1 + at] = (uint8_t)(epoch >> (24 - 8 * at));
        serial[5 + at] = (uint8_t)(index >> (24 - 8 * at));
    }
    for (int at = 9; at < 17; at++) {
        serial[at] = 0xc3;
    }
}

static int ask(const gate *gate, uint32_t epoch, uint32_t index)
{
    uint8_t serial[17];
    serial_of(serial, epoch, index);
    return gate_ask(gate, serial, gate->terms.now);
}

/* In RAM, so that it can be damaged. */
static uint8_t copy[2048];

static void opened_as_damaged(gate *gate, const vector *vector, uint32_t at, const char *name, int expected)
{
    for (uint32_t octet = 0; octet < vector->length; octet++) {
        copy[octet] = vector->octets[octet];
    }
    copy[at] ^= 1;
    judge("gate: ", name, gate_take(gate, copy, vector->length, gate->terms.now), expected);
}

static void story(void)
{
    /* 1,000 indices by hand: 100 was revoked, 812 was never issued. */
    const vector *vector = vector_named("by-hand");
    gate gate = {.terms = vector->terms, .point = vector->point};
    uint64_t now = vector->terms.now;
    uint32_t epoch = vector->terms.epoch;

    judge("gate: ", "no list yet, nobody in", fleetmark_status_query(&gate.list, 0), FLEETMARK_STATUS_UNREADABLE);
    judge("gate: ", "the list is taken", gate_take(&gate, vector->octets, vector->length, now), FLEETMARK_STATUS_OPENED);
    judge("gate: ", "a good device", ask(&gate, epoch, 99), FLEETMARK_STATUS_GOOD);
    judge("gate: ", "another good device", ask(&gate, epoch, 999), FLEETMARK_STATUS_GOOD);
    judge("gate: ", "a revoked device", ask(&gate, epoch, 100), FLEETMARK_STATUS_NOT_GOOD);
    judge("gate: ", "a hole", ask(&gate, epoch, 812), FLEETMARK_STATUS_NOT_GOOD);
    judge("gate: ", "beyond the list", ask(&gate, epoch, 1000), FLEETMARK_STATUS_BEYOND);
    judge("gate: ", "another slice", ask(&gate, epoch, 1u << 20), FLEETMARK_STATUS_BEYOND);
    judge("gate: ", "another epoch's certificate", ask(&gate, epoch + 1, 99), FLEETMARK_STATUS_CERTIFICATE_OF_OTHER_EPOCH);
    judge("gate: ", "a serial of 16 octets", fleetmark_status_query_serial(&gate.list, vector->point, 16),
          FLEETMARK_STATUS_FOREIGN_SERIAL);
    judge("gate: ", "a list that became stale", gate_ask(&gate, (const uint8_t *)"\1\0\0\0\7\0\0\0\0\0\0\0\0\0\0\0\0", now + 86401),
          FLEETMARK_STATUS_STALE);

    judge("gate: ", "a stale list", gate_take(&gate, vector->octets, vector->length, now + 86401), FLEETMARK_STATUS_STALE);
    gate.terms.now = now;
    opened_as_damaged(&gate, vector, vector->length - 1, "a bad signature", FLEETMARK_STATUS_BAD_SIGNATURE);
    opened_as_damaged(&gate, vector, 84, "a damaged body", FLEETMARK_STATUS_BAD_SIGNATURE);
    opened_as_damaged(&gate, vector, 63, "another sequence than was signed", FLEETMARK_STATUS_BAD_SIGNATURE);
    opened_as_damaged(&gate, vector, 12, "another fleet's list", FLEETMARK_STATUS_OTHER_FLEET);
    opened_as_damaged(&gate, vector, 28, "another authority's list", FLEETMARK_STATUS_OTHER_AUTHORITY);
    opened_as_damaged(&gate, vector, 48, "another epoch's list", FLEETMARK_STATUS_OTHER_EPOCH);
    opened_as_damaged(&gate, vector, 53, "another slice's list", FLEETMARK_STATUS_OTHER_SLICE);
    judge("gate: ", "refused lists change nothing", ask(&gate, epoch, 99), FLEETMARK_STATUS_GOOD);
    gate.terms.lowest_sequence++;
    judge("gate: ", "a rolled-back list", gate_take(&gate, vector->octets, vector->length, now), FLEETMARK_STATUS_ROLLED_BACK);
    judge("gate: ", "nothing to open", gate_take(&gate, 0, 0, now), FLEETMARK_STATUS_MALFORMED);
}

/* Whatever was wrong, a list that did not open lets nobody in, and nothing of an earlier list is left. */
static void misuse(void)
{
    const vector *vector = vector_named("by-hand");
    fleetmark_status_list list;
    uint8_t point[65];
    for (int at = 0; at < 65; at++) {
        point[at] = vector->point[at];
    }
    point[64] ^= 1;
    const uint8_t *points[] = {point, 0, vector->point};
    const fleetmark_status_terms *terms[] = {&vector->terms, &vector->terms, 0};
    const int codes[] = {FLEETMARK_STATUS_BAD_KEY, FLEETMARK_STATUS_BAD_KEY, FLEETMARK_STATUS_MALFORMED};
    for (int at = 0; at < 3; at++) {
        fleetmark_status_open(&list, vector->octets, vector->length, &vector->terms, vector->point);
        judge("misuse: ", "refused", fleetmark_status_open(&list, vector->octets, vector->length, terms[at], points[at]), codes[at]);
        judge("misuse: ", "nobody in", fleetmark_status_query(&list, 0), FLEETMARK_STATUS_UNREADABLE);
    }
    fleetmark_status_open(&list, vector->octets, vector->length, &vector->terms, vector->point);
    judge("misuse: ", "no verifier", fleetmark_status_open_with(&list, vector->octets, vector->length, &vector->terms, 0),
          FLEETMARK_STATUS_BAD_KEY);
    judge("misuse: ", "nobody in by it", fleetmark_status_query(&list, 0), FLEETMARK_STATUS_UNREADABLE);
}

/* --- a firmware with a P-256 of its own: here one that only looks whether it is asked the right thing --- */

static int own_verify(void *context, const uint8_t *message, size_t length, const uint8_t *signature)
{
    const vector *vector = context;
    return message == vector->octets && signature == vector->octets + length && length + 64 == vector->length;
}

static void own_cryptography(void)
{
    const vector *vector = vector_named("hundredth");
    fleetmark_status_verifier verifier = {.context = (void *)vector, .verify = own_verify};
    for (int at = 0; at < 8; at++) {
        verifier.key_id[at] = vector->octets[4 + at];
    }
    fleetmark_status_list list;
    judge("own P-256: ", "a list", fleetmark_status_open_with(&list, vector->octets, vector->length, &vector->terms, &verifier), 0);
    verifier.context = (void *)vector_named("tenth");
    judge("own P-256: ", "a signature that it refuses",
          fleetmark_status_open_with(&list, vector->octets, vector->length, &vector->terms, &verifier), FLEETMARK_STATUS_BAD_SIGNATURE);
    judge("own P-256: ", "a list that did not open", fleetmark_status_query(&list, 0), FLEETMARK_STATUS_UNREADABLE);
    verifier.verify = 0;
    judge("own P-256: ", "no function", fleetmark_status_open_with(&list, vector->octets, vector->length, &vector->terms, &verifier),
          FLEETMARK_STATUS_BAD_SIGNATURE);
}

static void every_vector(void)
{
    for (uint32_t at = 0; at < vector_count; at++) {
        const vector *vector = &vectors_of_docs[at];
        fleetmark_status_list list;
        int code = fleetmark_status_open(&list, vector->octets, vector->length, &vector->terms, vector->point);
        int expected = vector->code;
        for (uint32_t asked = 0; code == expected && asked < vector->query_count; asked++) {
            code = fleetmark_status_query(&list, vector->queries[asked].index);
            expected = vector->queries[asked].code;
        }
        judge("vector: ", vector->name, code, expected);
    }
}

int main(void)
{
    story();
    misuse();
    own_cryptography();
    every_vector();
    board_write("stack ");
    write_number(board_stack_used());
    board_write(" octets\n");
    return failed;
}
