#!/bin/busybox sh
# Called by udhcpc: put the lease on the interface. A lost lease keeps its address until the next
# one: a disk that is being written needs its network more than the pool needs this address.
export PATH=/bin:/sbin
case $1 in
bound | renew) ;;
*) exit 0 ;;
esac
if ! ip -4 addr show "$interface" | grep -q "inet $ip/"; then
    ip -4 addr flush dev "$interface"
    ip addr add "$ip/${mask:-24}" dev "$interface"
fi
if [ -n "$router" ]; then
    ip route replace default via "${router%% *}" dev "$interface"
fi
exit 0
