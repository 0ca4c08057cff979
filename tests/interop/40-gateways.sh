#!/usr/bin/env bash
# nginx and Mosquitto with our authorities and our lists: a good device is let in; a revoked one, a foreign one that bears our names,
# one without a certificate and a certificate of another kind in a device's place are not.
. "$(dirname "$0")/lib.sh"
need openssl curl jq nginx mosquitto mosquitto_pub
begin
for name in good-01 revoked-01 held-01; do
    enroll_device $name >/dev/null || bad "$name could not enroll"
done
invite_gateway edge-1 localhost >/dev/null || bad "edge-1 could not take up its invitation"
files() { realpath "$WORK/devices/$1/current"; }
FOREIGN=$WORK/foreign
foreign_device "$FOREIGN" good-01 "$(files good-01)/chain.pem" 2>"$WORK/said" || { bad "no foreign device could be made"; said; }
mkdir -p "$WORK/none"

operator POST /v1/fleets/default/devices/revoked-01/revoke '{"reason":"keyCompromise"}' >/dev/null || bad "revocation failed"
operator POST /v1/fleets/default/devices/held-01/hold '{}' >/dev/null || bad "hold failed"
GATEWAY=$WORK/gateway-files
fetch_trust "$GATEWAY"
cp "$WORK/gateways/edge-1/cert.pem" "$WORK/gateways/edge-1/key.pem" "$GATEWAY/"
both_named() {
    swap_in_lists "$GATEWAY" && lists_name "$GATEWAY/crl.pem" "$(serial_of "$(files revoked-01)/cert.pem")" \
        && lists_name "$GATEWAY/crl.pem" "$(serial_of "$(files held-01)/cert.pem")"
}
holds "the lists are judged and name both" eventually 10 both_named

# A list that is cut short is not put in place: Mosquitto would let everybody in.
sound=$(sha256sum <"$GATEWAY/crl.pem")
head -c 700 "$GATEWAY/crl.pem" >"$WORK/cut.pem"
refused "a list that is cut short" judge_lists "$WORK/cut.pem" "$GATEWAY/ca.pem"
sed '0,/^M/s/^M/N/' "$GATEWAY/crl.pem" >"$WORK/damaged.pem"
refused "a damaged list" judge_lists "$WORK/damaged.pem" "$GATEWAY/ca.pem"
: >"$WORK/empty.pem"
refused "an empty list" judge_lists "$WORK/empty.pem" "$GATEWAY/ca.pem"
same "the list in place is as it was" "$sound" "$(sha256sum <"$GATEWAY/crl.pem")"

# nginx.
HTTPS_PORT=$(free_port)
mkdir -p "$GATEWAY/nginx"
cat >"$GATEWAY/nginx.conf" <<CONF
$([ "$(id -u)" != 0 ] || echo "user root;")
daemon off;
master_process off;
pid $GATEWAY/nginx/pid;
error_log $WORK/nginx.log info;
events {}
http {
    access_log off;
    client_body_temp_path $GATEWAY/nginx/body;
    proxy_temp_path $GATEWAY/nginx/proxy;
    fastcgi_temp_path $GATEWAY/nginx/fastcgi;
    uwsgi_temp_path $GATEWAY/nginx/uwsgi;
    scgi_temp_path $GATEWAY/nginx/scgi;
    server {
        listen 127.0.0.1:$HTTPS_PORT ssl;
        ssl_certificate $GATEWAY/cert.pem;
        ssl_certificate_key $GATEWAY/key.pem;
        ssl_client_certificate $GATEWAY/ca.pem;
        ssl_crl $GATEWAY/crl.pem;
        ssl_verify_client on;
        ssl_verify_depth 3;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_tickets off;
        ssl_session_cache off;
        location / { return 200 "\$ssl_client_s_dn\n"; }
    }
}
CONF
background "$WORK/nginx.out" nginx -e "$WORK/nginx.log" -p "$GATEWAY/nginx" -c "$GATEWAY/nginx.conf"
holds "nginx listens" eventually 10 listens "$HTTPS_PORT"
# nginx_says DIRECTORY [CURL-OPTION...]: prints the status.
nginx_says() {
    local from=$1 certificate=()
    shift
    [ ! -e "$from/key.pem" ] || certificate=(--cert "$from/fullchain.pem" --key "$from/key.pem")
    status "$WORK/answer" --cacert "$ROOT" ${certificate[@]+"${certificate[@]}"} "$@" "https://localhost:$HTTPS_PORT/"
}
for version in 1.2 1.3; do
    tls=("--tlsv$version" --tls-max "$version")
    same "nginx, TLS $version: a good device" 200 "$(nginx_says "$(files good-01)" "${tls[@]}")"
    prints "nginx, TLS $version: knows its name" 'CN=good-01' cat "$WORK/answer"
    same "nginx, TLS $version: a revoked device" 400 "$(nginx_says "$(files revoked-01)" "${tls[@]}")"
    same "nginx, TLS $version: a held device" 400 "$(nginx_says "$(files held-01)" "${tls[@]}")"
    same "nginx, TLS $version: a foreign device with our names" 400 "$(nginx_says "$FOREIGN" "${tls[@]}")"
    same "nginx, TLS $version: no certificate" 400 "$(nginx_says "$WORK/none" "${tls[@]}")"
