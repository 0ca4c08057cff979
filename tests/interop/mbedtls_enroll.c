/* A device with mbedTLS 2.28 (TLS 1.2 only), as firmware would do it.
 *
 * enroll HOST PORT ROOT.PEM NAME TOKEN DIRECTORY
 *     makes a P-256 key in DIRECTORY/key.pem, enrolls it by EST (RFC 7030) with the token, writes DIRECTORY/cert.pem
 * check ROOT.PEM AUTHORITIES.PEM LISTS.PEM CERTIFICATE.PEM
 *     verifies the certificate with the revocation lists
 * Exit codes: 0 done, 1 refused, 2 failed, 64 usage.
 */
#include <mbedtls/asn1.h>
#include <mbedtls/base64.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/pem.h>
#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>
#include <mbedtls/x509_csr.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LARGEST 65536

static mbedtls_entropy_context entropy;
static mbedtls_ctr_drbg_context random_source;

static void fail_if(int code, const char *what)
{
    char text[128];
    if (code >= 0) {
        return;
    }
    mbedtls_strerror(code, text, sizeof text);
    fprintf(stderr, "%s: %s (-0x%04x)\n", what, text, (unsigned)-code);
    exit(2);
}

static void write_file(const char *directory, const char *name, const void *octets, size_t length, mode_t mode)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "wb");
    if (file == NULL || chmod(path, mode) != 0 || fwrite(octets, 1, length, file) != length || fclose(file) != 0) {
        perror(path);
        exit(2);
    }
}

/* A P-256 key, and a request for it in base64. */
static void make_request(mbedtls_pk_context *key, const char *name, unsigned char *base64, size_t space, size_t *length)
{
    mbedtls_x509write_csr request;
    unsigned char der[4096];
    char subject[160];

    mbedtls_pk_init(key);
    fail_if(mbedtls_pk_setup(key, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY)), "key");
    fail_if(mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(*key), mbedtls_ctr_drbg_random, &random_source), "key");
    snprintf(subject, sizeof subject, "CN=%s", name);
    mbedtls_x509write_csr_init(&request);
    mbedtls_x509write_csr_set_md_alg(&request, MBEDTLS_MD_SHA256);
    mbedtls_x509write_csr_set_key(&request, key);
    fail_if(mbedtls_x509write_csr_set_subject_name(&request, subject), "subject");
    /* It is written at the end of the buffer. */
    int size = mbedtls_x509write_csr_der(&request, der, sizeof der, mbedtls_ctr_drbg_random, &random_source);
    fail_if(size, "request");
    fail_if(mbedtls_base64_encode(base64, space, length, der + sizeof der - size, (size_t)size), "base64");
    mbedtls_x509write_csr_free(&request);
}

