# shellcheck shell=bash
# What the scripts share: a working directory, free ports, a real server, an operator's curl. Sourced, never run.
#
# Before sourcing, PROFILE may be dev or release (default dev). Everything is made in $WORK, a fresh directory that goes away at
# the end unless KEEP=1; every process that was started with `background` is ended.

set -u
REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PROFILE=${PROFILE:-dev}
TARGET=${CARGO_TARGET_DIR:-$REPOSITORY/target}
case $PROFILE in
    dev) BINARIES=$TARGET/debug ;;
    release) BINARIES=$TARGET/release ;;
    *) echo "unknown profile $PROFILE: dev or release" >&2; exit 2 ;;
esac
FLEETMARK=$BINARIES/fleetmark
DEVICE=$BINARIES/fleetmark-device
FLEETMARK_GATEWAY=$BINARIES/fleetmark-gateway
WORK=$(mktemp -d "${TMPDIR:-/tmp}/fleetmark.XXXXXX")
DATA=$WORK/data
STARTED=()
SERVER=
# Nothing that the caller's shell says about proxies or another installation counts here.
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy FLEETMARK_DATA FLEETMARK_OPERATOR FLEETMARK_TOKEN
# Debian keeps daemons where only root looks.
PATH=$PATH:/usr/sbin:/sbin

