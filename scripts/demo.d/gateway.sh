# shellcheck shell=bash
# Our own gateway in front of a Mosquitto that knows nothing of certificates. Sourced by scripts/demo.

GATEWAY_CONFIG=$WORK/gateway.toml

# gateway_up: edge-2 takes up its invitation, follows the ledgers, and stands before Mosquitto.
gateway_up() {
    local token
    # A short age, so that the demo need not wait a quarter of an hour for knowledge to become stale.
    "$FLEETMARK" fleet change default --max-age 10s || return 1
    token=$("$FLEETMARK" gateway create edge-2 --fleet default --dns-name localhost --json | jq -er .token) || return 1
    FLEETMARK_TOKEN=$token "$FLEETMARK_GATEWAY" enroll --server "$DEVICE_DOOR" --ca-fingerprint "$ROOT_FINGERPRINT" \
        --dir "$WORK/edge-2" || return 1
    BROKER_PORT=$(free_port)
    PORTS="${PORTS:-} $BROKER_PORT"
    PROXY_PORT=$(free_port)
    PORTS="$PORTS $PROXY_PORT"
    printf 'user %s\nlistener %s 127.0.0.1\nallow_anonymous true\nlog_type all\n' "$(id -un)" "$BROKER_PORT" >"$WORK/broker.conf"
    background "$WORK/broker.log" mosquitto -c "$WORK/broker.conf"
    cat >"$GATEWAY_CONFIG" <<CONF
dir = "$WORK/edge-2"
servers = ["$DEVICE_DOOR"]

[verdict]
listen = "unix:$WORK/verdict.sock"

[metrics]
listen = "none"

[[proxy]]
listen = "127.0.0.1:$PROXY_PORT"
upstream = "127.0.0.1:$BROKER_PORT"
protocol = "mqtt"
CONF
    background "$WORK/gateway.log" "$FLEETMARK_GATEWAY" run --config "$GATEWAY_CONFIG"
    GATEWAY_PROCESS=$!
    eventually 10 listens "$BROKER_PORT" && eventually 10 listens "$PROXY_PORT" && kill -0 "$GATEWAY_PROCESS"
}

# mqtt_connect CLIENT-ID, mqtt_publish TOPIC TEXT: the packets (MQTT 3.1.1, 3.1 and 3.3), for texts of together less than 120 octets.
octet() { printf '\\x%02x' "$1"; }
mqtt_connect() { printf "\\x10$(octet $((12 + ${#1})))\\x00\\x04MQTT\\x04\\x02\\x00\\x3c\\x00$(octet ${#1})%s" "$1"; }
mqtt_publish() { printf "\\x30$(octet $((2 + ${#1} + ${#2})))\\x00$(octet ${#1})%s%s" "$1" "$2"; }

# dial NAME [CERTIFICATE KEY]: what a device does: mTLS to the gateway, MQTT within. Standard input is sent; ends when the gateway closes.
dial() {
    local files
    files=$(realpath "$WORK/devices/$1/current") || return 1
    timeout "${PATIENCE:-60}" openssl s_client -quiet -verify_quiet -connect "127.0.0.1:$PROXY_PORT" -servername localhost -CAfile "$files/ca.pem" \
        -verify_return_error -cert "${2:-$files/cert.pem}" -key "${3:-$files/key.pem}"
}

# connect_device NAME: a connection that stays open. LIVE has what is written to it, TRACE the beginning of its files' names: when it ends,
# TRACE.ended has the time. A new one of the same device has files of its own: the broker ends the one before.
declare -A LIVE TRACE
CONNECTIONS=0
connect_device() {
    local trace descriptor
    CONNECTIONS=$((CONNECTIONS + 1))
    trace=$WORK/live.$1.$CONNECTIONS
    TRACE[$1]=$trace
    mkfifo "$trace.pipe"
    (
        dial "$1" <"$trace.pipe" >"$trace.out" 2>"$trace.err"
        echo "${EPOCHREALTIME/[.,]/}" >"$trace.ended"
    ) &
    STARTED+=($!)
    exec {descriptor}>"$trace.pipe"
    LIVE[$1]=$descriptor
    mqtt_connect "$1" >&"$descriptor"
    eventually 5 is_accepted "$1"
}

# is_live NAME: its connection has not ended.
is_live() { [ ! -e "${TRACE[$1]}.ended" ] || { echo "the connection has ended"; cat "${TRACE[$1]}.err"; return 1; }; }

# CONNACK with code 0 (MQTT 3.1.1, 3.2).
is_accepted() { [ "$(head -c 4 "${TRACE[$1]}.out" 2>/dev/null | od -An -tx1 | tr -d ' \n')" = 20020000 ]; }

