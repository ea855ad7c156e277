#!/bin/sh
# Runs inside a root tree, as root: lists every package with the digest of its file, tab-separated,
# and proves that the initramfs can import the pool.
set -eu

kernel=$(ls /lib/modules)
lsinitramfs "/boot/initrd.img-$kernel" > /kldload-initrd
for wanted in /zfs.ko /spl.ko; do
    grep -q "$wanted" /kldload-initrd || { echo "the initramfs of $kernel lacks ${wanted#/}" >&2; exit 1; }
done
for wanted in sbin/zpool scripts/zfs; do
    grep -q "$wanted\$" /kldload-initrd || { echo "the initramfs of $kernel lacks $wanted" >&2; exit 1; }
done
if grep -q '^etc/hostid$' /kldload-initrd; then
    echo "the initramfs of $kernel holds a host id" >&2
    exit 1
fi
rm /kldload-initrd

# shellcheck disable=SC2046 # one word per package is wanted
apt-cache show $(dpkg-query -W -f '${binary:Package}=${Version} ') | awk '
    /^Package: / { name = $2 }
    /^Architecture: / { arch = $2 }
    /^Version: / { version = $2 }
    /^SHA256: / { sum = $2 }
    /^$/ { if (name != "") print name "\t" arch "\t" version "\t" sum; name = sum = "" }
    END { if (name != "") print name "\t" arch "\t" version "\t" sum }
' | sort -u > /kldload-known
dpkg-query -W -f '${Package}\t${Architecture}\t${Version}\n' | sort -u | awk -F '\t' '
    NR == FNR { sum[$1 "\t" $2 "\t" $3] = $4; next }
    { key = $1 "\t" $2 "\t" $3; print key "\t" sum[key] }
' /kldload-known - > /kldload-packages
rm /kldload-known
