package config

// badProbe is files with a mistake in the probe of a source, and what they are told.
func badProbe() []badFile {
	return []badFile{
		{"probe without a port", `default = "x"
[sources]
x = { ip = "198.51.100.10", probe = "203.0.113.1" }
`, `testdata/config.toml:3:37: probe: "203.0.113.1" is no target for tcp
    x = { ip = "198.51.100.10", probe = "203.0.113.1" }
                                        ^
    write "203.0.113.1:443"`},
		{"probe with a number", `default = "x"
[sources]
x = { ip = "198.51.100.10", probe = 443 }
`, `testdata/config.toml:3:37: probe: want a target for TCP in quotes ("203.0.113.1:443"), or a table, got an integer
    x = { ip = "198.51.100.10", probe = 443 }
                                        ^`},
		{"probe of nothing", `default = "x"
[sources]
x = { ip = "198.51.100.10", probe = { every = "5s" } }
`, `testdata/config.toml:3:29: probe: nothing says what is to be reached
    x = { ip = "198.51.100.10", probe = { every = "5s" } }
                                ^
    write tcp = "203.0.113.1:443", or http, icmp or dns`},
		{"probe of two kinds", `default = "x"
[sources]
x = { ip = "198.51.100.10", probe = { tcp = "203.0.113.1:443", icmp = "203.0.113.1" } }
`, `testdata/config.toml:3:64: probe: tcp and icmp stand beside each other
    x = { ip = "198.51.100.10", probe = { tcp = "203.0.113.1:443", icmp = "203.0.113.1" } }
                                                                   ^
    leave one of them out`},
		{"probe with an unknown key", `default = "x"
[sources]
x = { ip = "198.51.100.10", probe = { tpc = "203.0.113.1:443" } }
`, `testdata/config.toml:3:29: probe: nothing says what is to be reached
    x = { ip = "198.51.100.10", probe = { tpc = "203.0.113.1:443" } }
                                ^
    write tcp = "203.0.113.1:443", or http, icmp or dns
testdata/config.toml:3:39: the probe has no key "tpc"
    x = { ip = "198.51.100.10", probe = { tpc = "203.0.113.1:443" } }
                                          ^
    did you mean "tcp"?`},
		{"probe of the wrong family", `default = "x"
[sources]
x = { ip = "198.51.100.10", probe = "[2001:db8::1]:443" }
`, `testdata/config.toml:3:37: probe: the target 2001:db8::1 is IPv6, and the source "x" has no such address
    x = { ip = "198.51.100.10", probe = "[2001:db8::1]:443" }
                                        ^`},
		{"probe of one family twice", `default = "x"
[sources]
x = { ip = "198.51.100.10", probe = ["203.0.113.1:443", "203.0.113.2:443"] }
`, `testdata/config.toml:3:57: probe: a second IPv4 target; there is one for each family
    x = { ip = "198.51.100.10", probe = ["203.0.113.1:443", "203.0.113.2:443"] }
                                                            ^`},
		{"probe of a name and an address", `default = "x"
[sources]
x = { ip = "198.51.100.10", probe = ["www.example:443", "203.0.113.2:443"] }
`, `testdata/config.toml:3:38: probe: "www.example:443" is a name, and so the target of both families
    x = { ip = "198.51.100.10", probe = ["www.example:443", "203.0.113.2:443"] }
                                         ^
    leave the others out`},
		{"probe of this host", `default = "x"
[sources]
x = { ip = "198.51.100.10", probe = "127.0.0.1:443" }
`, `testdata/config.toml:3:37: probe: 127.0.0.1 says nothing about the source
    x = { ip = "198.51.100.10", probe = "127.0.0.1:443" }
                                        ^
    name a host that is reached by the way that is to be tested`},
		{"http probe without a scheme", `default = "x"
[sources]
x = { ip = "198.51.100.10", probe = { http = "203.0.113.1/health" } }
`, `testdata/config.toml:3:46: probe: "203.0.113.1/health" is no target for http
    x = { ip = "198.51.100.10", probe = { http = "203.0.113.1/health" } }
                                                 ^
    write "http://203.0.113.1/health"`},
		{"icmp probe with a port", `default = "x"
[sources]
x = { ip = "198.51.100.10", probe = { icmp = "203.0.113.1:443" } }
`, `testdata/config.toml:3:46: probe: "203.0.113.1:443" is no target for icmp
    x = { ip = "198.51.100.10", probe = { icmp = "203.0.113.1:443" } }
                                                 ^
    write "203.0.113.1"`},
		{"dns probe without a server", `default = "x"
[sources]
x = { ip = "198.51.100.10", probe = { dns = "www.example" } }
`, `testdata/config.toml:3:45: probe: "www.example" is no target for dns
    x = { ip = "198.51.100.10", probe = { dns = "www.example" } }
                                                ^
    write "www.example@203.0.113.53"`},
		{"dns probe at a name", `default = "x"
[sources]
x = { ip = "198.51.100.10", probe = { dns = "www.example@dns.example" } }
`, `testdata/config.toml:3:45: probe: "www.example@dns.example" is no target for dns
    x = { ip = "198.51.100.10", probe = { dns = "www.example@dns.example" } }
                                                ^
    write "www.example@203.0.113.53"`},
		{"probe too often", `default = "x"
[sources]
x = { ip = "198.51.100.10", probe = { tcp = "203.0.113.1:443", every = "10ms" } }
`, `testdata/config.toml:3:72: every: 10ms is too short; the least is 1s
    x = { ip = "198.51.100.10", probe = { tcp = "203.0.113.1:443", every = "10ms" } }
                                                                           ^`},
		{"probe slower than its turn", `default = "x"
[sources]
x = { ip = "198.51.100.10", probe = { tcp = "203.0.113.1:443", every = "2s", timeout = "3s" } }
`, `testdata/config.toml:3:88: timeout: 3s is longer than it is from one test to the next, 2s
    x = { ip = "198.51.100.10", probe = { tcp = "203.0.113.1:443", every = "2s", timeout = "3s" } }
                                                                                           ^`},
		{"probe that never falls", `default = "x"
[sources]
x = { ip = "198.51.100.10", probe = { tcp = "203.0.113.1:443", fall = 0 } }
`, `testdata/config.toml:3:71: fall: 0 is not between 1 and 1000
    x = { ip = "198.51.100.10", probe = { tcp = "203.0.113.1:443", fall = 0 } }
                                                                          ^`},
	}
}
