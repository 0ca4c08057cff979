#!/usr/bin/env bash
# EST (RFC 7030, RFC 8951) with curl and openssl alone: what it grants, and what it refuses.
. "$(dirname "$0")/lib.sh"
need openssl curl jq base64
# A profile that lets the server make keys, and one that demands a channel binding.
mkdir "$WORK/profiles"
for rule in 'served:server_key_generation = true' 'bound:channel_binding = "required"'; do
    { cat "$REPOSITORY/certs/profiles/device.toml"; printf '\n[est]\n%s\n' "${rule#*:}"; } >"$WORK/profiles/${rule%%:*}.toml"
done
export FLEETMARK_PROFILES=$WORK/profiles
begin
for fleet in served bound; do
    operator POST /v1/fleets "{\"name\":\"$fleet\",\"profile\":\"$fleet\"}" >/dev/null || bad "the fleet $fleet was not made"
done
EST=$DEVICE_DOOR/.well-known/est
tls=(--cacert "$ROOT")

# request KEY SUBJECT FILE: a CSR, base64 in lines as openssl and curl users send it.
request() { openssl req -new -key "$1" -subj "$2" -outform DER 2>/dev/null | base64 >"$3"; }
# certificates FILE PEM: what a certs-only answer holds.
certificates() { tr -d '\r\n ' <"$1" | base64 -d | openssl pkcs7 -inform DER -print_certs -out "$2"; }
# est OPERATION BODY CURL-OPTION...: prints the status; the answer is in $WORK/answer.
est() {
    local operation=$1 body=$2
    shift 2
    status "$WORK/answer" "${tls[@]}" "$@" -H 'Content-Type: application/pkcs10' -H 'Content-Transfer-Encoding: base64' \
        --data-binary "@$body" "$EST/$operation"
}
# Refusals are one line of text that begins with a code.
code_of() { sed -n '1s/^\([a-z_]*\): .*/\1/p' "$WORK/answer"; }

# cacerts: no credentials, one line.
same "cacerts" 200 "$(status "$WORK/ca" "${tls[@]}" "$EST/cacerts")"
case "$(header "$WORK/ca" content-type)" in
    application/pkcs7-mime*certs-only*) ok "cacerts' type" ;;
    *) bad "cacerts' type: $(header "$WORK/ca" content-type)" ;;
esac
same "cacerts with Content-Length" "$(stat -c %s "$WORK/ca")" "$(header "$WORK/ca" content-length)"
same "cacerts on one line" 1 "$(grep -c . "$WORK/ca")"
holds "cacerts is certs-only PKCS#7" certificates "$WORK/ca" "$WORK/ca.pem"
same "cacerts holds issuer and root" 2 "$(pem_count "$WORK/ca.pem")"
# In no order that counts: the message holds a SET (RFC 5652 5.1), which DER sorts.
cat_subjects() { openssl crl2pkcs7 -nocrl -certfile "$WORK/ca.pem" | openssl pkcs7 -print_certs -noout; }
prints "the issuing authority is among them" 'subject=.*default device authority' cat_subjects
prints "the root is among them" 'subject=.*fleet.test root' cat_subjects
same "cacerts by label" 200 "$(status "$WORK/ca2" "${tls[@]}" "$EST/default/cacerts")"
holds "the default label is the default fleet" cmp "$WORK/ca" "$WORK/ca2"
same "cacerts of an unknown label" 404 "$(status "$WORK/none" "${tls[@]}" "$EST/nowhere/cacerts")"

# csrattrs: what the profile takes (RFC 7030 4.5.2).
attributes() { base64 -d "$WORK/attributes" | openssl asn1parse -inform DER; }
same "csrattrs" 200 "$(status "$WORK/attributes" "${tls[@]}" "$EST/csrattrs")"
same "csrattrs' type" application/csrattrs "$(header "$WORK/attributes" content-type)"
prints "it asks for a key on a curve" ':id-ecPublicKey' attributes
prints "P-256 among them" ':prime256v1' attributes
prints "with SHA-256" ':ecdsa-with-SHA256' attributes
refused "and for no challengePassword" grep -q challengePassword <(attributes)
same "csrattrs where a binding is demanded" 200 "$(status "$WORK/attributes" "${tls[@]}" "$EST/bound/csrattrs")"
prints "it asks for the challengePassword" ':challengePassword' attributes

