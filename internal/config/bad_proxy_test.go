package config

// badProxy is files with a mistake in the keys of UDP ASSOCIATE and BIND, and what
// they are told.
func badProxy() []badFile {
	return []badFile{
		{"relay_ports of a word", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
mixed = "127.0.0.1:1080"
relay_ports = "many"
`, `testdata/config.toml:8:15: relay_ports: "many" is no port and no range of ports
    relay_ports = "many"
                  ^
    ports are numbers from 1 to 65535: 25, or "587-588"`},
		{"reversed relay_ports", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
mixed = "127.0.0.1:1080"
relay_ports = "40999-40000"
`, `testdata/config.toml:8:15: relay_ports: "40999-40000" is reversed
    relay_ports = "40999-40000"
                  ^
    write "40000-40999"`},
		{"keys of UDP ASSOCIATE for http", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
http = "127.0.0.1:3128"
relay_ports = "40000-40999"
advertise = "203.0.113.7"
filter = "none"
bind = true
dscp = "ef"
`, `testdata/config.toml:8:1: relay_ports is for mixed and socks listeners; this is http
    relay_ports = "40000-40999"
    ^
    HTTP CONNECT has TCP alone; write mixed or socks instead of http, or remove the line
testdata/config.toml:9:1: advertise is for mixed and socks listeners; this is http
    advertise = "203.0.113.7"
    ^
    HTTP CONNECT has TCP alone; write mixed or socks instead of http, or remove the line
testdata/config.toml:10:1: filter is for mixed and socks listeners; this is http
    filter = "none"
    ^
    HTTP CONNECT has TCP alone; write mixed or socks instead of http, or remove the line
testdata/config.toml:11:1: bind is for mixed and socks listeners; this is http
    bind = true
    ^
    HTTP CONNECT has TCP alone; write mixed or socks instead of http, or remove the line
testdata/config.toml:12:1: dscp is for mixed, socks and udp listeners; this is http
    dscp = "ef"
    ^
    remove it`},
		{"keys of UDP ASSOCIATE for a forward", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
advertise = "203.0.113.7"
`, `testdata/config.toml:9:1: advertise is for mixed and socks listeners; this is udp
    advertise = "203.0.113.7"
    ^
    remove it`},
		{"keys of a udp forward for a proxy", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
mixed = "127.0.0.1:1080"
share = "sip"
inbound = "127.0.0.1:5080"
`, `testdata/config.toml:8:1: share is for udp forwards; this is mixed
    share = "sip"
    ^
    remove it
testdata/config.toml:9:1: inbound is for udp forwards; this is mixed
    inbound = "127.0.0.1:5080"
    ^
    remove it`},
		{"advertise a name", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
mixed = "127.0.0.1:1080"
advertise = "gate.example"
`, `testdata/config.toml:8:13: advertise: "gate.example" is not an address
    advertise = "gate.example"
                ^
    write an address: "198.51.100.10", "2001:db8::10"`},
		{"advertise with a port", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
mixed = "127.0.0.1:1080"
advertise = "203.0.113.7:1080"
`, `testdata/config.toml:8:13: advertise: "203.0.113.7:1080" is not an address
    advertise = "203.0.113.7:1080"
                ^
    no port stands here: write "203.0.113.7"`},
		{"advertise nothing", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
mixed = "127.0.0.1:1080"
advertise = "0.0.0.0"
`, `testdata/config.toml:8:13: advertise: nobody can send to 0.0.0.0
    advertise = "0.0.0.0"
                ^
    write the address that the clients reach; left out, they are told the one they connected to`},
		{"filter", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
mixed = "127.0.0.1:1080"
filter = "address-port"
`, `testdata/config.toml:8:10: filter: "address-port" is not known
    filter = "address-port"
             ^
    did you mean "address-and-port"?`},
		{"bind to an address", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
mixed = "127.0.0.1:1080"
bind = "198.51.100.10"
`, `testdata/config.toml:8:8: bind: want true or false, without quotes, got text
    bind = "198.51.100.10"
           ^`},
		{"range of ports for a proxy", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
mixed = "127.0.0.1:1080-1081"
`, `testdata/config.toml:7:9: mixed: "127.0.0.1:1080-1081" is no address to listen on
    mixed = "127.0.0.1:1080-1081"
            ^
    a port is one number up to 65535; for several write a list`},
	}
}
