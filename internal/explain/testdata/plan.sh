# Made from config.toml by: srcproxy plan --iproute
# Run it as a shell script. The first rule that matches decides, for sockets that no
# program has bound. The routes are those of this host now: make the plan again when they
# change. Linux 4.17 or newer for rules with a protocol or ports.
#
# What it cannot express: 0; in part: 1.
#   rule 3 (config.toml:13): in part: IPv6 addresses that carry a denied one to a gateway (NAT64, 6to4) are let through

# neighbours on a link
ip -6 rule add priority 5000 to fe80::/10 lookup main

# 1: rule 1   config.toml:5
ip route replace 203.0.113.128/25 via 192.0.2.1 dev wan2 src 192.0.2.7 table 5001
ip -6 route replace 2001:db8:9::8000/113 via 2001:db8:7::1 dev wan2 src 2001:db8:7::7 table 5001
ip rule add priority 5001 lookup 5001
ip -6 rule add priority 5001 lookup 5001

# 2: calls   config.toml:8
ip route replace default via 192.0.2.1 dev wan2 src 192.0.2.7 table 5002
ip route replace 192.0.2.0/24 dev wan2 src 192.0.2.7 table 5002
ip route replace 198.51.100.0/24 dev wan1 src 192.0.2.7 table 5002
ip -6 route replace default via 2001:db8:7::1 dev wan2 src 2001:db8:7::7 table 5002
ip -6 route replace 2001:db8:1::/64 dev wan1 src 2001:db8:7::7 table 5002
ip -6 route replace 2001:db8:7::/64 dev wan2 src 2001:db8:7::7 table 5002
ip rule add priority 5002 ipproto udp dport 5060-5070 lookup 5002
ip -6 rule add priority 5002 ipproto udp dport 5060-5070 lookup 5002

# 3: rule 3   config.toml:13
ip route replace prohibit 203.0.113.66/32 table 5003
ip rule add priority 5003 lookup 5003

# default   config.toml:1
ip route replace default via 198.51.100.1 dev wan1 src 198.51.100.10 table 5004
ip route replace 192.0.2.0/24 dev wan2 src 198.51.100.10 table 5004
ip route replace 198.51.100.0/24 dev wan1 src 198.51.100.10 table 5004
ip -6 route replace default via 2001:db8:1::1 dev wan1 src 2001:db8:1::10 table 5004
ip -6 route replace 2001:db8:1::/64 dev wan1 src 2001:db8:1::10 table 5004
ip -6 route replace 2001:db8:7::/64 dev wan2 src 2001:db8:1::10 table 5004
ip rule add priority 5004 lookup 5004
ip -6 rule add priority 5004 lookup 5004

# To undo it:
#   ip -6 rule del priority 5000 to fe80::/10 lookup main
#   ip rule del priority 5001 lookup 5001
#   ip -6 rule del priority 5001 lookup 5001
#   ip route flush table 5001
#   ip -6 route flush table 5001
#   ip rule del priority 5002 ipproto udp dport 5060-5070 lookup 5002
#   ip -6 rule del priority 5002 ipproto udp dport 5060-5070 lookup 5002
#   ip route flush table 5002
#   ip -6 route flush table 5002
#   ip rule del priority 5003 lookup 5003
#   ip route flush table 5003
#   ip rule del priority 5004 lookup 5004
#   ip -6 rule del priority 5004 lookup 5004
#   ip route flush table 5004
#   ip -6 route flush table 5004
