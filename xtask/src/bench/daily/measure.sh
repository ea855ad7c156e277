# The daily commands beside the tools that they stand in for: `measure.sh SCALE RUNS`, with an empty disk /dev/vdb
# Prints a name and a number of microseconds, or of things, a line each.
set -eu
scale=$1 runs=$2
say() { echo "$1 $2"; }
measure() {
    local name=$1 start end
    shift
    start=${EPOCHREALTIME/./}
    "$@" > /run/out 2> /run/err || { echo "$* has failed:" >&2; tail -n 20 /run/out /run/err >&2; exit 1; }
    end=${EPOCHREALTIME/./}
    say "$name" $((end - start))
}

# What starts by itself would be measured, too.
systemctl stop '*.timer'

# All probes, and what the slowest of them takes; before anything is stopped.
whatever() { "$@" || true; }
for run in $(seq "$runs"); do
    measure kst whatever kst --json --timeout 60
    say kst-slowest "$(grep -o '"milliseconds": *[0-9]*' /run/out | tr -dc '0-9\n' | sort -n | tail -1)000"
done

# A schema migration taken back: from the command to an answer of the database.
db=rpool/srv/webapp-db
query() { runuser -u postgres -- psql -At -d webapp -c "$1"; }
before() { until [ "$(query "select to_regclass('migrated') is null" 2> /run/served)" = t ]; do sleep 0.05; done; }
bare() { systemctl stop postgresql@17-main; zfs rollback "$db@bare"; systemctl start postgresql@17-main; before; }
# It goes on to prove the machine while the database serves again.
ours() { ksnap rollback --yes --stop-services "$db" ours > /run/said 2>&1 & before; }
cd /
before
for run in $(seq "$runs"); do
    zfs snapshot "$db@bare"
    query 'create table migrated (x int)' > /run/served
    measure rollback-bare bare
    zfs destroy "$db@bare"
    ksnap "$db" ours > /run/served
    query 'create table migrated (x int)' > /run/served
    measure rollback-ksnap ours
    wait || { cat /run/said >&2; exit 1; }
    zfs destroy "$db@$(zfs list -Ho name -t snapshot "$db" | sed -n 's/.*@\(ours-.*\)/\1/p' | tail -1)"
done

systemctl stop webapp postgresql@17-main 2> /run/err || true
zpool create -O compression=off -m /bench bench /dev/vdb
zfs create -o mountpoint=none bench/d
datasets=()
for i in $(seq "$scale"); do zfs create "bench/d/$i"; datasets+=("bench/d/$i"); done
say datasets "$scale"

# Snapshots of all of them.
each() { local of; for of in "${datasets[@]}"; do zfs snapshot "$of@$1"; done; }
for run in $(seq "$runs"); do
    measure snapshot-zfs zfs snapshot "${datasets[@]/%/@zfs$run}"
    measure snapshot-ksnap ksnap "${datasets[@]}" "k$run"
done
say txgs-ksnap "$(zfs list -Hpo name,createtxg -t snapshot -r bench/d | grep '@k1-' | cut -f2 | sort -u | wc -l)"
measure snapshot-each each each
say txgs-each "$(zfs list -Hpo name,createtxg -t snapshot -r bench/d | grep '@each' | cut -f2 | sort -u | wc -l)"
if [ -x /usr/sbin/sanoid ]; then
    mkdir -p /run/sanoid.d
    cp /usr/share/sanoid/sanoid.defaults.conf /run/sanoid.d/
    printf '[bench/d]\nuse_template=one\nrecursive=yes\nprocess_children_only=yes\n[template_one]\nautosnap=yes\nautoprune=no\nhourly=1\ndaily=0\nweekly=0\nmonthly=0\nyearly=0\nfrequently=0\n' > /run/sanoid.d/sanoid.conf
    measure snapshot-sanoid sanoid --configdir=/run/sanoid.d --cache-dir=/run/sanoid.d --run-dir=/run/sanoid.d --take-snapshots
    say snapshots-sanoid "$(zfs list -Ho name -t snapshot -r bench/d | grep -c @autosnap_ || true)"