# simpleenroll.
device_key "$WORK/key.pem"
request "$WORK/key.pem" /CN=est-01 "$WORK/request"
TOKEN=$(mint_token est-01)
same "simpleenroll" 200 "$(est simpleenroll "$WORK/request" -u "est-01:$TOKEN")"
case "$(header "$WORK/answer" content-type)" in
    application/pkcs7-mime*smime-type=certs-only*) ok "simpleenroll's type" ;;
    *) bad "simpleenroll's type: $(header "$WORK/answer" content-type)" ;;
esac
holds "simpleenroll gives certs-only PKCS#7" certificates "$WORK/answer" "$WORK/issued.pem"
openssl x509 -in "$WORK/issued.pem" -out "$WORK/cert.pem"
same "it certifies our key" "$(openssl pkey -in "$WORK/key.pem" -pubout)" "$(openssl x509 -in "$WORK/cert.pem" -noout -pubkey)"
holds "it leads to cacerts" openssl verify -x509_strict -CAfile "$ROOT" -untrusted "$WORK/ca.pem" "$WORK/cert.pem"
SERIAL=$(serial_of "$WORK/cert.pem")
same "the same request again" 200 "$(est simpleenroll "$WORK/request" -u "est-01:$TOKEN")"
certificates "$WORK/answer" "$WORK/again.pem"
same "gives the same certificate" "$SERIAL" "$(serial_of "$WORK/again.pem")"
tr -d '\n' <"$WORK/request" >"$WORK/one-line"
same "base64 on one line" 200 "$(est simpleenroll "$WORK/one-line" -u "est-01:$TOKEN")"
sed 's/$/\r/' "$WORK/request" >"$WORK/crlf"
same "base64 with CRLF" 200 "$(est simpleenroll "$WORK/crlf" -u "est-01:$TOKEN")"
same "without Content-Transfer-Encoding" 200 "$(status "$WORK/answer" "${tls[@]}" -u "est-01:$TOKEN" -H 'Content-Type: application/pkcs10' \
    --data-binary "@$WORK/request" "$EST/simpleenroll")"
same "an empty user name: the token is bound to one" 200 "$(est simpleenroll "$WORK/request" -u ":$TOKEN")"

# What is refused at simpleenroll. Each has a token of its own, so that no refusal hides behind another.
device_key "$WORK/other.key"
request "$WORK/other.key" /CN=est-01 "$WORK/other"
same "the token with another key" 409 "$(est simpleenroll "$WORK/other" -u "est-01:$TOKEN")"
same "no credentials" 401 "$(est simpleenroll "$WORK/other")"
same "401 says how" 'basic realm="fleetmark"' "$(header "$WORK/answer" www-authenticate)"
same "a wrong token" 401 "$(est simpleenroll "$WORK/other" -u "est-01:fmt_0123456789abcdef_$(printf 'A%.0s' {1..43})")"
same "401 says how, again" 'basic realm="fleetmark"' "$(header "$WORK/answer" www-authenticate)"
same "no token at all" 401 "$(est simpleenroll "$WORK/other" -u "est-01:password")"
FRESH=$(mint_token est-02)
echo 'bm90IGEgcmVxdWVzdA==' >"$WORK/junk"
same "junk in the place of a CSR" 400 "$(est simpleenroll "$WORK/junk" -u "est-02:$FRESH")"
echo '%%%% no base64' >"$WORK/noise"
same "no base64" 400 "$(est simpleenroll "$WORK/noise" -u "est-02:$FRESH")"
: >"$WORK/empty"
same "an empty body" 400 "$(est simpleenroll "$WORK/empty" -u "est-02:$FRESH")"
# The last octet of a CSR is the signature's.
base64 -d "$WORK/other" >"$WORK/other.der"
size=$(stat -c %s "$WORK/other.der")
last=$(tail -c 1 "$WORK/other.der" | od -An -tu1 | tr -d ' ')
{ head -c $((size - 1)) "$WORK/other.der"; printf "\\x$(printf %x $((last ^ 1)))"; } | base64 >"$WORK/forged"
case "$(est simpleenroll "$WORK/forged" -u "est-02:$FRESH")" in
    4??) ok "a CSR whose signature does not verify: $(code_of)" ;;
    *) bad "a CSR whose signature does not verify: $(head -c 200 "$WORK/answer")" ;;
