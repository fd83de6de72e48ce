package config

// badMap is files with a mistake, and what they are told.
func badMap() []badFile {
	return []badFile{
		{"unknown use", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = "a.example"
use = "wan2"
`, `testdata/config.toml:6:7: use: no source or pool is named "wan2"
    use = "wan2"
          ^
    did you mean "wan"?`},
		{"unknown use in a map", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
[rules.map]
"a.example" = "denny"
`, `testdata/config.toml:6:15: map: no source or pool is named "denny"
    "a.example" = "denny"
                  ^
    did you mean "deny"?`},
		{"list of uses", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
use = ["wan"]
`, `testdata/config.toml:5:7: use: want the name of a source or pool, an address, "kernel", "same" or "deny", got a list
    use = ["wan"]
          ^`},
		{"same key in a map", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
[rules.map]
"a.example" = "wan"
"A.example." = "deny"
`, `testdata/config.toml:7:1: map: "a.example" stands in line 6 already
    "A.example." = "deny"
    ^
    remove one of the two`},
		{"host bits in a map", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
[rules.map]
"10.0.0.1/8" = "deny"
`, `testdata/config.toml:6:1: map: "10.0.0.1/8" has bits beyond its length
    "10.0.0.1/8" = "deny"
    ^
    write "10.0.0.0/8" for the network, or "10.0.0.1" for the address`},
		{"table in a map", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
[rules.map]
"a.example" = {}
`, `testdata/config.toml:6:15: map: want the name of a source or pool, an address, "kernel", "same" or "deny", got a table
    "a.example" = {}
                  ^`},
		{"two rules of one name", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
name = "x"
to = "a.example"
use = "wan"
[[rules]]
name = "x"
use = "wan"
`, `testdata/config.toml:9:8: another rule is named "x", in line 4
    name = "x"
           ^
    choose another name`},
		{"name of another place", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
name = "rule 2"
to = "a.example"
use = "wan"
[[rules]]
use = "wan"
`, `testdata/config.toml:8:3: another rule is named "rule 2", in line 4
    [[rules]]
      ^
    choose another name`},
		{"rule named default", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
name = "default"
use = "wan"
`, `testdata/config.toml:5:8: name: the rule "default" is what no rule matches
    name = "default"
           ^
    choose another name`},
		{"unknown key", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
ports = 25
use = "wan"
`, `testdata/config.toml:5:1: [[rules]] has no key "ports"
    ports = 25
    ^
    did you mean "port"?`},
		{"one bracket", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[rules]
use = "wan"
`, `testdata/config.toml:4:2: rules: want a list of tables: [[rules]], got a table
    [rules]
     ^
    double the brackets: [[rules]]`},
		{"wrong name of the list", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rule]]
use = "wan"
`, `testdata/config.toml:4:3: the file has no key "rule"
    [[rule]]
      ^
    did you mean "rules"?`},
		{"source_port in quotes", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
use = "wan"
source_port = "5060"
`, `testdata/config.toml:6:15: source_port: want a port as an integer, got text
    source_port = "5060"
                  ^
    write it without quotes: 5060`},
		{"source_port of the kernel", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
use = "kernel"
source_port = 5060
`, `testdata/config.toml:6:15: source_port: "kernel" is not one address, and so no fixed address and port
    source_port = 5060
                  ^
    name a source that is an address: with a port it is one fixed sender`},
		{"source_port of a prefix", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
crawl = "2001:db8:64::/64"
[[rules]]
use = "crawl"
source_port = 5060
`, `testdata/config.toml:7:15: source_port: "crawl" is not one address, and so no fixed address and port
    source_port = 5060
                  ^
    name a source that is an address: with a port it is one fixed sender`},
		{"source_port of a pool in a map", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
web = { of = ["wan"] }
[[rules]]
source_port = 5060
[rules.map]
"a.example" = "web"
"b.example" = "deny"
`, `testdata/config.toml:7:15: source_port: "web" is not one address, and so no fixed address and port
    source_port = 5060
                  ^
    name a source that is an address: with a port it is one fixed sender`},
		{"source_port outside ports", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
batch = { ip = "198.51.100.64", ports = "40000-44999" }
[[rules]]
use = "batch"
source_port = 5060
`, `testdata/config.toml:7:15: source_port: 5060 is not among the ports of source "batch", 40000-44999
    source_port = 5060
                  ^
    choose one of them, or a source without ports`},
		{"missing list", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = "file:none.txt"
use = "wan"
`, `testdata/config.toml:5:6: to: cannot read testdata/none.txt: no such file or directory
    to = "file:none.txt"
         ^`},
		{"empty list file", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = ["a.example", "file:lists/empty.txt"]
use = "wan"
`, `testdata/config.toml:5:20: to: testdata/lists/empty.txt holds no element
    to = ["a.example", "file:lists/empty.txt"]
                       ^
    write an element a line, or leave the key out`},
		{"mistakes in a list file", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = "file:lists/bad.txt"
use = "wan"
`, `testdata/lists/bad.txt:3:3: to: "10.0.0.1/8" has bits beyond its length
      10.0.0.1/8   # net
      ^
    write "10.0.0.0/8" for the network, or "10.0.0.1" for the address
testdata/lists/bad.txt:4:1: to: "198.51.100.999" is not an address
    198.51.100.999
    ^
    an IPv4 address is four numbers from 0 to 255 without leading zeros`},
		{"mistakes in a list of ports", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
port = "file:lists/ports.txt"
use = "wan"
`, `testdata/lists/ports.txt:2:1: port: 70000 is not between 1 and 65535
    70000
    ^
testdata/lists/ports.txt:4:1: port: "smtp" is no port and no range of ports
    smtp
    ^
    ports are numbers from 1 to 65535: 25, or "587-588"`},
		{"no name of a list", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = "file:"
use = "wan"
`, `testdata/config.toml:5:6: to: the name of the file is missing
    to = "file:"
         ^`},
		{"list is a directory", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
to = "file:lists"
use = "wan"
`, `testdata/config.toml:5:6: to: cannot read testdata/lists: is a directory
    to = "file:lists"
         ^`},
	}
}