static void connect_to(mbedtls_ssl_context *tls, mbedtls_ssl_config *config, mbedtls_net_context *net, mbedtls_x509_crt *root,
                       const char *host, const char *port)
{
    int code;

    fail_if(mbedtls_net_connect(net, host, port, MBEDTLS_NET_PROTO_TCP), "connect");
    fail_if(mbedtls_ssl_config_defaults(config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT),
            "configuration");
    mbedtls_ssl_conf_authmode(config, MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_ca_chain(config, root, NULL);
    mbedtls_ssl_conf_rng(config, mbedtls_ctr_drbg_random, &random_source);
    fail_if(mbedtls_ssl_setup(tls, config), "TLS");
    fail_if(mbedtls_ssl_set_hostname(tls, host), "host name");
    mbedtls_ssl_set_bio(tls, net, mbedtls_net_send, mbedtls_net_recv, NULL);
    do {
        code = mbedtls_ssl_handshake(tls);
    } while (code == MBEDTLS_ERR_SSL_WANT_READ || code == MBEDTLS_ERR_SSL_WANT_WRITE);
    fail_if(code, "handshake");
    printf("%s %s\n", mbedtls_ssl_get_version(tls), mbedtls_ssl_get_ciphersuite(tls));
}

/* POST simpleenroll with HTTP Basic; gives the answer's length. */
static size_t exchange(mbedtls_ssl_context *tls, const char *host, const char *name, const char *token, const unsigned char *body,
                       size_t length, char *answer)
{
    char credentials[512], request[8192];
    unsigned char encoded[768];
    size_t encoded_length, got = 0, sent = 0;
    int code;

    snprintf(credentials, sizeof credentials, "%s:%s", name, token);
    fail_if(mbedtls_base64_encode(encoded, sizeof encoded, &encoded_length, (unsigned char *)credentials, strlen(credentials)),
            "credentials");
    int size = snprintf(request, sizeof request,
                        "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: %s\r\nAuthorization: Basic %s\r\n"
                        "Content-Type: application/pkcs10\r\nContent-Transfer-Encoding: base64\r\nContent-Length: %zu\r\n"
                        "Connection: close\r\n\r\n%.*s",
                        host, encoded, length, (int)length, body);
    if (size < 0 || (size_t)size >= sizeof request) {
        fprintf(stderr, "the request is too long\n");
        exit(2);
    }
    while (sent < (size_t)size) {
        code = mbedtls_ssl_write(tls, (unsigned char *)request + sent, (size_t)size - sent);
        fail_if(code, "write");
        sent += (size_t)code;
    }
    while (got < LARGEST - 1) {
        code = mbedtls_ssl_read(tls, (unsigned char *)answer + got, LARGEST - 1 - got);
        if (code == 0 || code == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY || code == MBEDTLS_ERR_SSL_CONN_EOF) {
            break;
        }
        fail_if(code, "read");
        got += (size_t)code;
    }
    answer[got] = '\0';
    return got;
}

/* Skips the tag and length of one element that must have this tag. */
static void enter(unsigned char **at, const unsigned char *end, size_t *length, int tag)
{
    fail_if(mbedtls_asn1_get_tag(at, end, length, tag), "PKCS#7");
}

/* The first certificate of a certs-only SignedData (RFC 5652 5.1) that holds our key: mbedTLS 2.28 has no PKCS#7 of its own. */
static int find_certificate(unsigned char *der, size_t size, mbedtls_pk_context *key, mbedtls_x509_crt *found)
{
    unsigned char *at = der, *end = der + size;
    const int constructed = MBEDTLS_ASN1_CONSTRUCTED;
    size_t length;

    enter(&at, end, &length, constructed | MBEDTLS_ASN1_SEQUENCE); /* ContentInfo */
    enter(&at, end, &length, MBEDTLS_ASN1_OID);
    at += length;
    enter(&at, end, &length, constructed | MBEDTLS_ASN1_CONTEXT_SPECIFIC);
    enter(&at, end, &length, constructed | MBEDTLS_ASN1_SEQUENCE); /* SignedData */
    enter(&at, end, &length, MBEDTLS_ASN1_INTEGER);
    at += length;
    enter(&at, end, &length, constructed | MBEDTLS_ASN1_SET);
    at += length;
    enter(&at, end, &length, constructed | MBEDTLS_ASN1_SEQUENCE);
    at += length;
    enter(&at, end, &length, constructed | MBEDTLS_ASN1_CONTEXT_SPECIFIC); /* certificates */
    end = at + length;
    while (at < end) {
        unsigned char *begin = at;
        enter(&at, end, &length, constructed | MBEDTLS_ASN1_SEQUENCE);
        at += length;
        mbedtls_x509_crt_init(found);
        fail_if(mbedtls_x509_crt_parse_der(found, begin, (size_t)(at - begin)), "certificate");
        if (mbedtls_pk_check_pair(&found->pk, key) == 0) {
            return 1;
        }
        mbedtls_x509_crt_free(found);
    }
    return 0;
}

static int enroll(char **argument)
{
    const char *host = argument[0], *port = argument[1], *name = argument[3], *token = argument[4], *directory = argument[5];
    static char answer[LARGEST];
    static unsigned char der[LARGEST], pem[LARGEST];
    unsigned char base64[6144];
    size_t length, size;
    mbedtls_pk_context key;
    mbedtls_x509_crt root, certificate;
    mbedtls_ssl_context tls;
    mbedtls_ssl_config config;
    mbedtls_net_context net;

    mbedtls_x509_crt_init(&root);
    mbedtls_ssl_init(&tls);
    mbedtls_ssl_config_init(&config);
    mbedtls_net_init(&net);
    fail_if(mbedtls_x509_crt_parse_file(&root, argument[2]), "root");
    make_request(&key, name, base64, sizeof base64, &length);
    connect_to(&tls, &config, &net, &root, host, port);
    exchange(&tls, host, name, token, base64, length, answer);
    const char *body = strstr(answer, "\r\n\r\n");
    if (body == NULL) {
        fprintf(stderr, "no body\n");
        return 2;
    }
    body += 4;
    if (strncmp(answer, "HTTP/1.1 200", 12) != 0) {
        fprintf(stderr, "refused: %.12s: %.200s\n", answer, body);
        return 1;
    }
    fail_if(mbedtls_base64_decode(der, sizeof der, &size, (const unsigned char *)body, strlen(body)), "base64");
    if (!find_certificate(der, size, &key, &certificate)) {
        fprintf(stderr, "no certificate for our key in the answer\n");
        return 2;
    }
    fail_if(mbedtls_pk_write_key_pem(&key, pem, sizeof pem), "key");
    write_file(directory, "key.pem", pem, strlen((char *)pem), 0600);
    fail_if(mbedtls_pem_write_buffer("-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n", certificate.raw.p,
                                     certificate.raw.len, pem, sizeof pem, &size),
            "PEM");
    write_file(directory, "cert.pem", pem, strlen((char *)pem), 0644);
    mbedtls_ssl_close_notify(&tls);
    return 0;
}

static int check(char **argument)
{
    mbedtls_x509_crt root, chain, authorities;
    mbedtls_x509_crl lists;
    uint32_t flags;
    char text[512];
    int count = 0;

    mbedtls_x509_crt_init(&root);
    mbedtls_x509_crt_init(&chain);
    mbedtls_x509_crt_init(&authorities);
    mbedtls_x509_crl_init(&lists);
    fail_if(mbedtls_x509_crt_parse_file(&root, argument[0]), "root");
    fail_if(mbedtls_x509_crt_parse_file(&chain, argument[3]), "certificate");
    fail_if(mbedtls_x509_crt_parse_file(&chain, argument[1]), "authorities");
    fail_if(mbedtls_x509_crl_parse_file(&lists, argument[2]), "lists");
    for (const mbedtls_x509_crl *list = &lists; list != NULL; list = list->next) {
        count += list->version != 0;
    }
    if (mbedtls_x509_crt_verify(&chain, &root, &lists, NULL, &flags, NULL, NULL) != 0) {
        mbedtls_x509_crt_verify_info(text, sizeof text, "refused: ", flags);
        fputs(text, stderr);
        return 1;
    }
    printf("verified with %d lists\n", count);
    return 0;
}

int main(int count, char **argument)
{
    mbedtls_entropy_init(&entropy);
    mbedtls_ctr_drbg_init(&random_source);
    fail_if(mbedtls_ctr_drbg_seed(&random_source, mbedtls_entropy_func, &entropy, NULL, 0), "random source");
    if (count == 8 && strcmp(argument[1], "enroll") == 0) {
        return enroll(argument + 2);
    }
    if (count == 6 && strcmp(argument[1], "check") == 0) {
        return check(argument + 2);
    }
    fprintf(stderr, "usage: enroll HOST PORT ROOT NAME TOKEN DIRECTORY | check ROOT AUTHORITIES LISTS CERTIFICATE\n");
    return 64;
}