esac
{ cat "$WORK/other.der"; printf 'more'; } | base64 >"$WORK/trailing"
same "a CSR with trailing octets" 400 "$(est simpleenroll "$WORK/trailing" -u "est-02:$FRESH")"
head -c 20000000 /dev/zero | tr '\0' A >"$WORK/huge"
case "$(est simpleenroll "$WORK/huge" -u "est-02:$FRESH" -H 'Expect:')" in
    413 | 000) ok "20 MB" ;;
    *) bad "20 MB: $(head -c 200 "$WORK/answer")" ;;
esac
same "another type" 415 "$(status "$WORK/answer" "${tls[@]}" -u "est-02:$FRESH" -H 'Content-Type: application/json' \
    --data-binary "@$WORK/other" "$EST/simpleenroll")"
same "GET simpleenroll" 405 "$(status "$WORK/answer" "${tls[@]}" -u "est-02:$FRESH" "$EST/simpleenroll")"
same "serverkeygen where it is off" 403 "$(est serverkeygen "$WORK/other" -u "est-02:$FRESH")"
same "is refused by name" server_keygen_off "$(code_of)"
same "fullcmc is not for us" 404 "$(est fullcmc "$WORK/other" -u "est-02:$FRESH")"
same "the token is fresh after all that" 200 "$(est simpleenroll "$WORK/other" -u "est-02:$FRESH")"
certificates "$WORK/answer" "$WORK/names.pem"
prints "the name is the record's, not the CSR's" 'CN ?= ?est-02' openssl x509 -in "$WORK/names.pem" -noout -subject
same "a key of another device" 409 "$(est simpleenroll "$WORK/other" -u "est-03:$(mint_token est-03)")"
openssl genrsa -out "$WORK/weak.key" 1024 2>/dev/null
request "$WORK/weak.key" /CN=est-04 "$WORK/weak"
case "$(est simpleenroll "$WORK/weak" -u "est-04:$(mint_token est-04)")" in
    4??) ok "an RSA key of 1024 bits: $(code_of)" ;;
    *) bad "an RSA key of 1024 bits: $(head -c 200 "$WORK/answer")" ;;
esac

# simplereenroll.
mine=(--cert "$WORK/cert.pem" --key "$WORK/key.pem")
same "simplereenroll without a certificate" 401 "$(est simplereenroll "$WORK/request")"
device_key "$WORK/new.key"
request "$WORK/new.key" /CN=somebody-else "$WORK/stranger"
same "simplereenroll with another subject" 422 "$(est simplereenroll "$WORK/stranger" "${mine[@]}")"
same "is refused by name" subject_changed "$(code_of)"
openssl req -new -key "$WORK/new.key" -subj / -addext 'subjectAltName=DNS:est-01.example' -outform DER 2>/dev/null | base64 >"$WORK/stranger"
same "simplereenroll with another name" 422 "$(est simplereenroll "$WORK/stranger" "${mine[@]}")"
same "is refused by name too" subject_changed "$(code_of)"
request "$WORK/other.key" /CN=est-01 "$WORK/borrowed"
same "simplereenroll with another device's key" 409 "$(est simplereenroll "$WORK/borrowed" "${mine[@]}")"
same "simplereenroll with the same key" 200 "$(est simplereenroll "$WORK/request" "${mine[@]}")"
holds "it gives certs-only PKCS#7" certificates "$WORK/answer" "$WORK/renewed.pem"
same "with our key" "$(openssl pkey -in "$WORK/key.pem" -pubout)" "$(openssl x509 -in "$WORK/renewed.pem" -noout -pubkey)"
request "$WORK/new.key" /CN=est-01 "$WORK/renewal"
same "simplereenroll with a new key" 200 "$(est simplereenroll "$WORK/renewal" "${mine[@]}")"
certificates "$WORK/answer" "$WORK/renewed.pem"
same "with the new key" "$(openssl pkey -in "$WORK/new.key" -pubout)" "$(openssl x509 -in "$WORK/renewed.pem" -noout -pubkey)"
same "and the same name" "$(openssl x509 -in "$WORK/cert.pem" -noout -subject)" "$(openssl x509 -in "$WORK/renewed.pem" -noout -subject)"
operator POST /v1/fleets/default/devices/est-01/revoke '{}' >/dev/null || bad "revocation failed"
case "$(est simplereenroll "$WORK/renewal" "${mine[@]}")" in
    000 | 401 | 403) ok "simplereenroll when revoked" ;;
    *) bad "simplereenroll when revoked: $(head -c 200 "$WORK/answer")" ;;
