#!/usr/bin/env bash
# REST with curl and openssl alone: a device enrolls, confirms and renews; an operator looks, revokes and is refused what is not granted.
. "$(dirname "$0")/lib.sh"
need openssl curl jq
begin
tls=(--cacert "$ROOT")
json=(-H 'Content-Type: application/json')
OPERATOR=$DATA/operator
owner=(--cert "$OPERATOR/cert.pem" --key "$OPERATOR/key.pem")

# csr KEY: a request in JSON.
csr() { openssl req -new -key "$1" -subj /CN=ignored 2>/dev/null | jq -Rs '{csr: .}'; }
# device METHOD-PATH BODY CURL-OPTION...: asks the device door; prints the status, the answer is in $WORK/answer.
device() {
    local path=$1 body=$2
    shift 2
    status "$WORK/answer" "${tls[@]}" "${json[@]}" "$@" --data-binary "$body" "$DEVICE_DOOR$path"
}
admin() {
    local method=$1 path=$2
    shift 2
    status "$WORK/answer" "${tls[@]}" -X "$method" "$@" "$ADMIN_DOOR$path"
}
field() { jq -r "$1" "$WORK/answer"; }
# problem NAME STATUS CODE FOUND-STATUS: a refusal in the form of RFC 9457.
problem() {
    same "$1" "$2:$3:application/problem+json:urn:fleetmark:problem:$3:$2" \
        "$4:$(field .code 2>/dev/null):$(header "$WORK/answer" content-type):$(field .type 2>/dev/null):$(field .status 2>/dev/null)"
}

# The device's side.
device_key "$WORK/key.pem"
TOKEN=$(mint_token rest-01)
enroll=/v1/fleets/default/enroll
same "enroll" 200 "$(device $enroll "$(csr "$WORK/key.pem")" -H "Authorization: Bearer $TOKEN")"
field .certificate >"$WORK/cert.pem"
field .chain >"$WORK/chain.pem"
cat "$WORK/cert.pem" "$WORK/chain.pem" >"$WORK/fullchain.pem"
FINGERPRINT=$(field .fingerprint)
same "the identity" spiffe://fleet.test/device/default/rest-01 "$(field .identity)"
same "unconfirmed until it is used" unconfirmed "$(field .standing)"
same "the fingerprint is openssl's" "$FINGERPRINT" \
    "$(openssl x509 -in "$WORK/cert.pem" -noout -fingerprint -sha256 | sed 's/.*=//; s/://g' | tr 'A-F' 'a-f')"
same "the serial is openssl's" "$(field .serial)" "$(serial_of "$WORK/cert.pem" | tr 'A-F' 'a-f')"
holds "openssl verifies it by what the answer holds" openssl verify -x509_strict -purpose sslclient -CAfile "$ROOT" \
    -untrusted "$WORK/chain.pem" "$WORK/cert.pem"
same "the trust bundle is the root" "$(openssl x509 -in "$ROOT" -noout -fingerprint)" \
    "$(field .trust_bundle | openssl x509 -noout -fingerprint)"
same "the retry" 200 "$(device $enroll "$(csr "$WORK/key.pem")" -H "Authorization: Bearer $TOKEN")"
same "is a replay with the same certificate" "true:$FINGERPRINT" "$(field '"\(.replayed):\(.fingerprint)"')"
device_key "$WORK/other.key"
code=$(device $enroll "$(csr "$WORK/other.key")" -H "Authorization: Bearer $TOKEN")
problem "the token with another key" 409 "$(field .code)" "$code"
code=$(device $enroll "$(csr "$WORK/other.key")")
problem "no token" 401 "$(field .code)" "$code"
same "it says what is wanted" bearer "$(header "$WORK/answer" www-authenticate | cut -d' ' -f1)"
code=$(device $enroll '{"csr":"junk"}' -H "Authorization: Bearer $(mint_token rest-02)")
problem "junk in the place of a CSR" 400 csr_malformed "$code"
code=$(device $enroll '{"csr":"junk","admin":true}' -H "Authorization: Bearer $TOKEN")
problem "a field that is not known" 400 "$(field .code)" "$code"
code=$(device $enroll '{' -H "Authorization: Bearer $TOKEN")
problem "no JSON" 400 "$(field .code)" "$code"
mine=(--cert "$WORK/fullchain.pem" --key "$WORK/key.pem")
same "confirm by mTLS" 200 "$(status "$WORK/answer" "${tls[@]}" "${mine[@]}" -X POST "$DEVICE_DOOR/v1/fleets/default/confirm")"
same "good from now on" good "$(field .standing)"
device_key "$WORK/new.key"
same "renew" 200 "$(device /v1/fleets/default/renew "$(csr "$WORK/new.key")" "${mine[@]}")"
same "the next generation" 2 "$(field .generation)"
field .certificate >"$WORK/renewed.pem"
renewed=(--cert "$WORK/renewed.pem" --key "$WORK/new.key")
same "confirm the new one" 200 "$(status "$WORK/answer" "${tls[@]}" "${renewed[@]}" -X POST "$DEVICE_DOOR/v1/fleets/default/confirm")"
code=$(device /v1/fleets/default/renew "$(csr "$WORK/other.key")" "${mine[@]}")
problem "the one before is superseded" 403 superseded "$code"
same "time" 200 "$(status "$WORK/answer" "${tls[@]}" "$DEVICE_DOOR/v1/time")"
prints "in RFC 3339" '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z$' jq -r .server_time "$WORK/answer"

