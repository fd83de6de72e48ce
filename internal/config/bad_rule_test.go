package config

// badRule is files with a mistake, and what they are told.
func badRule() []badFile {
	return []badFile{
		{"neither use nor map", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = "a.example"
`, `testdata/config.toml:4:3: the rule decides nothing: it has no use and no map
    [[rules]]
      ^
    write use = "NAME"; "kernel" lets the routing table choose, "deny" refuses`},
		{"use and map", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
use = "wan"
[rules.map]
"a.example" = "wan"
`, `testdata/config.toml:5:1: a rule has a use or a map; this one has both
    use = "wan"
    ^
    write a rule of its own below this one, or remove one of the two`},
		{"empty map", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
[rules.map]
`, `testdata/config.toml:5:8: the map is empty, so the rule never matches
    [rules.map]
           ^
    write "203.0.113.0/24" = "NAME"`},
		{"map is text", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
map = "wan"
`, `testdata/config.toml:5:7: map: want a table: [rules.map], got text
    map = "wan"
          ^`},
		{"empty to", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = []
use = "wan"
`, `testdata/config.toml:5:6: to is an empty list
    to = []
         ^
    write an element, or leave the key out`},
		{"URL", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = "https://a.example/x"
use = "wan"
`, `testdata/config.toml:5:6: to: "https://a.example/x" is no name, address or prefix
    to = "https://a.example/x"
         ^
    write the host alone: "a.example"`},
		{"name with port", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = "a.example:443"
use = "wan"
`, `testdata/config.toml:5:6: to: "a.example:443" is no name, address or prefix
    to = "a.example:443"
         ^
    write "a.example", and in the rule port = 443`},
		{"address with port", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = "203.0.113.5:443"
use = "wan"
`, `testdata/config.toml:5:6: to: "203.0.113.5:443" is no name, address or prefix
    to = "203.0.113.5:443"
         ^
    write "203.0.113.5", and in the rule port = 443`},
		{"two in one string", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = "a.example, b.example"
use = "wan"
`, `testdata/config.toml:5:6: to: "a.example, b.example" is no name, address or prefix
    to = "a.example, b.example"
         ^
    write a list: ["...", "..."]`},
		{"star", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = "*"
use = "wan"
`, "testdata/config.toml:5:6: to: \"*\" is no name, address or prefix\n    to = \"*\"\n         ^\n    for every destination leave `to` out"},
		{"range", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = "203.0.113.5-203.0.113.9"
use = "wan"
`, `testdata/config.toml:5:6: to: "203.0.113.5-203.0.113.9" is no name, address or prefix
    to = "203.0.113.5-203.0.113.9"
         ^
    a destination is no range: write prefixes, ["203.0.113.5/...", ...]`},
		{"host bits", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = ["a.example", "203.0.113.5/24"]
use = "wan"
`, `testdata/config.toml:5:20: to: "203.0.113.5/24" has bits beyond its length
    to = ["a.example", "203.0.113.5/24"]
                       ^
    write "203.0.113.0/24" for the network, or "203.0.113.5" for the address`},
		{"bad address", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = "203.0.113.256"
use = "wan"
`, `testdata/config.toml:5:6: to: "203.0.113.256" is not an address
    to = "203.0.113.256"
         ^
    an IPv4 address is four numbers from 0 to 255 without leading zeros`},
		{"short address", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = "10.1"
use = "wan"
`, `testdata/config.toml:5:6: to: "10.1" is not an address
    to = "10.1"
         ^
    an IPv4 address is four numbers from 0 to 255 without leading zeros`},
		{"bad prefix length", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = "203.0.113.0/33"
use = "wan"
`, `testdata/config.toml:5:6: to: "203.0.113.0/33" is not a prefix
    to = "203.0.113.0/33"
         ^
    a prefix is an address, a slash and a length: "192.0.2.0/24", "2001:db8::/32"`},
		{"integer in to", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = 5
use = "wan"
`, `testdata/config.toml:5:6: to: want a name, a pattern ("*.a.example"), an address or a prefix in quotes, or a list of them, got an integer
    to = 5
         ^`},
		{"port out of range", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
port = 70000
use = "wan"
`, `testdata/config.toml:5:8: port: 70000 is not between 1 and 65535
    port = 70000
           ^`},
		{"port zero", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
port = [25, 0]
use = "wan"
`, `testdata/config.toml:5:13: port: 0 is not between 1 and 65535
    port = [25, 0]
                ^`},
		{"ports reversed", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
port = "588-587"
use = "wan"
`, `testdata/config.toml:5:8: port: "588-587" is reversed
    port = "588-587"
           ^
    write "587-588"`},
		{"ports in one string", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
port = "25,465"
use = "wan"
`, `testdata/config.toml:5:8: port: "25,465" is no port and no range of ports
    port = "25,465"
           ^
    write a list: [25, 465, "587-588"]`},
		{"port by name", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
port = "smtp"
use = "wan"
`, `testdata/config.toml:5:8: port: "smtp" is no port and no range of ports
    port = "smtp"
           ^
    ports are numbers from 1 to 65535: 25, or "587-588"`},
		{"protocol", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
protocol = "TCP"
use = "wan"
`, `testdata/config.toml:5:12: protocol: "TCP" is not known
    protocol = "TCP"
               ^
    did you mean "tcp"?`},
		{"protocol unknown", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
protocol = "sctp"
use = "wan"
`, `testdata/config.toml:5:12: protocol: "sctp" is not known
    protocol = "sctp"
               ^
    one of: tcp, udp`},
		{"client by name", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
client = "pc.example"
use = "wan"
`, `testdata/config.toml:5:10: client: "pc.example" is not an address
    client = "pc.example"
             ^
    write an address: "198.51.100.10", "2001:db8::10"`},
		{"client with host bits", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
client = ["10.0.8.0/24", "10.0.8.4/24"]
use = "wan"
`, `testdata/config.toml:5:26: client: "10.0.8.4/24" has bits beyond its length
    client = ["10.0.8.0/24", "10.0.8.4/24"]
                             ^
    write "10.0.8.0/24" for the network, or "10.0.8.4" for the address`},
		{"user is a number", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
user = 7
use = "wan"
`, `testdata/config.toml:5:8: user: want a name in quotes, or a list of them, got an integer
    user = 7
           ^`},
	}
}
