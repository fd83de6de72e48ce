package config

// badLimit is files whose limits are wrong, and what they are told.
func badLimit() []badFile {
	return []badFile{
		{"number alone", `default = "kernel"
[limits]
per_client = 500
`, `testdata/config.toml:3:14: per_client: want a table: { connections = 500, new_per_second = 50 }, got an integer
    per_client = 500
                 ^
    write { connections = 500 }`},
		{"unknown key of a bound", `default = "kernel"
[limits]
per_user = { connection = 500 }
`, `testdata/config.toml:3:14: [limits.per_user] has no key "connection"
    per_user = { connection = 500 }
                 ^
    did you mean "connections"?`},
		{"negative bound", `default = "kernel"
[limits.per_source]
connections = -1
`, `testdata/config.toml:3:15: connections: -1 is not between 1 and 2147483647
    connections = -1
                  ^`},
		{"no new ones", `default = "kernel"
[limits.per_source]
new_per_second = 0
`, `testdata/config.toml:3:18: new_per_second: 0 is not between 1 and 1000000
    new_per_second = 0
                     ^`},
		{"bound of nothing", `default = "kernel"
[limits]
per_client = {}
`, `testdata/config.toml:3:1: per_client says no limit
    per_client = {}
    ^
    write { connections = 500 }, or remove it`},
		{"limit of a source as text", `default = "wan"
[sources]
wan = { ip = "198.51.100.10", limit = "500" }
`, `testdata/config.toml:3:39: limit: want an integer, got text
    wan = { ip = "198.51.100.10", limit = "500" }
                                          ^
    write it without quotes: 500`},
		{"limit zero", `default = "wan"
[sources]
wan = { ip = "198.51.100.10", limit = 0 }
`, `testdata/config.toml:3:39: limit: 0 is not between 1 and 2147483647
    wan = { ip = "198.51.100.10", limit = 0 }
                                          ^`},
		{"too many a second", `default = "wan"
[sources]
wan = { ip = "198.51.100.10", new_per_second = 2000000 }
`, `testdata/config.toml:3:48: new_per_second: 2000000 is not between 1 and 1000000
    wan = { ip = "198.51.100.10", new_per_second = 2000000 }
                                                   ^`},
	}
}