# clean_up: ends what was started, the newest first, and removes $WORK.
clean_up() {
    local index
    for ((index = ${#STARTED[@]} - 1; index >= 0; index--)); do
        kill "${STARTED[index]}" 2>/dev/null
        wait "${STARTED[index]}" 2>/dev/null
    done
    STARTED=()
    if [ "${KEEP:-0}" = 1 ]; then echo "kept: $WORK" >&2; else rm -rf "$WORK"; fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# free_port: prints a port of 127.0.0.1 where nobody listens, below those that the kernel hands out.
free_port() {
    local port
    while :; do
        port=$((10240 + (RANDOM * 32768 + RANDOM) % 22000))
        case " ${PORTS:-} " in *" $port "*) continue ;; esac
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}

# background LOG COMMAND...: starts it and leaves its process id in $!.
background() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 &
    STARTED+=($!)
}

# eventually SECONDS COMMAND...: tries until it succeeds or the time is over.
eventually() {
    local end=$((SECONDS + $1 + 1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.05
    done
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# start_server [OPTION...]: `fleetmark up` in $DATA. Sets DEVICE_DOOR, ADMIN_DOOR, PUBLIC_DOOR (URLs), ROOT_FINGERPRINT, SERVER
# (process id) and SERVER_LOG. A second call starts it again with the same doors.
start_server() {
    if [ -z "${DEVICE_PORT:-}" ]; then
        DEVICE_PORT=$(free_port)
        PORTS="${PORTS:-} $DEVICE_PORT"
        ADMIN_PORT=$(free_port)
        PORTS="$PORTS $ADMIN_PORT"
        PUBLIC_PORT=$(free_port)
        PORTS="$PORTS $PUBLIC_PORT"
    fi
    DEVICE_DOOR=https://localhost:$DEVICE_PORT
    ADMIN_DOOR=https://localhost:$ADMIN_PORT
    PUBLIC_DOOR=http://127.0.0.1:$PUBLIC_PORT
    SERVER_LOG=$WORK/server.log
    : >"$SERVER_LOG"
    background "$SERVER_LOG" "$FLEETMARK" up --data "$DATA" --trust-domain fleet.test --name localhost --name 127.0.0.1 \
        --device-door "127.0.0.1:$DEVICE_PORT" --admin-door "127.0.0.1:$ADMIN_PORT" --public-door "127.0.0.1:$PUBLIC_PORT" \
        --public-url "$PUBLIC_DOOR" "$@"
    SERVER=$!
    eventually 30 server_is_ready || { say_why_not_ready; return 1; }
    kill -0 "$SERVER" 2>/dev/null || { say_why_not_ready; return 1; }
    ROOT_FINGERPRINT=$(printed_fingerprint)
    [ ${#ROOT_FINGERPRINT} = 64 ] || { echo "the server did not print its root's fingerprint" >&2; return 1; }
    export FLEETMARK_OPERATOR=$DATA/operator
}

# Ready, or dead: in both cases there is nothing to wait for.
server_is_ready() {
    kill -0 "$SERVER" 2>/dev/null || return 0
    [ -n "$(printed_fingerprint)" ] && curl -s -o /dev/null --fail --max-time 5 "$PUBLIC_DOOR/readyz"
}

# What people copy from what `up` prints.
printed_fingerprint() { sed -n 's/.*[Rr]oot.* fingerprint:\{0,1\}  *\([0-9a-f]\{64\}\)$/\1/p' "$SERVER_LOG" | head -n 1; }

say_why_not_ready() {
    echo "the server is not ready; the end of its log:" >&2
    tail -n 20 "$SERVER_LOG" >&2
    curl -s --max-time 5 "$PUBLIC_DOOR/readyz" >&2
}

# stop_server: SIGTERM; the server has 10 s to drain.
stop_server() {
    local process=$SERVER
    SERVER=
    kill "$process" || return 1
    # `wait` would wait for ever.
    eventually 12 gone "$process" || return 1
    wait "$process"
}

gone() { ! kill -0 "$1" 2>/dev/null || [ "$(cut -d' ' -f3 "/proc/$1/stat" 2>/dev/null)" = Z ]; }

# operator METHOD PATH [JSON]: one request at the admin door with the operator's certificate; prints the answer, fails unless 2xx.
operator() {
    local profile=$DATA/operator body=()
    [ $# -lt 3 ] || body=(-H 'Content-Type: application/json' --data-binary "$3")
    curl -sS --fail-with-body --max-time 20 --cacert "$profile/ca.pem" --cert "$profile/cert.pem" --key "$profile/key.pem" \
        -X "$1" ${body[@]+"${body[@]}"} "$ADMIN_DOOR$2"
}

# mint_token DEVICE [FLEET]: prints a one-time token.
mint_token() { "$FLEETMARK" token create --fleet "${2:-default}" --device "$1" --json | jq -er .token; }

# enroll_device NAME [FLEET]: the agent makes a key in $WORK/devices/NAME and has it certified; $WORK/devices/NAME/current has the files.
enroll_device() {
    local directory=$WORK/devices/$1 token
    mkdir -p "$WORK/devices" || return 1
    token=$(mint_token "$1" "${2:-default}") || return 1
    FLEETMARK_TOKEN=$token "$DEVICE" enroll --server "$DEVICE_DOOR" --ca-fingerprint "$ROOT_FINGERPRINT" \
        --fleet "${2:-default}" --dir "$directory" --json
}

# invite_gateway NAME DNS-NAME: a gateway's key and certificate in $WORK/gateways/NAME (key.pem, cert.pem with its chain, ca.pem).
invite_gateway() {
    local token
    mkdir -p "$WORK/gateways" || return 1
    token=$("$FLEETMARK" gateway create "$1" --fleet default --dns-name "$2" --json | jq -er .token) || return 1
    FLEETMARK_TOKEN=$token "$FLEETMARK" accept --server "$DEVICE_DOOR" --ca-fingerprint "$ROOT_FINGERPRINT" \
        --dir "$WORK/gateways/$1" --json
}

# pem_count FILE: prints the number of PEM certificates or lists in it.
pem_count() { grep -c -- '-----BEGIN ' "$1"; }

# fetch_trust DIRECTORY: DIRECTORY/ca.pem (all authorities and the root) and DIRECTORY/root.pem from the public door.
fetch_trust() {
    mkdir -p "$1" || return 1
    curl -sS --fail --max-time 10 -o "$1/ca.pem" "$PUBLIC_DOOR/ca/bundle.pem" || return 1
    cp "$DATA/operator/ca.pem" "$1/root.pem"
}

# swap_in_lists DIRECTORY: fetches the revocation lists, has openssl judge each by the authorities of DIRECTORY/ca.pem, and puts them
# whole in the place of DIRECTORY/crl.pem. Mosquitto takes a damaged file for no revocations at all, so nothing unjudged may lie there.
swap_in_lists() {
    local fetched=$1/.crl.fetched judged
    curl -sS --fail --max-time 10 -o "$fetched" "$PUBLIC_DOOR/crl/bundle.pem" || return 1
    judge_lists "$fetched" "$1/ca.pem" || return 1
    judged=$1/.crl.judged
    cp "$fetched" "$judged" && sync "$judged" && mv "$judged" "$1/crl.pem" && sync "$1"
}

# split_pem FILE: cuts it into $WORK/pieces.*/N.pem and prints that directory.
split_pem() {
    local pieces
    pieces=$(mktemp -d "$WORK/pieces.XXXXXX") || return 1
    awk -v to="$pieces" '/-----BEGIN /{n++} n{print > (to "/" n ".pem")}' "$1"
    echo "$pieces"
}

# judge_lists FILE CA-FILE: every list is signed by an authority that we know and not past its nextUpdate, and each authority has one.
judge_lists() {
    local pieces count piece ends
    count=$(pem_count "$1")
    [ "$count" = "$(pem_count "$2")" ] || { echo "$count lists for $(pem_count "$2") authorities" >&2; return 1; }
    pieces=$(split_pem "$1") || return 1
    for piece in "$pieces"/*.pem; do
        openssl crl -in "$piece" -CAfile "$2" -noout 2>&1 | grep -q '^verify OK' \
            || { echo "openssl does not take this list: $(openssl crl -in "$piece" -noout -issuer 2>&1)" >&2; return 1; }
        ends=$(openssl crl -in "$piece" -noout -nextupdate | sed 's/^nextUpdate=//')
        [ "$(date -d "$ends" +%s)" -gt "$(date +%s)" ] || { echo "a list ended $ends" >&2; return 1; }
    done
    rm -rf "$pieces"
}

# lists_name FILE SERIAL: one of the lists in the file names this serial.
lists_name() {
    local pieces piece
    pieces=$(split_pem "$1") || return 1
    for piece in "$pieces"/*.pem; do
        openssl crl -in "$piece" -noout -text
    done | grep -qi "Serial Number: *$2\b"
    local found=$?
    rm -rf "$pieces"
    return $found
}

# serial_of CERTIFICATE-FILE: as openssl and the lists print it.
serial_of() { openssl x509 -in "$1" -noout -serial | sed 's/^serial=//'; }
