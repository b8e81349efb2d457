#!/bin/busybox sh
# /init of the Rackmesh ramdisk: mounts, drivers, an address on the boot interface, the agent.
# Kernel command line: rackmesh.url=... rackmesh.mac=... [rackmesh.cap=...], see node/ramdisk/main.py;
# from a boot disc also rackmesh.ip=ADDRESS/PREFIX [rackmesh.gw=...] [rackmesh.dns=A,B]: then no DHCP.
export PATH=/bin:/sbin:/usr/bin
mount -t devtmpfs dev /dev 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o size=64m run /run
exec </dev/console >/dev/console 2>&1
echo 4 > /proc/sys/kernel/printk
say() { read -r up _ < /proc/uptime; echo "RACKMESH $up $*"; }
say "ramdisk up, kernel $(uname -r)"

mac= address= router= servers=
for word in $(cat /proc/cmdline); do
    case $word in
    rackmesh.mac=*) mac=$(echo "${word#rackmesh.mac=}" | tr A-F a-f) ;;
    rackmesh.ip=*) address=${word#rackmesh.ip=} ;;
    rackmesh.gw=*) router=${word#rackmesh.gw=} ;;
    rackmesh.dns=*) servers=${word#rackmesh.dns=} ;;
    esac
done

coldplug() { # drivers for everything that the kernel has found so far
    find /sys/devices -name modalias -exec cat {} + 2>/dev/null | sort -u > /run/aliases
    sort -u /run/known /run/aliases 2>/dev/null | cmp -s - /run/known && return 1
    sort -u /run/known /run/aliases > /run/both 2>/dev/null || cp /run/aliases /run/both
    xargs modprobe -a -q < /run/aliases 2>/dev/null
    mv /run/both /run/known
    return 0
}

boot_interface() { # the one with the boot MAC; without a MAC the first that has a device
    for at in /sys/class/net/*; do
        [ -e "$at/device" ] || continue
        if [ -z "$mac" ] || [ "$(cat "$at/address")" = "$mac" ]; then echo "${at##*/}"; return; fi
    done
}

: > /run/known
modprobe -a -q af_packet virtio_pci sd_mod 2>/dev/null
tries=0
while [ $tries -lt 30 ]; do
    coldplug; coldplug; coldplug
    iface=$(boot_interface)
    [ -n "$iface" ] && break
    tries=$((tries + 1))
    sleep 1
done
ip link set lo up
if [ -z "$iface" ]; then
    say "no network interface with the MAC ${mac:-of any kind}; interfaces: $(cat /sys/class/net/*/address | tr '\n' ' ')"
    say "switching off in 60 s"
    sleep 60
    poweroff -f
fi
ip link set "$iface" up
if [ -n "$address" ]; then
    ip addr add "$address" dev "$iface"
    [ -n "$router" ] && ip route add default via "$router" dev "$iface"
    for server in $(echo "$servers" | tr , ' '); do echo "nameserver $server"; done > /etc/resolv.conf
    say "the disc gives it the address, no DHCP"
fi
client=01$(tr -d : < "/sys/class/net/$iface/address")
tries=0
until [ -n "$address" ] || udhcpc -n -S -i "$iface" -s /etc/udhcpc.sh -t 8 -T 2 -A 2 -x "0x3d:$client" >/run/udhcpc.log 2>&1; do
    tries=$((tries + 1))
    say "no DHCP answer on $iface: $(tail -1 /run/udhcpc.log)"
    if [ $tries -ge 20 ]; then
        say "switching off"
        poweroff -f
    fi
    sleep 2
done
say "$iface has $(ip -4 addr show "$iface" | sed -n 's/.*inet \([^ ]*\).*/\1/p')"

export PYTHONPATH=/usr/lib/rackmesh PYTHONUNBUFFERED=1 LANG=C.UTF-8
tries=0
while [ $tries -lt 5 ]; do
    python3.11 -s -S -B -m node.ramdisk.main
    code=$?
    [ $code -eq 2 ] && break
    tries=$((tries + 1))
    say "the agent ended with code $code (attempt $tries of 5), see above"
    sleep 5
done
say "the agent cannot work, switching off in 60 s"
sleep 60
sync
poweroff -f
