/* wolfSSL as firmware uses it: an authority's certificates, a revocation list, a certificate to judge.
 * usage: wolfssl_crl AUTHORITIES.pem LIST.pem CERTIFICATE.pem
 * exit: 0 good, 1 revoked, 2 the list cannot be loaded, 3 refused for another reason, 4 the rest cannot be loaded */
#include <stdio.h>
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>
#include <wolfssl/wolfcrypt/error-crypt.h>
#include <wolfssl/error-ssl.h>

int main(int argc, char **argv) {
    WOLFSSL_CERT_MANAGER *manager;
    int code, verdict;
    if (argc != 4 || wolfSSL_Init() != WOLFSSL_SUCCESS)
        return 4;
    manager = wolfSSL_CertManagerNew();
    if (manager == NULL)
        return 4;
    code = wolfSSL_CertManagerLoadCA(manager, argv[1], NULL);
    if (code != WOLFSSL_SUCCESS) {
        printf("authorities: %d\n", code);
        return 4;
    }
    /* Without CHECKALL the certificate itself is looked up, and not the authorities above it. */
    code = wolfSSL_CertManagerEnableCRL(manager, WOLFSSL_CRL_CHECK);
    if (code != WOLFSSL_SUCCESS) {
        printf("lists are not compiled in: %d\n", code);
        return 4;
    }
    code = wolfSSL_CertManagerLoadCRLFile(manager, argv[2], WOLFSSL_FILETYPE_PEM);
    if (code != WOLFSSL_SUCCESS) {
        printf("list: %d\n", code);
        return 2;
    }
    code = wolfSSL_CertManagerVerify(manager, argv[3], WOLFSSL_FILETYPE_PEM);
    if (code == WOLFSSL_SUCCESS)
        verdict = 0;
    else if (code == CRL_CERT_REVOKED)
        verdict = 1;
    else
        verdict = 3;
    printf("verify: %d\n", code);
    wolfSSL_CertManagerFree(manager);
    wolfSSL_Cleanup();
    return verdict;
}
