"""Boot services of a node: DHCP, TFTP and the boot HTTP listener."""
