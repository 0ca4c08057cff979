#!/usr/bin/env bash
# strongSwan's `pki --estca` and `pki --est`: enrollment with a token, renewal with the certificate.
. "$(dirname "$0")/lib.sh"
need pki openssl jq
begin
cd "$WORK" || exit 1
# pki knows no label and adds /.well-known/est by itself.
pem=(--outform pem)

estca() { timeout 30 pki --estca --url "$DEVICE_DOOR" --cacert "$ROOT" --caout estca "${pem[@]}" --force; }
holds "pki --estca" estca
same "it wrote issuer and root" 2 "$(cat "$WORK"/estca*.pem "$WORK"/estca 2>/dev/null | grep -c 'BEGIN CERT')"

ISSUER=$WORK/issuer.pem
for authority in "$(split_pem "$TRUST/ca.pem")"/*.pem; do
    openssl x509 -in "$authority" -noout -subject | grep -q 'default device authority' && cp "$authority" "$ISSUER"
done
pki --gen --type ecdsa --size 256 "${pem[@]}" >key.pem 2>/dev/null
pki --req --type ecdsa --in key.pem --dn CN=swan-01 "${pem[@]}" >request.pem 2>/dev/null
TOKEN=$(mint_token swan-01)
# est INTO OPTION...
est() {
    local into=$1
    shift
    timeout 40 pki --est --url "$DEVICE_DOOR" --cacert "$ISSUER" --cacert "$ROOT" --interval 2 --maxpolltime 10 "${pem[@]}" "$@" >"$into" \
        && [ -s "$into" ]
}
holds "pki --est enrolls with a token" est cert.pem --in request.pem --userpass "swan-01:$TOKEN"
holds "openssl verifies the certificate" openssl verify -x509_strict -purpose sslclient -CAfile "$ROOT" -untrusted "$ISSUER" cert.pem
same "it certifies the key" "$(openssl pkey -in key.pem -pubout)" "$(openssl x509 -in cert.pem -noout -pubkey)"
holds "pki verifies the certificate" pki --verify --in cert.pem --cacert "$ROOT" --cacert "$ISSUER"

pki --gen --type ecdsa --size 256 "${pem[@]}" >new.key 2>/dev/null
pki --req --type ecdsa --in new.key --dn CN=swan-01 "${pem[@]}" >renewal.pem 2>/dev/null
refused "pki --est with a used token and another key" est none.pem --in renewal.pem --userpass "swan-01:$TOKEN"
holds "pki --est renews with the certificate" est renewed.pem --in renewal.pem --cert cert.pem --key key.pem
same "the renewed certificate has the new key" "$(openssl pkey -in new.key -pubout)" "$(openssl x509 -in renewed.pem -noout -pubkey)"
# pki writes the subject that it is told: all of it must be the certificate's.
pki --gen --type ecdsa --size 256 "${pem[@]}" >other.key 2>/dev/null
pki --req --type ecdsa --in other.key --dn 'O=elsewhere, CN=swan-01' "${pem[@]}" >other.pem 2>/dev/null
refused "pki --est does not change a subject" est none.pem --in other.pem --cert renewed.pem --key new.key
pki --req --type ecdsa --in other.key --dn 'O=default, CN=swan-01' --san swan-01.example "${pem[@]}" >other.pem 2>/dev/null
refused "pki --est adds no name" est none.pem --in other.pem --cert renewed.pem --key new.key
# Kept out of the way: it supersedes nothing until it is used.
pki --req --type ecdsa --in other.key --dn 'O=default, CN=swan-01' "${pem[@]}" >other.pem 2>/dev/null
holds "pki --est renews with the whole subject" est whole.pem --in other.pem --cert renewed.pem --key new.key
same "and the same name" "$(openssl x509 -in cert.pem -noout -subject)" "$(openssl x509 -in renewed.pem -noout -subject)"
operator POST /v1/fleets/default/devices/swan-01/revoke '{}' >/dev/null || bad "revocation failed"
pki --gen --type ecdsa --size 256 "${pem[@]}" >late.key 2>/dev/null
pki --req --type ecdsa --in late.key --dn CN=swan-01 "${pem[@]}" >late.pem 2>/dev/null
refused "pki --est when revoked" est late.out --in late.pem --cert renewed.pem --key new.key
finish
