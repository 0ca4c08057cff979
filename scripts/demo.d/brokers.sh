# shellcheck shell=bash
# Brokers that people already run, with our certificate and our revocation lists. Sourced by scripts/demo.

FILES=$WORK/broker-files

mosquitto_up() {
    MQTT_PORT=$(free_port)
    READER_PORT=$(free_port)
    # A certificate's CN becomes the user name, and the pattern gives each device its own topic. The reader is a process of
    # this machine; over the network it would need a certificate as well.
    echo 'pattern write telemetry/%u' >"$FILES/devices.acl"
    echo 'topic read telemetry/#' >"$FILES/reader.acl"
    cat >"$FILES/mosquitto.conf" <<CONF
user $(id -un)
per_listener_settings true
log_type all

listener $MQTT_PORT 127.0.0.1
cafile $FILES/ca.pem
certfile $FILES/cert.pem
keyfile $FILES/key.pem
crlfile $FILES/crl.pem
require_certificate true
use_identity_as_username true
allow_anonymous false
acl_file $FILES/devices.acl

listener $READER_PORT 127.0.0.1
allow_anonymous true
acl_file $FILES/reader.acl
CONF
    background "$WORK/mosquitto.log" mosquitto -c "$FILES/mosquitto.conf"
    MOSQUITTO=$!
    eventually 10 listens "$MQTT_PORT" && kill -0 "$MOSQUITTO"
}

# publish DEVICE TEXT: as a device does it, and fails as it does.
publish() {
    local files
    files=$(realpath "$WORK/devices/$1/current") || return 1
    timeout 10 mosquitto_pub -h localhost -p "$MQTT_PORT" --cafile "$files/ca.pem" --cert "$files/fullchain.pem" --key "$files/key.pem" \
        -i "$1" -t "telemetry/$1" -m "$2" -q 1
}

mosquitto_accepts() {
    local heard=$WORK/heard.$1 text="21.5 from $1"
    timeout 10 mosquitto_sub -h 127.0.0.1 -p "$READER_PORT" -i "reader-of-$1" -t "telemetry/$1" -C 1 >"$heard" 2>&1 &
    local reader=$!
    eventually 5 grep -q "Sending SUBACK to reader-of-$1" "$WORK/mosquitto.log" || { echo "the subscriber got no answer"; return 1; }
    publish "$1" "$text" || { echo "$1 could not publish"; return 1; }
    wait $reader || { echo "the message did not arrive"; cat "$heard"; return 1; }
    grep -qx "$text" "$heard"
}

mosquitto_refuses() {
    # A refusal in the handshake is an error of TLS at the client; a time-out (124) or a bad command would be no refusal.
    eventually 5 not_published "$1" || return 1
    grep -qiE 'certificate revoked|certificate verify failed' "$WORK/mosquitto.log" || { echo "Mosquitto does not say why"; return 1; }
}

not_published() {
    publish "$1" refused
    local code=$?
    echo "mosquitto_pub ended with $code"
    [ $code != 0 ] && [ $code != 124 ] && [ $code != 127 ]
}

nginx_up() {
    HTTPS_PORT=$(free_port)
    mkdir -p "$FILES/nginx"
    # A resumed session would not be judged by the list again: neither tickets nor a cache.
    cat >"$FILES/nginx.conf" <<CONF
$([ "$(id -u)" != 0 ] || echo "user root;")
daemon off;
worker_processes 1;
pid $FILES/nginx/pid;
error_log $WORK/nginx.log info;
events {}
http {
    access_log off;
    client_body_temp_path $FILES/nginx/body;
    proxy_temp_path $FILES/nginx/proxy;
    fastcgi_temp_path $FILES/nginx/fastcgi;
    uwsgi_temp_path $FILES/nginx/uwsgi;
    scgi_temp_path $FILES/nginx/scgi;
    server {
        listen 127.0.0.1:$HTTPS_PORT ssl;
        server_name localhost;
        ssl_certificate $FILES/cert.pem;
        ssl_certificate_key $FILES/key.pem;
        ssl_client_certificate $FILES/ca.pem;
        ssl_crl $FILES/crl.pem;
        ssl_verify_client on;
        ssl_verify_depth 3;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_tickets off;
        ssl_session_cache off;
        location /telemetry { return 200 "\$ssl_client_s_dn\n"; }
    }
}
CONF
    background "$WORK/nginx.out" nginx -e "$WORK/nginx.log" -p "$FILES/nginx" -c "$FILES/nginx.conf"
    NGINX=$!
    eventually 10 listens "$HTTPS_PORT" && kill -0 "$NGINX"
}

# send DEVICE: prints the status and, after it, what nginx answered.
send() {
    local files
    files=$(realpath "$WORK/devices/$1/current") || return 1
    curl -sS --max-time 10 --cacert "$files/ca.pem" --cert "$files/fullchain.pem" --key "$files/key.pem" \
        -w '\n%{http_code}\n' --data 21.5 "https://localhost:$HTTPS_PORT/telemetry"
}

nginx_accepts() {
    local answer
    answer=$(send "$1") || return 1
    echo "$answer"
    grep -qx 200 <<<"$answer" && grep -q "CN=$1\b" <<<"$answer"
}

nginx_refuses() {
    eventually 5 nginx_says_400 "$1" || return 1
    grep -q 'certificate revoked' "$WORK/nginx.log" || { echo "nginx does not say why"; return 1; }
}

nginx_says_400() {
    local answer
    answer=$(send "$1") || return 1
    echo "$answer"
    grep -qx 400 <<<"$answer"
}

gateway_certificate() {
    invite_gateway edge-1 localhost || return 1
    fetch_trust "$FILES" || return 1
    cp "$WORK/gateways/edge-1/cert.pem" "$WORK/gateways/edge-1/key.pem" "$FILES/" || return 1
    openssl verify -x509_strict -CAfile "$FILES/root.pem" -untrusted "$FILES/ca.pem" -purpose sslserver \
        -verify_hostname localhost "$FILES/cert.pem"
}

revoke() {
    operator POST "/v1/fleets/default/devices/$1/revoke" '{"reason":"keyCompromise","note":"shown in the demo"}'
}

lists_renewed() {
    local serial
    serial=$(serial_of "$WORK/devices/$1/current/cert.pem") || return 1
    eventually 10 lists_with "$serial" || { echo "the lists do not name $serial"; return 1; }
    kill -HUP "$MOSQUITTO" "$NGINX"
}

lists_with() { swap_in_lists "$FILES" && lists_name "$FILES/crl.pem" "$1"; }
