# How long it takes to find out that nothing is to be done: `measure.sh tools RUNS`, `measure.sh ansible`
# Prints a name, microseconds, and how many processes and threads were made, for each run.
set -eu
cd /root/many

# Without a process of its own.
made() {
    local key value rest
    while read -r key value rest; do
        if [ "$key" = processes ]; then MADE=$value; return; fi
    done < /proc/stat
}

measure() {
    local name=$1 before start end
    shift
    made; before=$MADE; start=${EPOCHREALTIME/./}
    "$@" > out 2> err || { echo "$* has failed with $?:" >&2; tail -n 50 out err >&2; exit 1; }
    end=${EPOCHREALTIME/./}; made
    echo "$name $((end - start)) $((MADE - before))"
}

# What a plan asks, as it asks it, and the rules.
mapfile -d '' -t asked < asked
asked+=("nft -j list ruleset")
bare() { local line; for line in "${asked[@]}"; do eval "$line"; done; }

if [ "$1" = ansible ]; then
    measure ansible env LC_ALL=C.UTF-8 ANSIBLE_PIPELINING=1 ansible-playbook -i localhost, -c local playbook.yml
    grep -q 'changed=0 .*failed=0' out || { cat out >&2; exit 1; }
    exit
fi

# Until the boot, and what follows it, is over.
for _ in $(seq 12); do
    read -r load _ < /proc/loadavg
    case $load in 0.*) break ;; esac
    sleep 5
done

# Once for the caches.
kldload plan appliance.manifest > plan || { cat plan >&2; exit 1; }
bare > out
for _ in $(seq "$2"); do
    measure plan kldload plan appliance.manifest
    measure bare bare
    for line in "${asked[@]}"; do measure "${line%% *}" eval "$line"; done
    measure check kldload check appliance.manifest
done
