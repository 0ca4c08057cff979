# shellcheck shell=bash
# What the interoperability tests share, on top of scripts/lib.sh: a line a check, `ok - …` or `FAIL - …`, and `finish` at the end.

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PASSES=0
FAILURES=0

ok() { PASSES=$((PASSES + 1)); echo "ok - $*"; }

bad() { FAILURES=$((FAILURES + 1)); echo "FAIL - $*"; }

# need PROGRAM...: ends the script as failed where one is missing; scripts/test installs them all.
need() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null || { bad "$program is not installed"; finish; }
    done
}

# holds NAME COMMAND...: it succeeds.
holds() {
    local name=$1
    shift
    timeout_of "$@" >"$WORK/said" 2>&1
    case $? in 0) ok "$name" ;; *) bad "$name"; said ;; esac
}

# refused NAME COMMAND...: it fails by itself; one that hung or could not be run has not refused anything.
refused() {
    local name=$1 code
    shift
    timeout_of "$@" >"$WORK/said" 2>&1
    code=$?
    case $code in
        0) bad "$name: accepted"; said ;;
        124 | 126 | 127) bad "$name: did not run (exit code $code)"; said ;;
        *) ok "$name" ;;
    esac
}

# prints NAME PATTERN COMMAND...: it succeeds, and a line of what it says matches the extended regular expression.
prints() {
    local name=$1 pattern=$2
    shift 2
    if ! timeout_of "$@" >"$WORK/said" 2>&1; then
        bad "$name: failed"
        said
    elif grep -qE -- "$pattern" "$WORK/said"; then
        ok "$name"
    else
        bad "$name: nothing like /$pattern/"
        said
    fi
}

# same NAME WANTED FOUND
same() { if [ "$2" = "$3" ]; then ok "$1"; else bad "$1: wanted '$2', found '$3'"; fi; }

# Programs get a time limit; functions of the script run here.
timeout_of() {
    if declare -F "$1" >/dev/null; then "$@"; else timeout 20 "$@"; fi
}

said() { tail -n 8 "$WORK/said" | sed 's/^/     /'; }

# status FILE CURL-OPTION...: prints the HTTP status, the body in FILE, the headers in FILE.head; 000 where there was no answer.
status() {
    local into=$1
    shift
    : >"$into"
    : >"$into.head"
    curl -s --max-time 20 -o "$into" -D "$into.head" -w '%{http_code}' "$@"
}

# header FILE NAME: prints a header of the last answer, in lower case.
header() { tr -d '\r' <"$1.head" | awk -F': *' -v name="$2" 'tolower($1) == name {print tolower($2)}' | tail -n 1; }

# device_key FILE: makes a P-256 key.
device_key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null || openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

# foreign_device DIRECTORY NAME: an authority that is none of ours but has our device authority's names, and a device certified by it.
foreign_device() {
    mkdir -p "$1"
    device_key "$1/ca.key"
    device_key "$1/key.pem"
    local subject
    subject=$(openssl x509 -in "$3" -noout -subject -nameopt RFC2253 | sed 's/^subject=//')
    printf '[req]\ndistinguished_name=dn\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n[leaf]\nextendedKeyUsage=clientAuth\nkeyUsage=critical,digitalSignature\nsubjectAltName=URI:spiffe://fleet.test/device/default/%s\n' "$2" >"$1/cnf"
    openssl req -x509 -new -key "$1/ca.key" -subj "/$(tr ',' '/' <<<"$subject")" -days 30 -config "$1/cnf" -extensions ca -out "$1/ca.pem" \
        && openssl req -new -key "$1/key.pem" -subj "/O=default/CN=$2" -config "$1/cnf" -out "$1/csr.pem" \
        && openssl x509 -req -in "$1/csr.pem" -CA "$1/ca.pem" -CAkey "$1/ca.key" -set_serial 7 -days 30 -extfile "$1/cnf" -extensions leaf \
            -out "$1/cert.pem" 2>/dev/null \
        && cat "$1/cert.pem" "$1/ca.pem" >"$1/fullchain.pem"
}

# begin [SERVER-OPTION...]: the server, or the end.
begin() {
    if [ ! -x "$FLEETMARK" ] || [ ! -x "$DEVICE" ]; then
        bad "no $PROFILE build: cargo build --workspace"
        finish
    fi
    if ! start_server "$@"; then
        bad "the server did not start"
        finish
    fi
    TRUST=$WORK/trust
    ROOT=$TRUST/root.pem
    fetch_trust "$TRUST" || { bad "the public door gives no authorities"; finish; }
}

finish() {
    if [ -n "$SERVER" ] && ! kill -0 "$SERVER" 2>/dev/null; then bad "the server died"; fi
    if [ $FAILURES != 0 ] && [ -s "${SERVER_LOG:-}" ]; then
        echo "the end of the server's log:"
        tail -n 20 "$SERVER_LOG" | sed 's/^/     /'
    fi
    echo "$(basename "$0"): $PASSES passed, $FAILURES failed"
    [ $FAILURES = 0 ] && [ $PASSES -gt 0 ]
    exit
}