esac

# Channel binding: curl cannot tell its connection's, so it can send none, or a wrong one.
device_key "$WORK/bound.key"
request "$WORK/bound.key" /CN=bound-01 "$WORK/unbound"
BOUND=$(mint_token bound-01 bound)
same "no binding where one is demanded" 422 "$(est bound/simpleenroll "$WORK/unbound" -u "bound-01:$BOUND")"
same "is refused by name" channel_binding_required "$(code_of)"
printf '[req]\ndistinguished_name=dn\nprompt=no\nattributes=more\n[dn]\nCN=bound-01\n[more]\nchallengePassword=%s\n' \
    "$(head -c 32 /dev/zero | base64)" >"$WORK/bound.cnf"
openssl req -new -key "$WORK/bound.key" -config "$WORK/bound.cnf" -outform DER | base64 >"$WORK/misbound"
same "the binding of another connection" 422 "$(est bound/simpleenroll "$WORK/misbound" -u "bound-01:$BOUND")"
same "is refused by name" channel_binding_mismatch "$(code_of)"
same "where none is demanded too" 422 "$(est simpleenroll "$WORK/misbound" -u "est-05:$(mint_token est-05)")"
same "over TLS 1.2 too" 422 "$(est simpleenroll "$WORK/misbound" --tls-max 1.2 -u "est-06:$(mint_token est-06)")"

# serverkeygen: the key and the certificate come in two parts (RFC 7030 4.4.2).
# part NUMBER: the base64 of a part of the last answer.
part() { tr -d '\r' <"$WORK/answer" | awk -v want="$1" '/^--/ { part++; body = 0; next } body && part == want { print } /^$/ { body = 1 }'; }
SERVED=$(mint_token served-01 served)
same "serverkeygen" 200 "$(est served/serverkeygen "$WORK/unbound" -u "served-01:$SERVED")"
case "$(header "$WORK/answer" content-type)" in
    multipart/mixed*boundary=*) ok "serverkeygen's type" ;;
    *) bad "serverkeygen's type: $(header "$WORK/answer" content-type)" ;;
esac
part 1 | base64 -d | openssl pkey -inform DER -out "$WORK/served.key" 2>/dev/null
part 2 >"$WORK/served.p7"
holds "its second part is certs-only PKCS#7" certificates "$WORK/served.p7" "$WORK/served.pem"
same "the key is the certificate's" "$(openssl pkey -in "$WORK/served.key" -pubout)" "$(openssl x509 -in "$WORK/served.pem" -noout -pubkey)"
SERIAL=$(serial_of "$WORK/served.pem")
same "serverkeygen again" 200 "$(est served/serverkeygen "$WORK/unbound" -u "served-01:$SERVED")"
part 1 | base64 -d | openssl pkey -inform DER -out "$WORK/again.key" 2>/dev/null
part 2 >"$WORK/again.p7"
certificates "$WORK/again.p7" "$WORK/again.pem"
refused "makes another key" cmp "$WORK/served.key" "$WORK/again.key"
operator GET "/v1/certificates/$SERIAL" >"$WORK/first.json"
same "and ends the first certificate" revoked "$(jq -r .standing "$WORK/first.json")"
same "serverkeygen by the same token for another request" 409 "$(est served/serverkeygen "$WORK/borrowed" -u "served-01:$SERVED")"
again=(--cert "$WORK/again.pem" --key "$WORK/again.key")
device_key "$WORK/late.key"
request "$WORK/late.key" / "$WORK/unbound.renewal"
same "the second one works" 200 "$(est served/simplereenroll "$WORK/unbound.renewal" "${again[@]}")"
same "and the token is used up" 409 "$(est served/serverkeygen "$WORK/unbound" -u "served-01:$SERVED")"
same "the server goes on" 200 "$(status "$WORK/answer" "$PUBLIC_DOOR/readyz")"
finish
