#!/bin/sh
# Measures the latency of gateways with pin = true and with pin = false: one alone, and two side by
# side, each with its load, while two busy processes per core run. It starts each gateway by itself
# and ends all it has started. Run `cargo build --release --workspace` before.
#
#   perf/pinning.sh [SECONDS [ROUNDS [RATE]]]
#
# By default 5 seconds, 3 rounds and 5000 requests a second, which take some 90 seconds.
set -eu
seconds=${1:-5} rounds=${2:-3} rate=${3:-5000}
# Seconds after which each process that this script starts ends by itself, however the script ended.
limit=$((2 * seconds + 30))
cd "$(dirname "$0")/../target/release"
folder=$(mktemp -d)
started=
trap 'stop; rm -r "$folder"' EXIT
trap 'exit 1' INT TERM

stop() {
    for pid in $started; do kill "$pid" 2>/dev/null || true; done
    for pid in $started; do wait "$pid" 2>/dev/null || true; done
    started=
}

# Starts a gateway that may use the cores $1, with pin = $2; $3 is its name here.
gateway() {
    # Without this the loop below could read the start line of the round before.
    rm -f "$folder/$3.out"
    taskset -c "$1" timeout "$limit" ./tangelo --listen 127.0.0.1:0 --shards 1 \
        --set "pin=$2" >"$folder/$3.out" 2>"$folder/$3.err" &
    started="$started $!"
    tries=0
    until grep -q '^tangelo listening' "$folder/$3.out" 2>/dev/null; do
        tries=$((tries + 1))
        if [ "$tries" -gt 200 ]; then cat "$folder/$3.err" >&2; exit 1; fi
        sleep 0.05
    done
    sed -n 's/^tangelo listening on \([^ ]*\).*/\1/p' "$folder/$3.out" >"$folder/$3.address"
    pgrep -P "$!" >"$folder/$3.pid"
}

# Sends requests for $seconds to the gateway $1.
load() {
    ./tangelo-perf load --address "$(cat "$folder/$1.address")" --pid "$(cat "$folder/$1.pid")" \
        --rate "$rate" --depth 1 --warm-up 1 --seconds "$seconds" >"$folder/$1.load"
}

# Prints what was measured at the gateway $1; $2 says how it ran.
show() {
    latency=$(sed -n 's/^  latency  //p' "$folder/$1.load")
    cpu=$(sed -n 's/^  server   \([^,]*\),.*/\1/p' "$folder/$1.load")
    shards=$(sed -n 's/^tangelo.*(\(.*\)).*/\1/p' "$folder/$1.out")
    echo "$2, $shards: $latency; $cpu"
}

all=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status)
first=${all%%[,-]*}
case $all in
"$first"-*) second=$((first + 1)) ;;
"$first",*) rest=${all#*,} second=${rest%%[,-]*} ;;
*) echo "two cores are needed" >&2; exit 1 ;;
esac

round=1
while [ "$round" -le "$rounds" ]; do
    for pin in false true; do
        gateway "$all" "$pin" alone
        load alone
        show alone "alone"
        stop

        # With pin = true the two gateways run on the first two cores.
        case $pin in true) others=$second ;; false) others=$all ;; esac
        gateway "$all" "$pin" one
        gateway "$others" "$pin" two
        busy=0
        while [ "$busy" -lt "$((2 * $(nproc)))" ]; do
            timeout "$limit" sh -c 'while :; do :; done' &
            started="$started $!"
            busy=$((busy + 1))
        done
        load one & one=$!
        load two
        wait "$one"
        show one "side by side with busy processes"
        show two "side by side with busy processes"
        stop
    done
    round=$((round + 1))
done
