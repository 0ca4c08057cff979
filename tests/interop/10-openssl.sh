#!/usr/bin/env bash
# openssl judges all that we make: certificates, revocation lists, OCSP answers, key files.
. "$(dirname "$0")/lib.sh"
need openssl curl jq
begin

enroll_device sensor-01 >/dev/null || bad "sensor-01 could not enroll"
enroll_device sensor-02 >/dev/null || bad "sensor-02 could not enroll"
invite_gateway edge-1 localhost >/dev/null || bad "edge-1 could not take up its invitation"
FILES=$WORK/devices/sensor-01/current

# Certificates. -x509_strict: RFC 5280's rules for extensions.
strict=(openssl verify -x509_strict -CAfile "$ROOT" -untrusted "$TRUST/ca.pem")
holds "the root" openssl verify -x509_strict -check_ss_sig -CAfile "$ROOT" "$ROOT"
authorities=$(split_pem "$TRUST/ca.pem")
for authority in "$authorities"/*.pem; do
    holds "authority $(openssl x509 -in "$authority" -noout -subject)" "${strict[@]}" "$authority"
done
holds "a device, as a TLS client" "${strict[@]}" -purpose sslclient "$FILES/cert.pem"
holds "a device, by the chain that it was given" openssl verify -x509_strict -CAfile "$FILES/ca.pem" -untrusted "$FILES/chain.pem" "$FILES/cert.pem"
refused "a device as a TLS server" "${strict[@]}" -purpose sslserver "$FILES/cert.pem"
holds "an operator, as a TLS client" "${strict[@]}" -purpose sslclient "$DATA/operator/cert.pem"
holds "a gateway, as a TLS server" "${strict[@]}" -purpose sslserver -verify_hostname localhost "$WORK/gateways/edge-1/cert.pem"
refused "a gateway under another name" "${strict[@]}" -purpose sslserver -verify_hostname other.test "$WORK/gateways/edge-1/cert.pem"
prints "the device's identity is its one URI" 'URI:spiffe://fleet.test/device/default/sensor-01$' \
    openssl x509 -in "$FILES/cert.pem" -noout -ext subjectAltName
prints "the device's subject" 'CN ?= ?sensor-01' openssl x509 -in "$FILES/cert.pem" -noout -subject
same "the serial has 17 octets and begins with 01" 34:01 "$(serial=$(serial_of "$FILES/cert.pem"); echo $((${#serial})):${serial:0:2})"
OPERATOR=$DATA/operator
for door in "$DEVICE_PORT" "$ADMIN_PORT"; do
    connect=(openssl s_client -connect "localhost:$door" -servername localhost -verify_hostname localhost -CAfile "$ROOT")
    connect+=(-cert "$OPERATOR/cert.pem" -cert_chain "$OPERATOR/cert.pem" -key "$OPERATOR/key.pem")
    s_client() { timeout 20 "${connect[@]}" "$@" </dev/null; }
    for version in tls1_2 tls1_3; do
        prints "the door at $door by $version" 'Verify return code: 0 \(ok\)' s_client "-$version"
    done
    refused "the door at $door speaks no TLS 1.1" s_client -tls1_1 -cipher ALL:@SECLEVEL=0
done
anonymous() { timeout 20 openssl s_client -connect "localhost:$ADMIN_PORT" -CAfile "$ROOT" -tls1_2 </dev/null; }
refused "the admin door without a certificate" anonymous

# Key files: encrypted PKCS#8 that openssl reads with the passphrase, and with no other.
keys=0
for key in "$DATA"/keys/*.pem; do
    grep -q 'PRIVATE KEY' "$key" || continue
    keys=$((keys + 1))
    grep -q 'BEGIN ENCRYPTED PRIVATE KEY' "$key" || bad "$(basename "$key") is not encrypted"
    holds "key file $(basename "$key")" openssl pkey -in "$key" -passin "file:$DATA/passphrase" -noout
done
[ $keys -gt 3 ] && ok "$keys key files" || bad "only $keys key files in $DATA/keys: $(ls "$DATA/keys")"
key=$(find "$DATA/keys" -name '*.pem' | head -n 1)
refused "a key file with another passphrase" openssl pkey -in "$key" -passin pass:another-passphrase -noout
same "key files are their owner's alone" 600 "$(stat -c %a "$DATA"/keys/*.pem | sort -u | tr '\n' ' ' | sed 's/ $//')"
same "the data directory too" 700 "$(stat -c %a "$DATA")"
same "the device's key too" 600 "$(stat -c %a "$FILES/key.pem")"
holds "the device's key" openssl pkey -in "$FILES/key.pem" -noout -check

# OCSP and lists, before and after the revocation.
ISSUER=$FILES/chain.pem
SERIAL=$(serial_of "$FILES/cert.pem")
ocsp() { timeout 20 openssl ocsp -issuer "$ISSUER" -CAfile "$ROOT" -url "$PUBLIC_DOOR/ocsp" "$@"; }
prints "OCSP: good" ': good$' ocsp -cert "$FILES/cert.pem"
prints "OCSP: the answer verifies, with its nonce" 'Response verify OK' ocsp -cert "$FILES/cert.pem"
prints "OCSP: without a nonce" ': good$' ocsp -no_nonce -cert "$FILES/cert.pem"
prints "OCSP: SHA-256 in the request" ': good$' ocsp -sha256 -cert "$FILES/cert.pem"
prints "OCSP: never issued is unknown" ': unknown$' ocsp -serial 0x0100000001000fffff0102030405060708
prints "OCSP: a serial of another form is unknown" ': unknown$' ocsp -serial 0x07
# The root has no responder: it may live offline, and its list says what it has revoked. So no authority may name one.
same "authorities name no OCSP responder" "" "$(openssl x509 -in "$FILES/chain.pem" -noout -ocsp_uri)"
ISSUER=$ROOT refused "OCSP: the root is not answered for" ocsp -cert "$FILES/chain.pem"
same "devices name the responder" "$PUBLIC_DOOR/ocsp" "$(openssl x509 -in "$FILES/cert.pem" -noout -ocsp_uri)"
same "OCSP: junk is a malformed request" 200:malformedrequest \
    "$(status "$WORK/junk" -H 'Content-Type: application/ocsp-request' --data-binary junk "$PUBLIC_DOOR/ocsp"):$(openssl ocsp -respin "$WORK/junk" -noverify 2>&1 | sed -n 's/.*Responder Error: \([a-z]*\).*/\1/p')"
