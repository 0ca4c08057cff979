#!/usr/bin/env bash
# mbedTLS 2.28, the TLS of small devices: a client of ours in C enrolls over EST by TLS 1.2, checks the chain and the revocation list.
. "$(dirname "$0")/lib.sh"
need gcc openssl curl jq
compile() { gcc -O1 -Wall -Wextra -Werror -o "$WORK/client" "$HERE/mbedtls_enroll.c" -lmbedtls -lmbedx509 -lmbedcrypto; }
holds "the client compiles" compile
[ -x "$WORK/client" ] || finish
begin
LISTS=$WORK/lists.pem
curl -sS --fail -o "$LISTS" "$PUBLIC_DOOR/crl/bundle.pem" || bad "no lists"

# enroll NAME TOKEN DIRECTORY
enroll() { mkdir -p "$3" && timeout 30 "$WORK/client" enroll localhost "$DEVICE_PORT" "$ROOT" "$1" "$2" "$3"; }
TOKEN=$(mint_token mbed-01)
prints "mbedTLS enrolls" '^TLSv1\.2 ' enroll mbed-01 "$TOKEN" "$WORK/mbed"
same "the certificate has its key" "$(openssl pkey -in "$WORK/mbed/key.pem" -pubout)" "$(openssl x509 -in "$WORK/mbed/cert.pem" -noout -pubkey)"
holds "openssl verifies it" openssl verify -x509_strict -purpose sslclient -CAfile "$ROOT" -untrusted "$TRUST/ca.pem" "$WORK/mbed/cert.pem"
refused "mbedTLS with a wrong token" enroll mbed-02 "fmt_0123456789abcdef_$(printf 'A%.0s' {1..43})" "$WORK/mbed2"
refused "mbedTLS with a used token and a new key" enroll mbed-01 "$TOKEN" "$WORK/mbed3"
device_key "$WORK/foreign.key"
openssl req -x509 -new -key "$WORK/foreign.key" -subj /CN=foreign -days 2 -out "$WORK/foreign.pem" 2>/dev/null
FRESH=$(mint_token mbed-04)
stranger() { ! ROOT=$WORK/foreign.pem enroll mbed-04 "$FRESH" "$WORK/mbed4"; }
prints "mbedTLS that trusts another root ends the handshake" '^handshake: ' stranger
prints "by the right root the same token is good" '^TLSv1\.2 ' enroll mbed-04 "$FRESH" "$WORK/mbed4"

# check: chain and lists as a gateway built on mbedTLS sees them.
check() { timeout 30 "$WORK/client" check "$ROOT" "$TRUST/ca.pem" "$LISTS" "$WORK/mbed/cert.pem"; }
prints "mbedTLS verifies chain and lists" "^verified with $(pem_count "$LISTS") lists" check
operator POST /v1/fleets/default/devices/mbed-01/revoke '{"reason":"keyCompromise"}' >/dev/null || bad "revocation failed"
named() { curl -sS --fail -o "$LISTS" "$PUBLIC_DOOR/crl/bundle.pem" && lists_name "$LISTS" "$(serial_of "$WORK/mbed/cert.pem")"; }
holds "the list names it" eventually 10 named
refused "mbedTLS refuses the revoked certificate" check
prints "because it is revoked" 'has been revoked' sh -c "'$WORK/client' check '$ROOT' '$TRUST/ca.pem' '$LISTS' '$WORK/mbed/cert.pem' || true"
finish