done
same "nginx gave no reason but the lists'" 2 "$(grep -c 'certificate revoked' "$WORK/nginx.log" | awk '{print ($1 >= 2) ? 2 : $1}')"

# Mosquitto.
MQTT_PORT=$(free_port)
echo 'pattern write telemetry/%u' >"$GATEWAY/devices.acl"
cat >"$GATEWAY/mosquitto.conf" <<CONF
user $(id -un)
listener $MQTT_PORT 127.0.0.1
cafile $GATEWAY/ca.pem
certfile $GATEWAY/cert.pem
keyfile $GATEWAY/key.pem
crlfile $GATEWAY/crl.pem
require_certificate true
use_identity_as_username true
allow_anonymous false
acl_file $GATEWAY/devices.acl
CONF
background "$WORK/mosquitto.log" mosquitto -v -c "$GATEWAY/mosquitto.conf"
MOSQUITTO=$!
holds "Mosquitto listens" eventually 10 listens "$MQTT_PORT"
# publish DIRECTORY [TLS-VERSION]
publish() {
    local certificate=()
    [ ! -e "$1/key.pem" ] || certificate=(--cert "$1/fullchain.pem" --key "$1/key.pem")
    timeout 10 mosquitto_pub -h localhost -p "$MQTT_PORT" --cafile "$ROOT" ${certificate[@]+"${certificate[@]}"} \
        --tls-version "${2:-tlsv1.3}" -t telemetry/good-01 -m 21.5 -q 1
}
for version in tlsv1.2 tlsv1.3; do
    holds "Mosquitto, $version: a good device" publish "$(files good-01)" $version
    refused "Mosquitto, $version: a revoked device" publish "$(files revoked-01)" $version
    refused "Mosquitto, $version: a held device" publish "$(files held-01)" $version
    refused "Mosquitto, $version: a foreign device with our names" publish "$FOREIGN" $version
    refused "Mosquitto, $version: no certificate" publish "$WORK/none" $version
done
prints "Mosquitto took the name from the certificate" "u'good-01'" grep "u'good-01'" "$WORK/mosquitto.log"

# A hold that is released comes off the lists, and the device comes back in.
operator POST /v1/fleets/default/devices/held-01/release '{}' >/dev/null || bad "release failed"
released() { swap_in_lists "$GATEWAY" && ! lists_name "$GATEWAY/crl.pem" "$(serial_of "$(files held-01)/cert.pem")"; }
holds "the lists do not name a released device" eventually 10 released
kill -HUP "$MOSQUITTO"
back_in() { publish "$(files held-01)"; }
holds "Mosquitto lets the released device in" eventually 5 back_in
refused "and not the revoked one" publish "$(files revoked-01)"
finish
