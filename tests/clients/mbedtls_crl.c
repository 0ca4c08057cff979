/* mbedTLS as firmware uses it: an authority's certificates, a revocation list, a certificate to judge.
 * usage: mbedtls_crl AUTHORITIES.pem LIST.pem CERTIFICATE.pem
 * exit: 0 good, 1 revoked, 2 the list cannot be loaded, 3 refused for another reason, 4 the rest cannot be loaded */
#include <mbedtls/error.h>
#include <mbedtls/x509_crl.h>
#include <mbedtls/x509_crt.h>
#include <stdint.h>
#include <stdio.h>

static int failed(const char *what, int code) {
    char text[160];
    mbedtls_strerror(code, text, sizeof text);
    printf("%s: -0x%04x %s\n", what, (unsigned)-code, text);
    return code;
}

int main(int argc, char **argv) {
    mbedtls_x509_crt authorities, certificate;
    mbedtls_x509_crl list;
    uint32_t flags = 0;
    int code, verdict;
    if (argc != 4)
        return 4;
    mbedtls_x509_crt_init(&authorities);
    mbedtls_x509_crt_init(&certificate);
    mbedtls_x509_crl_init(&list);
    if ((code = mbedtls_x509_crt_parse_file(&authorities, argv[1])) != 0 && failed("authorities", code))
        return 4;
    if ((code = mbedtls_x509_crt_parse_file(&certificate, argv[3])) != 0 && failed("certificate", code))
        return 4;
    if ((code = mbedtls_x509_crl_parse_file(&list, argv[2])) != 0 && failed("list", code))
        return 2;
    code = mbedtls_x509_crt_verify(&certificate, &authorities, &list, NULL, &flags, NULL, NULL);
    if (code == 0)
        verdict = 0;
    else if (flags == MBEDTLS_X509_BADCERT_REVOKED)
        verdict = 1;
    else
        verdict = 3;
    printf("verify: flags 0x%x\n", (unsigned)flags);
    mbedtls_x509_crl_free(&list);
    mbedtls_x509_crt_free(&certificate);
    mbedtls_x509_crt_free(&authorities);
    return verdict;
}