fi

# Where the space is.
say listed "$(zfs list -Ho name -t all -r bench | wc -l)"
for run in $(seq "$runs"); do
    measure list-zfs zfs list -Hp -t all -r bench
    measure list-kdf kdf bench
    measure list-kdf-json kdf --json bench
done

# Starting.
begin() { local i; for i in $(seq 20); do "$@" > /run/out; done; }
for run in $(seq "$runs"); do
    measure start-ksnap begin ksnap --help
    measure start-true begin /bin/true
done

# Clearing up: seven snapshots of each dataset go, for each the same ones, and how long somebody else waits meanwhile. What they hold they
# hold alone, or share with the one after.
gone=7
for of in p q r s; do
    zfs create "bench/$of"
    for i in $(seq "$scale"); do zfs create "bench/$of/$i"; done
    for n in $(seq "$gone"); do
        for i in $(seq "$scale"); do
            echo "$n" > "/bench/$of/$i/often"
            [ $((n % 2)) = 0 ] || echo "$n" > "/bench/$of/$i/seldom"
        done
        case $of in
            r) zfs snapshot -r "bench/$of@autosnap_2026-01-0${n}_00000000_hourly" ;;
            *) zfs snapshot -r "bench/$of@x-2026010$n-000000" ;;
        esac
    done
    # Of those that ksnap is to keep one stays.
    [ "$of" = r ] || zfs snapshot -r "bench/$of@x-20260108-000000"
    zfs list -Ho name -t snapshot -d 1 "bench/$of" > /run/own
    while read -r name; do zfs destroy "$name"; done < /run/own
done
say pruned $((gone * scale))
zpool sync bench
others() {
    local start end longest=0
    while [ -e /run/pruning ]; do
        start=${EPOCHREALTIME/./}
        zfs get -Hp used bench > /run/got
        end=${EPOCHREALTIME/./}
        [ $((end - start)) -le "$longest" ] || longest=$((end - start))
    done
    echo "$longest" > /run/longest
}
watched() {
    local name=$1
    touch /run/pruning; others & other=$!
    measure "$@"
    rm /run/pruning; wait "$other"
    say "stall-$name" "$(cat /run/longest)"
}
one_by_one() {
    local name
    for name in $(zfs list -Ho name -t snapshot -r bench/q | grep -v 20260108); do zfs destroy "$name"; done
}
idle() { sleep 5; }
watched prune-nothing idle
watched prune-ksnap ksnap prune --yes -r --keep 1 bench/p
watched prune-each one_by_one
# What the pool itself takes for it, whoever asks.
zfs list -Ho name -t snapshot -r bench/s | grep -v 20260108 > /run/names
mapfile -t names < /run/names
echo 'for _, name in ipairs((...)["argv"]) do zfs.sync.destroy(name) end' > /run/destroy.lua
watched prune-pool zfs program -t 100000000 -m 104857600 bench /run/destroy.lua "${names[@]}"
if [ -x /usr/sbin/sanoid ]; then
    mkdir -p /run/pruned.d
    cp /usr/share/sanoid/sanoid.defaults.conf /run/pruned.d/
    printf '[bench/r]\nuse_template=none\nrecursive=yes\nprocess_children_only=yes\n[template_none]\nautosnap=no\nautoprune=yes\nhourly=0\ndaily=0\nweekly=0\nmonthly=0\nyearly=0\nfrequently=0\n' > /run/pruned.d/sanoid.conf
    watched prune-sanoid sanoid --configdir=/run/pruned.d --cache-dir=/run/pruned.d --run-dir=/run/pruned.d --prune-snapshots
    left=$(zfs list -Ho name -t snapshot -r bench/r | wc -l)
    [ "$left" = 0 ] || { echo "sanoid has left $left snapshots" >&2; exit 1; }
fi
for of in p q s; do
    left=$(zfs list -Ho name -t snapshot -r "bench/$of" | wc -l)
    [ "$left" = "$scale" ] || { echo "$left snapshots of bench/$of are left" >&2; exit 1; }
done
zpool destroy bench
