package config

// badPorts is files with a mistake in ranges of ports, or in ports that are kept, and
// what they are told.
func badPorts() []badFile {
	return []badFile{
		{"udp target without a host", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = ":5060"
`, `testdata/config.toml:8:6: to: host "": neither a host name nor an address: it is empty
    to = ":5060"
         ^`},
		{"udp target that is no name", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "a..example"
`, `testdata/config.toml:8:6: to: host "a..example": neither a host name nor an address: it has an empty label
    to = "a..example"
         ^`},
		{"udp target without port behind any port", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:0"
to = "a.example"
`, `testdata/config.toml:8:6: to: "a.example" has no port, and this listener takes any
    to = "a.example"
         ^
    add the port: "a.example:PORT"`},
		{"udp to itself on the port asked", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "127.0.0.1"
`, `testdata/config.toml:8:6: to: 127.0.0.1 is this listener itself
    to = "127.0.0.1"
         ^
    write the address of the server`},
		{"range of ports to itself", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:10000-10099"
to = "127.0.0.1:10010"
`, `testdata/config.toml:8:6: to: 127.0.0.1:10010 is this listener itself
    to = "127.0.0.1:10010"
         ^
    write the address of the server`},
		{"range of ports for tcp", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
tcp = "127.0.0.1:10000-10099"
to = "203.0.113.5:5060"
`, `testdata/config.toml:7:7: tcp: "127.0.0.1:10000-10099" is no address to listen on
    tcp = "127.0.0.1:10000-10099"
          ^
    a port is one number up to 65535; for several write a list`},
		{"reversed range of ports", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:10099-10000"
to = "203.0.113.5"
`, `testdata/config.toml:7:7: udp: "127.0.0.1:10099-10000" is no address to listen on
    udp = "127.0.0.1:10099-10000"
          ^
    the lower port stands first: 10000-10099`},
		{"range of words", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:sip-sips"
to = "203.0.113.5"
`, `testdata/config.toml:7:7: udp: "127.0.0.1:sip-sips" is no address to listen on
    udp = "127.0.0.1:sip-sips"
          ^
    ports are numbers up to 65535: "127.0.0.1:5060", "127.0.0.1:10000-10099"`},
		{"range from zero", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:0-99"
to = "203.0.113.5"
`, `testdata/config.toml:7:7: udp: "127.0.0.1:0-99" is no address to listen on
    udp = "127.0.0.1:0-99"
          ^
    ports are numbers up to 65535: "127.0.0.1:5060", "127.0.0.1:10000-10099"`},
		{"two ranges of ports", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = ["127.0.0.1:10000-10099", "[::1]:10000-10098"]
to = "203.0.113.5"
`, `testdata/config.toml:7:33: udp: the addresses of a listener have one range of ports; 10000-10098 is another than that of udp 127.0.0.1:10000-10099
    udp = ["127.0.0.1:10000-10099", "[::1]:10000-10098"]
                                    ^
    write a [[listen]] of its own for each range`},
		{"a range and a port", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = ["127.0.0.1:5060", "[::1]:10000-10098"]
to = "203.0.113.5"
`, `testdata/config.toml:7:26: udp: the addresses of a listener have one range of ports; 10000-10098 is another than that of udp 127.0.0.1:5060
    udp = ["127.0.0.1:5060", "[::1]:10000-10098"]
                             ^
    write a [[listen]] of its own for each range`},
		{"too many ports", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:10000-20000"
to = "203.0.113.5"
`, `testdata/config.toml:7:7: udp: each address and port is a socket; these are 10001, and 10000 are allowed
    udp = "127.0.0.1:10000-20000"
          ^
    listen on fewer ports, or fewer addresses`},
		{"too many ports on several addresses", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = ["127.0.0.1:10000-15000", "[::1]:10000-15000"]
to = "203.0.113.5"
`, `testdata/config.toml:7:7: udp: each address and port is a socket; these are 10002, and 10000 are allowed
    udp = ["127.0.0.1:10000-15000", "[::1]:10000-15000"]
          ^
    listen on fewer ports, or fewer addresses`},
		{"range over a port", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:10000-10099"
to = "203.0.113.5"
[[listen]]
udp = "127.0.0.1:10050"
to = "203.0.113.6:53"
`, `testdata/config.toml:10:7: udp: 127.0.0.1:10050 is taken by 127.0.0.1:10000-10099 in line 7
    udp = "127.0.0.1:10050"
          ^
    choose another port, or remove one of the two`},
		{"range over a range", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:10000-10099"
to = "203.0.113.5"
[[listen]]
udp = ":10099-10100"
allow = "192.0.2.0/24"
to = "203.0.113.6:53"
`, `testdata/config.toml:10:7: udp: [::]:10099-10100 is taken by 127.0.0.1:10000-10099 in line 7
    udp = ":10099-10100"
          ^
    choose another port, or remove one of the two`},
		{"same for tcp", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
tcp = "127.0.0.1:2525"
to = "203.0.113.5:25"
use = "voip"
source_port = "same"
`, `testdata/config.toml:10:15: source_port: "same" is for udp forwards; this is tcp
    source_port = "same"
                  ^
    write the port as an integer`},
		{"same of any port", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:0"
to = "203.0.113.5:25"
use = "voip"
source_port = "same"
`, `testdata/config.toml:10:15: source_port: "same" is not known before a client asks, since this listener takes any port
    source_port = "same"
                  ^
    listen on a port of your choice`},
		{"same without use", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:10000-10099"
to = "203.0.113.5"
source_port = "same"
`, `testdata/config.toml:9:1: source_port needs a use: the address that has the port
    source_port = "same"
    ^
    add use = "NAME", or write source_port in a rule`},
		{"same with another word", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:10000-10099"
to = "203.0.113.5"
use = "voip"
source_port = "keep"
`, `testdata/config.toml:10:15: source_port: want a port as an integer, or "same", got text
    source_port = "keep"
                  ^`},
		{"same and the ports of the source", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:10000-10099"
to = "203.0.113.5"
use = "few"
source_port = "same"
`, `testdata/config.toml:10:15: source_port: 10000-10099 is not among the ports of source "few", 10000-10050
    source_port = "same"
                  ^
    choose one of them, or a source without ports`},
		{"same from where it listens", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "198.51.100.30:10000-10099"
allow = "192.0.2.0/24"
to = "203.0.113.5"
use = "voip"
source_port = "same"
`, `testdata/config.toml:11:15: source_port: 198.51.100.30:10000-10099 is where the listener in line 7 listens, and so no sender
    source_port = "same"
                  ^
    let it listen on another address, such as 127.0.0.1, or on another port`},
	}
}