# telemetry NAME: over the connection that is open, to a subscriber on the broker's own side.
telemetry() {
    local topic=default/$1/temperature text="21.5 from $1" heard=$WORK/heard.$1 reader
    : >"$WORK/broker.log"
    timeout 10 mosquitto_sub -h 127.0.0.1 -p "$BROKER_PORT" -i "reader-of-$1" -t "$topic" -C 1 >"$heard" 2>&1 &
    reader=$!
    eventually 5 grep -q "Sending SUBACK to reader-of-$1" "$WORK/broker.log" || { echo "the subscriber got no answer"; return 1; }
    mqtt_publish "$topic" "$text" >&"${LIVE[$1]}" || { echo "$1 could not publish"; return 1; }
    wait $reader || { echo "the message did not arrive"; cat "$heard"; return 1; }
    grep -qx "$text" "$heard"
}

telemetry_of_both() {
    local device
    for device in sensor-01 sensor-02; do
        eventually 5 connect_device "$device" || { cat "${TRACE[$device]}.err"; return 1; }
        telemetry "$device" || return 1
    done
}

# cut_live NAME: revokes it by REST. The step's time is counted from the revocation's answer to the end of the live connection.
cut_live() {
    local answered ended
    is_live "$1" && revoke "$1" || return 1
    answered=${EPOCHREALTIME/[.,]/}
    eventually 5 test -s "${TRACE[$1]}.ended" || { echo "the connection lives on"; return 1; }
    ended=$(cat "${TRACE[$1]}.ended")
    # The cut may come before the answer has reached the operator.
    [ "$ended" -gt "$answered" ] || ended=$answered
    STEP_MS=$(((ended - answered) / 1000))
    STEP_WORDS="the live connection ended $STEP_MS ms after the revocation's answer"
}

# verdict_is REASON CERTIFICATE: what the gateway's verdict endpoint says of it.
verdict_is() {
    local answer
    answer=$("$FLEETMARK_GATEWAY" check "$2" --config "$GATEWAY_CONFIG" --json)
    echo "$answer"
    [ "$(jq -r .reason <<<"$answer")" = "$1" ]
}

# is_refused NAME [CERTIFICATE KEY]: the gateway ends the connection without an answer of the broker, and goes on listening.
is_refused() {
    local code
    mqtt_connect "$1" | PATIENCE=5 dial "$@" >"$WORK/refused.out" 2>"$WORK/refused.err"
    code=${PIPESTATUS[1]}
    # A connection that stays open until the time is over (124) is no refusal.
    [ "$code" != 124 ] && [ ! -s "$WORK/refused.out" ] || { echo "s_client ended with $code"; od -c "$WORK/refused.out"; return 1; }
    listens "$PROXY_PORT" || { echo "the gateway is gone"; cat "$WORK/refused.err"; return 1; }
}

refused_as() { verdict_is "$1" "$WORK/devices/$2/current/cert.pem" && is_refused "$2"; }

# offline NAME: the server is gone, and the gateway goes on: a new connection, with telemetry.
offline() {
    stop_server || return 1
    verdict_is allowed "$WORK/devices/$1/current/cert.pem" && connect_device "$1" && telemetry "$1"
}

# stale NAME: until what it knows is too old; the connection that is open is cut.
stale() {
    is_live "$1" || return 1
    eventually 15 verdict_is ledger_stale "$WORK/devices/$1/current/cert.pem" || return 1
    is_refused "$1" || return 1
    eventually 5 test -s "${TRACE[$1]}.ended" || { echo "the live connection was not cut"; return 1; }
}

# fresh_again NAME: it is let in, with telemetry.
fresh_again() {
    start_server && eventually 20 verdict_is allowed "$WORK/devices/$1/current/cert.pem" && connect_device "$1" && telemetry "$1"
}

# forge NAME SERIAL: a certificate by the device authority's own key, as its thief would make it, in $WORK/forged.
forge() {
    local good=$WORK/devices/$1/current to=$WORK/forged
    mkdir -p "$to"
    openssl ecparam -name prime256v1 -genkey -noout -out "$to/key.pem" || return 1
    openssl req -new -key "$to/key.pem" -subj "/O=default/CN=$1" -out "$to/request.pem" || return 1
    printf '%s\n' 'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature' 'extendedKeyUsage=clientAuth' \
        "subjectAltName=URI:spiffe://fleet.test/device/default/$1" 'authorityKeyIdentifier=keyid' >"$to/extensions"
    openssl x509 -req -in "$to/request.pem" -CA "$good/chain.pem" -CAkey "$(echo "$DATA"/keys/authority-device*.key.pem)" \
        -passin "file:$DATA/passphrase" -set_serial "0x$2" -days 30 -extfile "$to/extensions" -out "$to/cert.pem" || return 1
    openssl verify -CAfile "$good/ca.pem" -untrusted "$good/chain.pem" -purpose sslclient "$to/cert.pem"
}

# forged NAME: a serial that was never given, then an exact copy of a good device's serial and names.
forged() {
    local serial
    serial=$(serial_of "$WORK/devices/$1/current/cert.pem") || return 1
    for serial in "${serial:0:10}00ffff01${serial:18}" "$serial"; do
        forge "$1" "$serial" || return 1
        verdict_is not_on_ledger "$WORK/forged/cert.pem" || return 1
        is_refused "$1" "$WORK/forged/cert.pem" "$WORK/forged/key.pem" || return 1
    done
}

verified() { "$FLEETMARK" ledger verify system && "$FLEETMARK" ledger verify default; }
