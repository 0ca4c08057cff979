#!/usr/bin/env bash
# GnuTLS' certtool: chains and revocation lists, judged by another library than openssl.
. "$(dirname "$0")/lib.sh"
need certtool openssl curl jq
begin
enroll_device sensor-01 >/dev/null || bad "sensor-01 could not enroll"
enroll_device sensor-02 >/dev/null || bad "sensor-02 could not enroll"
ONE=$WORK/devices/sensor-01/current
TWO=$WORK/devices/sensor-02/current
curl -sS --fail -o "$WORK/lists.pem" "$PUBLIC_DOOR/crl/bundle.pem" || bad "no lists"

chain() { certtool --verify --load-ca-certificate "$ROOT" --infile "$1/fullchain.pem"; }
prints "the chain" 'Chain verification output: Verified' chain "$ONE"
# chain_and_lists DIRECTORY: with the list of the issuing authority.
chain_and_lists() { certtool --verify --load-ca-certificate "$ROOT" --load-crl "$WORK/lists.pem" --infile "$1/fullchain.pem"; }
prints "the chain with the lists" 'Chain verification output: Verified' chain_and_lists "$ONE"
# list_ok LIST AUTHORITY
list_ok() { certtool --verify-crl --load-ca-certificate "$2" --infile "$1"; }
ISSUER=$(openssl x509 -in "$ONE/chain.pem" -noout -subject_hash)
pieces=$(split_pem "$WORK/lists.pem")
for piece in "$pieces"/*.pem; do
    [ "$(openssl crl -in "$piece" -noout -hash)" = "$ISSUER" ] && LIST=$piece
done
prints "the device authority's list" '^Verification output: Verified' list_ok "$LIST" "$ONE/chain.pem"
prints "certtool reads the certificate" 'Subject: .*CN=sensor-01' certtool --certificate-info --infile "$ONE/cert.pem"

operator POST /v1/fleets/default/devices/sensor-01/revoke '{"reason":"keyCompromise"}' >/dev/null || bad "revocation failed"
named() { curl -sS --fail -o "$WORK/lists.pem" "$PUBLIC_DOOR/crl/bundle.pem" && lists_name "$WORK/lists.pem" "$(serial_of "$ONE/cert.pem")"; }
holds "the list names the revoked device" eventually 10 named
refused "the revoked device" chain_and_lists "$ONE"
prints "for that reason" 'revoked' sh -c "certtool --verify --load-ca-certificate '$ROOT' --load-crl '$WORK/lists.pem' --infile '$ONE/fullchain.pem' || true"
prints "the other device" 'Chain verification output: Verified' chain_and_lists "$TWO"
finish
