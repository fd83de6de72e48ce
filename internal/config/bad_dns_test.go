package config

// badDNS is files with a mistake in [dns], and what they are told.
func badDNS() []badFile {
	return []badFile{
		{"name server by name", `default = "kernel"
[dns]
servers = ["dns.example"]
`, `testdata/config.toml:3:12: servers: "dns.example" is not the address of a name server
    servers = ["dns.example"]
               ^
    write "203.0.113.53", "203.0.113.53:53", "2001:db8::53" or "[2001:db8::53]:53"`},
		{"name server with a bad port", `default = "kernel"
[dns]
servers = ["203.0.113.53", "203.0.113.54:0"]
`, `testdata/config.toml:3:28: servers: "203.0.113.54:0" is not the address of a name server
    servers = ["203.0.113.53", "203.0.113.54:0"]
                               ^
    write "203.0.113.53", "203.0.113.53:53", "2001:db8::53" or "[2001:db8::53]:53"`},
		{"name server in IPv6 without brackets", `default = "kernel"
[dns]
servers = "2001:db8::53:x"
`, `testdata/config.toml:3:11: servers: "2001:db8::53:x" is not the address of a name server
    servers = "2001:db8::53:x"
              ^
    write "203.0.113.53", "203.0.113.53:53", "2001:db8::53" or "[2001:db8::53]:53"`},
		{"name server with a zone", `default = "kernel"
[dns]
servers = "[fe80::53%eth0]:53"
`, `testdata/config.toml:3:11: servers: "[fe80::53%eth0]:53" is not the address of a name server
    servers = "[fe80::53%eth0]:53"
              ^
    write "203.0.113.53", "203.0.113.53:53", "2001:db8::53" or "[2001:db8::53]:53"`},
		{"any address as name server", `default = "kernel"
[dns]
servers = ["0.0.0.0"]
`, `testdata/config.toml:3:12: servers: "0.0.0.0" is not the address of a name server
    servers = ["0.0.0.0"]
               ^
    write "203.0.113.53", "203.0.113.53:53", "2001:db8::53" or "[2001:db8::53]:53"`},
		{"system beside an address", `default = "kernel"
[dns]
servers = ["system", "203.0.113.53"]
`, `testdata/config.toml:3:12: servers: "system" stands beside addresses
    servers = ["system", "203.0.113.53"]
               ^
    write the addresses alone, or "system" alone`},
		{"no name server", `default = "kernel"
[dns]
servers = []
`, `testdata/config.toml:3:11: servers is an empty list
    servers = []
              ^
    write an element, or leave the key out`},
		{"short time for an answer", `default = "kernel"
[dns]
timeout = "1ms"
`, `testdata/config.toml:3:11: timeout: 1ms is too short; the least is 100ms
    timeout = "1ms"
              ^`},
		{"negative cache", `default = "kernel"
[dns]
cache = -1
`, `testdata/config.toml:3:9: cache: -1 is not between 0 and 10000000
    cache = -1
            ^`},
		{"unknown key of dns", `default = "kernel"
[dns]
server = "203.0.113.53"
`, `testdata/config.toml:3:1: [dns] has no key "server"
    server = "203.0.113.53"
    ^
    did you mean "servers"?`},
	}
}