openssl ocsp -issuer "$ISSUER" -cert "$FILES/cert.pem" -no_nonce -reqout "$WORK/request.der" 2>/dev/null
encoded=$(openssl base64 -A -in "$WORK/request.der" | sed 's/+/%2B/g; s#/#%2F#g; s/=/%3D/g')
same "OCSP by GET (RFC 6960 A.1)" 200 "$(status "$WORK/answer.der" "$PUBLIC_DOOR/ocsp/$encoded")"
prints "OCSP by GET: good" ': good$' openssl ocsp -respin "$WORK/answer.der" -issuer "$ISSUER" -cert "$FILES/cert.pem" -CAfile "$ROOT"

lists=$WORK/lists
mkdir -p "$lists"
cp "$TRUST/ca.pem" "$lists/ca.pem"
holds "a list of every authority, each verified" swap_in_lists "$lists"
# numbers FILE: of each list its issuer and its number.
numbers() {
    local pieces piece number
    pieces=$(split_pem "$1") || return 1
    for piece in "$pieces"/*.pem; do
        number=$(openssl crl -in "$piece" -noout -crlnumber | sed 's/.*=0*x*//')
        printf '%s\t%d\n' "$(openssl crl -in "$piece" -noout -issuer)" "$((16#$number))"
    done | sort
}
numbers "$lists/crl.pem" >"$WORK/numbers.before"
with_lists() { openssl verify -x509_strict -crl_check_all -CAfile "$ROOT" -untrusted "$TRUST/ca.pem" -CRLfile "$lists/crl.pem" "$1"; }
holds "verify with lists: a good device" with_lists "$FILES/cert.pem"
refused "the lists do not name a good device" lists_name "$lists/crl.pem" "$SERIAL"
operator POST /v1/fleets/default/devices/sensor-01/revoke '{"reason":"keyCompromise"}' >/dev/null || bad "revocation failed"
renewed() { swap_in_lists "$lists" && lists_name "$lists/crl.pem" "$SERIAL"; }
holds "the lists name a revoked device" eventually 10 renewed
refused "verify with lists: a revoked device" with_lists "$FILES/cert.pem"
holds "verify with lists: the other device" with_lists "$WORK/devices/sensor-02/current/cert.pem"
ISSUER=$FILES/chain.pem
prints "OCSP: revoked" ': revoked$' ocsp -cert "$FILES/cert.pem"
prints "OCSP: the reason" 'Reason: keyCompromise' ocsp -cert "$FILES/cert.pem"
prints "OCSP: the other device" ': good$' ocsp -cert "$WORK/devices/sensor-02/current/cert.pem"

# Hold is reversible.
operator POST /v1/fleets/default/devices/sensor-02/hold >/dev/null || bad "hold failed"
prints "OCSP: held" 'Reason: certificateHold' ocsp -cert "$WORK/devices/sensor-02/current/cert.pem"
operator POST /v1/fleets/default/devices/sensor-02/release >/dev/null || bad "release failed"
prints "OCSP: released" ': good$' ocsp -cert "$WORK/devices/sensor-02/current/cert.pem"

# Numbers of lists never go back, and that of the revoked device's list went up.
numbers "$lists/crl.pem" >"$WORK/numbers.after"
same "as many lists as authorities" "$(pem_count "$TRUST/ca.pem")" "$(grep -c . "$WORK/numbers.after")"
onward() { paste "$WORK"/numbers.{before,after} | awk -F'\t' '$1 != $3 || $2 < 1 || $4 < $2 {back = 1} $4 > $2 {up = 1} END {exit back || !up}'; }
holds "numbers of lists go up alone" onward
finish