# The operator's side.
same "whoami" 200 "$(admin GET /v1/whoami "${owner[@]}")"
same "an owner" owner "$(field .role)"
same "a fleet" 201 "$(admin POST /v1/fleets "${owner[@]}" "${json[@]}" --data '{"name":"meters"}')"
code=$(admin POST /v1/fleets "${owner[@]}" "${json[@]}" --data '{"name":"METERS"}')
problem "its case twin" 422 invalid_name "$code"
for name in '../etc' 'a/b' 'a b' '#' '+' '' 'ä' '.hidden'; do
    code=$(admin POST /v1/fleets "${owner[@]}" "${json[@]}" --data "$(jq -n --arg name "$name" '{name: $name}')")
    problem "a fleet called '$name'" 422 "$(field .code)" "$code"
done
same "a list of devices" 200 "$(admin GET '/v1/fleets/default/devices?search=rest-01&limit=1' "${owner[@]}")"
same "with the device" rest-01 "$(field '.items[0].name')"
same "a certificate by its serial" 200 "$(admin GET "/v1/certificates/$(serial_of "$WORK/cert.pem" | tr 'A-F' 'a-f')" "${owner[@]}")"
same "superseded, as the gateways see it" superseded "$(field .standing)"
admin GET /v1/fleets/meters "${owner[@]}" >/dev/null
etag=$(tr -d '\r' <"$WORK/answer.head" | sed -n 's/^[Ee][Tt][Aa][Gg]: //p')
same "a change with the version read" 200 "$(admin PATCH /v1/fleets/meters "${owner[@]}" "${json[@]}" -H "If-Match: $etag" --data '{"state":"closed"}')"
code=$(admin PATCH /v1/fleets/meters "${owner[@]}" "${json[@]}" -H "If-Match: $etag" --data '{"state":"open"}')
problem "a change with an old version" 412 etag_mismatch "$code"
code=$(admin GET /v1/fleets/nowhere "${owner[@]}")
problem "a fleet that is not there" 404 "$(field .code)" "$code"
same "OpenAPI" 200 "$(admin GET /v1/openapi.json "${owner[@]}")"
same "3.1" 3.1 "$(field '.openapi[:3]')"
same "metrics" 200 "$(admin GET /metrics "${owner[@]}")"

# Doors and certificates that do not belong together.
same "no certificate at the admin door" 000 "$(admin GET /v1/whoami)"
same "a device at the admin door" 000 "$(admin GET /v1/whoami "${renewed[@]}")"
foreign_device "$WORK/foreign" rest-01 "$WORK/chain.pem" 2>/dev/null
foreign=(--cert "$WORK/foreign/fullchain.pem" --key "$WORK/foreign/key.pem")
same "a foreign device at the device door" 000 "$(device /v1/fleets/default/renew "$(csr "$WORK/other.key")" "${foreign[@]}")"
same "revoke" 200 "$(admin POST /v1/fleets/default/devices/rest-01/revoke "${owner[@]}" "${json[@]}" --data '{"reason":"keyCompromise"}')"
code=$(device /v1/fleets/default/renew "$(csr "$WORK/other.key")" "${renewed[@]}")
case $code in
    000) ok "a revoked device at the device door, in the handshake" ;;
    *) problem "a revoked device at the device door" 403 "$(field .code)" "$code" ;;
esac

# The public door.
same "a list" 200 "$(status "$WORK/answer" "$PUBLIC_DOOR/crl/bundle.pem")"
etag=$(tr -d '\r' <"$WORK/answer.head" | sed -n 's/^[Ee][Tt][Aa][Gg]: //p')
same "the same again" 304 "$(status "$WORK/answer" -H "If-None-Match: $etag" "$PUBLIC_DOOR/crl/bundle.pem")"
same "alive" 200 "$(status "$WORK/answer" "$PUBLIC_DOOR/healthz")"
same "ready" 200 "$(status "$WORK/answer" "$PUBLIC_DOOR/readyz")"
same "no REST there" 404 "$(status "$WORK/answer" "$PUBLIC_DOOR/v1/fleets")"
finish
