#!/bin/sh
# Runs inside the tree, as root: leaves the kernel and a memory disk with everything that a test of pools needs.
set -eu
kernel=$(ls /lib/modules)
[ -e "/lib/modules/$kernel/updates/dkms/zfs.ko" ] || [ -e "/lib/modules/$kernel/updates/dkms/zfs.ko.xz" ] ||
    { echo "dkms has compiled no zfs.ko for $kernel" >&2; exit 1; }
depmod "$kernel"
cp "/boot/vmlinuz-$kernel" /kldload/vmlinuz
cp /kldload/init.sh /init
cp /kldload/control.bash /control.bash
cp /kldload/systemctl.sh /usr/local/sbin/systemctl
chmod 755 /init /usr/local/sbin/systemctl
cd /
find . -xdev \
    \( -path ./kldload -o -path ./boot -o -path ./usr/src -o -path ./usr/include -o -path ./usr/share -o -path ./var/cache \
    -o -path ./var/lib/apt -o -path ./var/lib/dkms -o -path ./var/lib/dpkg -o -path ./usr/lib/gcc -o -path './usr/libexec/gcc' \
    -o -path ./usr/lib/python3 -o -path ./usr/lib/perl -o -path ./proc -o -path ./sys -o -path ./dev -o -path ./run \
    -o -path ./tmp -o -path "./usr/lib/modules/$kernel/kernel/drivers/[!bcv]*" -o -path "./usr/lib/modules/$kernel/kernel/sound" \
    -o -path "./usr/lib/modules/$kernel/kernel/drivers/video" -o -path "./usr/lib/linux-*" \
    -o -path "./lib/modules/$kernel/kernel/drivers/[!bcv]*" -o -path "./lib/modules/$kernel/kernel/sound" \) -prune \
    -o -print0 | LC_ALL=C sort -z > /kldload/names
printf './%s\0' proc sys dev run tmp >> /kldload/names
cpio --null --quiet -o -H newc < /kldload/names | zstd -q -T0 -3 > /kldload/initrd
