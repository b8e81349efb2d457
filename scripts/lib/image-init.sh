#!/bin/busybox sh
# /init of the bootable test image: address, first-boot data of the CIDATA volume, phone-in. Started
# as a live system it phones in by the kernel's command line instead, and looks at no disk.
# It stands for an operating system with cloud-init, and reads as much of its files as it needs.
export PATH=/bin:/sbin
mount -t devtmpfs dev /dev 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
exec </dev/console >/dev/console 2>&1
echo 4 > /proc/sys/kernel/printk
say() { echo "RACKMESH-IMAGE $*"; }
say "kernel $(uname -r)"
modprobe -a -q af_packet virtio_pci sd_mod vfat nls_cp437 nls_iso8859_1 nls_ascii nls_utf8 2>/dev/null
for round in 1 2 3; do
    find /sys/devices -name modalias -exec cat {} + 2>/dev/null | sort -u | xargs modprobe -a -q 2>/dev/null
done

ip link set lo up
for at in /sys/class/net/*; do
    [ -e "$at/device" ] || continue
    iface=${at##*/}
    ip link set "$iface" up
    udhcpc -n -q -i "$iface" -s /etc/udhcpc.sh -t 10 -T 2 -x "0x3d:01$(tr -d : < "$at/address")" >/run/udhcpc.log 2>&1 && break
done
say "$iface has $(ip -4 addr show "$iface" | sed -n 's/.*inet \([^ ]*\).*/\1/p')"

word() { # word NAME: the value of a word of the kernel's command line
    tr ' ' '\n' < /proc/cmdline | sed -n "s/^$1=//p" | head -1
}

mkdir -p /run/cidata
live=$(word rackmesh.phone)
for round in 1 2 3 4 5 6 7 8 9 10; do
    [ -z "$live" ] || break
    volume=$(findfs LABEL=CIDATA 2>/dev/null) && break
    sleep 1
done
if [ -n "$volume" ] && mount -t vfat -o ro "$volume" /run/cidata; then
    say "first-boot data on $volume: $(ls /run/cidata | tr '\n' ' ')"
else
    say "no first-boot data; partitions: $(sed -n 's/.* \([a-z].*\)/\1/p' /proc/partitions | tr '\n' ' ')"
fi
user=/run/cidata/user-data
meta=/run/cidata/meta-data

field() { # field FILE NAME...: the first value of one of the keys, in YAML or in JSON
    file=$1
    shift
    for name; do
        value=$(grep -oE "(^|[^A-Za-z0-9_-])$name\"? *: *\"?'?[A-Za-z0-9._:-]+" "$file" 2>/dev/null | head -1 |
            sed "s/.*$name\"* *: *[\"']*//")
        [ -n "$value" ] && echo "$value" && return
    done
}

name=$(word rackmesh.hostname)
[ -n "$name" ] || name=$(field $user hostname)
[ -n "$name" ] || name=$(field $meta local-hostname hostname)
name=${name:-unnamed}
hostname "$name"
instance=$(field $meta instance-id instance_id)
urls=$(echo "$live" | tr , '\n'; cat $meta $user 2>/dev/null | grep -oE "https?://[^]\"' ,}]*/phone/v1/[^]\"' ,}]*" | awk '!seen[$0]++')
form="instance_id=${instance:-none}&hostname=$name"

phone_in() { # to the first URL that takes it
    for url in $urls; do
        timeout 15 wget -q -O /run/answer --header "Content-Type: application/x-www-form-urlencoded" \
            --post-data "$form" "$url" && return 0
    done
    return 1
}

tries=0
while [ -n "$urls" ] && [ $tries -lt 30 ]; do
    phone_in && say "phoned in" && break
    tries=$((tries + 1))
    say "phone-in failed (attempt $tries of 30)"
    sleep 2
done
echo "RACKMESH-IMAGE-UP $name"
while :; do
    setsid -c sh
    sleep 1
done
