package config

// badPool is files with a mistake, and what they are told.
func badPool() []badFile {
	return []badFile{
		{"unknown name", `default = "wna"
[sources]
wan = "198.51.100.10"
`, `testdata/config.toml:1:11: default: no source or pool is named "wna"
    default = "wna"
              ^
    did you mean "wan"?`},
		{"unknown name, none near", `default = "office"
[sources]
wan = "198.51.100.10"
`, `testdata/config.toml:1:11: default: no source or pool is named "office"
    default = "office"
              ^
    known names: wan, kernel, same, deny`},
		{"bad literal", `default = "198.51.100.256"
`, `testdata/config.toml:1:11: default: "198.51.100.256" is not an address
    default = "198.51.100.256"
              ^
    an IPv4 address is four numbers from 0 to 255 without leading zeros`},
		{"reserved for later", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[rules]]
use = "client"
`, `testdata/config.toml:5:7: use: "client" is a reserved word that means nothing yet
    use = "client"
          ^
    known names: wan, kernel, same, deny`},
		{"prefix as a literal", `default = "2001:db8::/64"
`, `testdata/config.toml:1:11: default: "2001:db8::/64" is not an address
    default = "2001:db8::/64"
              ^
    write an address: "198.51.100.10", "2001:db8::10"`},
		{"pool and source of one name", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
wan = { of = ["wan"] }
`, `testdata/config.toml:5:1: "wan" is a source already, in line 3
    wan = { of = ["wan"] }
    ^
    sources and pools share one name space: choose another name`},
		{"pool without members", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
web = { pick = "random" }
`, `testdata/config.toml:5:1: pool "web" has no members
    web = { pick = "random" }
    ^
    write of = ["NAME", "NAME"]`},
		{"pool with an empty list", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
web = { of = [] }
`, `testdata/config.toml:5:14: of is an empty list
    web = { of = [] }
                 ^
    write an element, or leave the key out`},
		{"pool is a list", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
web = ["wan"]
`, `testdata/config.toml:5:7: web: want a table: { of = ["NAME", "NAME"] }, got a list
    web = ["wan"]
          ^`},
		{"pool has itself", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
web = { of = ["wan", "web"] }
`, `testdata/config.toml:5:22: pool "web" has itself as a member
    web = { of = ["wan", "web"] }
                         ^
    known sources: wan`},
		{"pool has a pool", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
safe = { of = ["web"] }
web = { of = ["wan"] }
`, `testdata/config.toml:5:16: of: the members of a pool are sources; "web" is none
    safe = { of = ["web"] }
                   ^
    known sources: wan`},
		{"pool has the kernel", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
web = { of = ["wan", "kernel"] }
`, `testdata/config.toml:5:22: of: the members of a pool are sources; "kernel" is none
    web = { of = ["wan", "kernel"] }
                         ^
    known sources: wan`},
		{"pool has a stranger", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
web = { of = ["wan", "wann"] }
`, `testdata/config.toml:5:22: of: no source is named "wann"
    web = { of = ["wan", "wann"] }
                         ^
    did you mean "wan"?`},
		{"pool has one twice", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
web = { of = ["wan", "wan"] }
`, `testdata/config.toml:5:22: of: "wan" is a member twice
    web = { of = ["wan", "wan"] }
                         ^
    remove it; to give one a larger share, use weights`},
		{"unknown pick", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
web = { of = ["wan"], pick = "roundrobin" }
`, `testdata/config.toml:5:30: pick: "roundrobin" is not known
    web = { of = ["wan"], pick = "roundrobin" }
                                 ^
    did you mean "round-robin"?`},
		{"unknown pick, none near", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
web = { of = ["wan"], pick = "hash" }
`, `testdata/config.toml:5:30: pick: "hash" is not known
    web = { of = ["wan"], pick = "hash" }
                                 ^
    one of: first-up, round-robin, random, sticky, least-connections`},
		{"unknown by", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
web = { of = ["wan"], pick = "sticky", by = ["client", "hosts"] }
`, `testdata/config.toml:5:56: by: "hosts" is not known
    web = { of = ["wan"], pick = "sticky", by = ["client", "hosts"] }
                                                           ^
    did you mean "host"?`},
		{"by without sticky", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
web = { of = ["wan"], by = "client", for = "5m" }
`, `testdata/config.toml:5:23: by does nothing with pick = "first-up"
    web = { of = ["wan"], by = "client", for = "5m" }
                          ^
    write pick = "sticky", or remove the line
testdata/config.toml:5:38: for does nothing with pick = "first-up"
    web = { of = ["wan"], by = "client", for = "5m" }
                                         ^
    write pick = "sticky", or remove the line`},
		{"too few weights", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
web = { of = ["wan", "198.51.100.11"], pick = "random", weights = [1] }
`, `testdata/config.toml:5:67: weights: there are 1 for 2 members
    web = { of = ["wan", "198.51.100.11"], pick = "random", weights = [1] }
                                                                      ^
    write one weight for each member, in the order of of`},
		{"weight of zero", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
web = { of = ["wan", "198.51.100.11"], pick = "random", weights = [1, 0] }
`, `testdata/config.toml:5:71: weights: 0 is not between 1 and 1000000
    web = { of = ["wan", "198.51.100.11"], pick = "random", weights = [1, 0] }
                                                                          ^`},
		{"weights of text", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
web = { of = ["wan"], pick = "random", weights = ["1"] }
`, `testdata/config.toml:5:51: weights: want a list of integers, got text
    web = { of = ["wan"], pick = "random", weights = ["1"] }
                                                      ^
    write it without quotes: 1`},
		{"weights with first-up", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[pools]
web = { of = ["wan"], weights = [1] }
`, `testdata/config.toml:5:23: weights does nothing with pick = "first-up"
    web = { of = ["wan"], weights = [1] }
                          ^
    choose another pick, or remove the line`},
	}
}
