package config

// badListen is files with a mistake, and what they are told.
func badListen() []badFile {
	return []badFile{
		{"no kind", `default = "kernel"
[[listen]]
name = "x"
`, `testdata/config.toml:2:3: the listener has no kind and address
    [[listen]]
      ^
    write one of mixed, socks, http, tcp and udp: mixed = "127.0.0.1:1080"`},
		{"two kinds", `default = "kernel"
[[listen]]
socks = "127.0.0.1:1080"
http = "127.0.0.1:3128"
`, `testdata/config.toml:4:1: a listener has one kind; this one is socks and http
    http = "127.0.0.1:3128"
    ^
    write a [[listen]] of its own for each`},
		{"kind of a later time", `default = "kernel"
[[listen]]
transparent = ":7000"
`, `testdata/config.toml:3:1: [[listen]] has no key "transparent"
    transparent = ":7000"
    ^
    known keys: name, mixed, socks, http, tcp, udp, allow, limit, idle, dscp, users, open, relay_ports, advertise, filter, bind, to, use, source_port, share, inbound, inbound_from`},
		{"no port", `default = "kernel"
[[listen]]
mixed = "127.0.0.1"
`, `testdata/config.toml:3:9: mixed: "127.0.0.1" is no address to listen on
    mixed = "127.0.0.1"
            ^
    add the port: "127.0.0.1:1080"`},
		{"port alone", `default = "kernel"
[[listen]]
mixed = "1080"
`, `testdata/config.toml:3:9: mixed: "1080" is no address to listen on
    mixed = "1080"
            ^
    write "127.0.0.1:1080", or ":1080" for all addresses`},
		{"integer", `default = "kernel"
[[listen]]
mixed = 1080
`, `testdata/config.toml:3:9: mixed: want an address with port in quotes ("127.0.0.1:1080"), or a list of them, got an integer
    mixed = 1080
            ^
    write "127.0.0.1:1080", or ":1080" for all addresses`},
		{"localhost", `default = "kernel"
[[listen]]
mixed = "localhost:1080"
`, `testdata/config.toml:3:9: mixed: "localhost:1080" is no address to listen on
    mixed = "localhost:1080"
            ^
    write an address: ["127.0.0.1:1080", "[::1]:1080"]`},
		{"name", `default = "kernel"
[[listen]]
mixed = "proxy.example:1080"
`, `testdata/config.toml:3:9: mixed: "proxy.example:1080" is no address to listen on
    mixed = "proxy.example:1080"
            ^
    write an address of this host; names are not resolved here`},
		{"star", `default = "kernel"
[[listen]]
mixed = "*:1080"
`, `testdata/config.toml:3:9: mixed: "*:1080" is no address to listen on
    mixed = "*:1080"
            ^
    write ":1080" for all addresses`},
		{"no brackets", `default = "kernel"
[[listen]]
mixed = "2001:db8::10:1080"
allow = "192.0.2.0/24"
`, `testdata/config.toml:3:9: mixed: "2001:db8::10:1080" is no address to listen on
    mixed = "2001:db8::10:1080"
            ^
    put IPv6 addresses in brackets: "[2001:db8::10]:1080"`},
		{"multicast", `default = "kernel"
[[listen]]
mixed = "224.0.0.1:1080"
allow = "192.0.2.0/24"
`, `testdata/config.toml:3:9: mixed: "224.0.0.1:1080" is no address to listen on
    mixed = "224.0.0.1:1080"
            ^
    no flow has a multicast address at its end`},
		{"path", `default = "kernel"
[[listen]]
mixed = "/run/x.sock"
`, `testdata/config.toml:3:9: mixed: "/run/x.sock" is no address to listen on
    mixed = "/run/x.sock"
            ^
    write "127.0.0.1:1080", "[2001:db8::1]:1080", or ":1080" for all addresses`},
		{"empty list", `default = "kernel"
[[listen]]
mixed = []
`, `testdata/config.toml:3:9: mixed is an empty list
    mixed = []
            ^
    write an element, or leave the key out`},
		{"open proxy", `default = "kernel"
[[listen]]
mixed = ":1080"
`, `testdata/config.toml:3:9: mixed: everybody who reaches [::]:1080 could use this proxy
    mixed = ":1080"
            ^
    write allow = ["PREFIX OF THE CLIENTS"] or users = "FILE"; open = true lets everybody in`},
		{"open proxy on one of two", `default = "kernel"
[[listen]]
http = ["127.0.0.1:3128", "198.51.100.10:3128"]
`, `testdata/config.toml:3:8: http: everybody who reaches 198.51.100.10:3128 could use this proxy
    http = ["127.0.0.1:3128", "198.51.100.10:3128"]
           ^
    write allow = ["PREFIX OF THE CLIENTS"] or users = "FILE"; open = true lets everybody in`},
		{"empty allow", `default = "kernel"
[[listen]]
mixed = ":1080"
allow = []
`, `testdata/config.toml:4:9: allow is an empty list
    allow = []
            ^
    write an element, or leave the key out`},
		{"allow with host bits", `default = "kernel"
[[listen]]
mixed = ":1080"
allow = ["192.0.2.7/24"]
`, `testdata/config.toml:4:10: allow: "192.0.2.7/24" has bits beyond its length
    allow = ["192.0.2.7/24"]
             ^
    write "192.0.2.0/24" for the network, or "192.0.2.7" for the address`},
		{"no users file", `default = "kernel"
[[listen]]
mixed = ":1080"
users = "none"
`, `testdata/config.toml:4:9: users: cannot read testdata/none: no such file or directory
    users = "none"
            ^
    make it: srcproxy passwd NAME >>testdata/none`},
		{"empty users", `default = "kernel"
[[listen]]
mixed = ":1080"
users = ""
`, `testdata/config.toml:4:9: users is empty
    users = ""
            ^
    write a value, or leave the key out`},
		{"taken", `default = "kernel"
[[listen]]
mixed = "127.0.0.1:1080"
[[listen]]
socks = "127.0.0.1:1080"
`, `testdata/config.toml:5:9: socks: 127.0.0.1:1080 is taken by 127.0.0.1:1080 in line 3
    socks = "127.0.0.1:1080"
            ^
    choose another port, or remove one of the two`},
		{"taken by the wildcard", `default = "kernel"
[[listen]]
mixed = ":1080"
allow = "192.0.2.0/24"
[[listen]]
socks = "127.0.0.1:1080"
`, `testdata/config.toml:6:9: socks: 127.0.0.1:1080 is taken by [::]:1080 in line 3
    socks = "127.0.0.1:1080"
            ^
    choose another port, or remove one of the two`},
		{"one name", `default = "kernel"
[[listen]]
name = "x"
mixed = "127.0.0.1:1080"
[[listen]]
name = "x"
mixed = "127.0.0.1:1081"
`, `testdata/config.toml:6:8: another listener is named "x", in line 2
    name = "x"
           ^
    give each a name`},
		{"limit of zero", `default = "kernel"
[[listen]]
mixed = "127.0.0.1:1080"
limit = 0
`, `testdata/config.toml:4:9: limit: 0 is not between 1 and 2147483647
    limit = 0
            ^`},
		{"idle of zero", `default = "kernel"
[[listen]]
mixed = "127.0.0.1:1080"
idle = "0s"
`, `testdata/config.toml:4:8: idle: 0s is too short; the least is 1s
    idle = "0s"
           ^`},
		{"use of a proxy", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[listen]]
mixed = "127.0.0.1:1080"
use = "wan"
`, `testdata/config.toml:6:1: use is for tcp and udp forwards; this is mixed
    use = "wan"
    ^
    write a rule: [[rules]] listener = "NAME OF THE LISTENER", use = "wan"`},
		{"target of a proxy", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[listen]]
mixed = "127.0.0.1:1080"
to = "a.example:25"
`, `testdata/config.toml:6:1: to is for tcp and udp forwards; this is mixed
    to = "a.example:25"
    ^
    for a forward, write tcp or udp instead of mixed`},
		{"users of a forward", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[listen]]
tcp = "127.0.0.1:2525"
to = "a.example:25"
users = "users"
open = true
`, `testdata/config.toml:7:1: users is for mixed, socks and http listeners; this is tcp
    users = "users"
    ^
    a forward knows no login; who may use it, allow = ["PREFIX"] says
testdata/config.toml:8:1: open is for mixed, socks and http listeners; this is tcp
    open = true
    ^
    a forward knows no login; who may use it, allow = ["PREFIX"] says`},
	}
}
