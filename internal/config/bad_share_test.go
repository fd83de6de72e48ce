package config

// badShare is files with a mistake in what clients share, and in code points, and
// what they are told.
func badShare() []badFile {
	return []badFile{
		{"share without source_port", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
use = "voip"
share = "sip"
`, `testdata/config.toml:10:1: share needs a source_port: the one that the clients share
    share = "sip"
    ^
    add source_port = 5060`},
		{"share by something else", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
use = "voip"
source_port = 5060
share = "rtp"
`, `testdata/config.toml:11:9: share: "rtp" is not known
    share = "rtp"
            ^
    one of: sip`},
		{"share of a range", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:10000-10099"
to = "203.0.113.5"
use = "voip"
source_port = "same"
share = "sip"
`, `testdata/config.toml:10:15: source_port: "same" is several ports, and share is of one
    source_port = "same"
                  ^
    write the one port that the clients share`},
		{"share for tcp", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
tcp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
share = "sip"
inbound = "127.0.0.1:5080"
`, `testdata/config.toml:9:1: share is for udp forwards; this is tcp
    share = "sip"
    ^
    write udp instead of tcp, or remove the line
testdata/config.toml:10:1: inbound is for udp forwards; this is tcp
    inbound = "127.0.0.1:5080"
    ^
    write udp instead of tcp, or remove the line`},
		{"inbound without share", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
use = "voip"
source_port = 5060
inbound = "127.0.0.1:5080"
inbound_from = "203.0.113.0/24"
`, `testdata/config.toml:11:1: inbound does nothing without share: who a call is for, only SIP tells
    inbound = "127.0.0.1:5080"
    ^
    add share = "sip", or remove the line
testdata/config.toml:12:1: inbound_from does nothing without share: who a call is for, only SIP tells
    inbound_from = "203.0.113.0/24"
    ^
    add share = "sip", or remove the line`},
		{"inbound without port", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
use = "voip"
source_port = 5060
share = "sip"
inbound = "127.0.0.1"
`, `testdata/config.toml:12:11: inbound: "127.0.0.1" is no address with port
    inbound = "127.0.0.1"
              ^
    add the port: "127.0.0.1:5060"`},
		{"inbound of a port", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
use = "voip"
source_port = 5060
share = "sip"
inbound = "5080"
`, `testdata/config.toml:12:11: inbound: "5080" is no address with port
    inbound = "5080"
              ^
    add the address: "127.0.0.1:5080"`},
		{"inbound to a name", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
use = "voip"
source_port = 5060
share = "sip"
inbound = "pbx.example:5080"
`, `testdata/config.toml:12:11: inbound: "pbx.example:5080" is no address with port
    inbound = "pbx.example:5080"
              ^
    write "127.0.0.1:5080" or "[::1]:5080"; names are not resolved here`},
		{"inbound to everybody", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
use = "voip"
source_port = 5060
share = "sip"
inbound = "0.0.0.0:5080"
`, `testdata/config.toml:12:11: inbound: nobody can be called at 0.0.0.0:5080
    inbound = "0.0.0.0:5080"
              ^
    write address and port of the telephone system`},
		{"inbound to the listener", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
use = "voip"
source_port = 5060
share = "sip"
inbound = "127.0.0.1:5060"
`, `testdata/config.toml:12:11: inbound: 127.0.0.1:5060 is this listener itself
    inbound = "127.0.0.1:5060"
              ^
    write address and port of the telephone system`},
		{"inbound of the other family", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
use = "voip"
source_port = 5060
share = "sip"
inbound = "[::1]:5080"
`, `testdata/config.toml:12:11: inbound: [::1]:5080 cannot be reached from 127.0.0.1:5060, which has no IPv6 address
    inbound = "[::1]:5080"
              ^
    let the listener have an IPv6 address too`},
		{"inbound_from of the other family", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
use = "voip"
source_port = 5060
share = "sip"
inbound_from = ["203.0.113.0/24", "2001:db8:5::/48"]
`, `testdata/config.toml:12:35: inbound_from: "voip" has no IPv6 address, so nothing arrives from 2001:db8:5::/48
    inbound_from = ["203.0.113.0/24", "2001:db8:5::/48"]
                                      ^
    remove it, or name a source that has one`},
		{"inbound_from with bits beyond", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
use = "voip"
source_port = 5060
share = "sip"
inbound_from = "203.0.113.5/24"
`, `testdata/config.toml:12:16: inbound_from: "203.0.113.5/24" has bits beyond its length
    inbound_from = "203.0.113.5/24"
                   ^
    write "203.0.113.0/24" for the network, or "203.0.113.5" for the address`},
		{"dscp of a word", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
dscp = "EF"
`, `testdata/config.toml:9:8: dscp: "EF" is not known
    dscp = "EF"
           ^
    did you mean "ef"?`},
		{"dscp of another word", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
dscp = "expedited"
`, `testdata/config.toml:9:8: dscp: "expedited" is not known
    dscp = "expedited"
           ^
    write "ef", "cs0" to "cs7", "af11" to "af43", or a number from 0 to 63`},
		{"dscp in quotes", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
dscp = "46"
`, `testdata/config.toml:9:8: dscp: "46" is not known
    dscp = "46"
           ^
    write it without quotes: 46`},
		{"dscp of a TOS byte", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
dscp = 184
`, `testdata/config.toml:9:8: dscp: 184 is not between 0 and 63
    dscp = 184
           ^`},
		{"dscp for tcp", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
few = { ip = "198.51.100.31", ports = "10000-10050" }
[[listen]]
tcp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
dscp = "ef"
`, `testdata/config.toml:9:1: dscp is for mixed, socks and udp listeners; this is tcp
    dscp = "ef"
    ^
    remove it`},
	}
}
