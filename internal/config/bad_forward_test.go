package config

// badForward is files with a mistake in the keys of forwards, and what they are told.
func badForward() []badFile {
	return []badFile{
		{"forward without target", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[listen]]
tcp = "127.0.0.1:2525"
`, `testdata/config.toml:4:3: the tcp forward does not say where to
    [[listen]]
      ^
    write to = "HOST:PORT"`},
		{"forwards in a circle", `default = "kernel"
[[listen]]
tcp = "127.0.0.1:2001"
to = "127.0.0.1:2002"
[[listen]]
tcp = ":2002"
to = "127.0.0.1:2003"
[[listen]]
tcp = "127.0.0.1:2003"
to = "127.0.0.1:2001"
[[listen]]
tcp = "127.0.0.1:2004"
to = "127.0.0.1:2001"
`, `testdata/config.toml:4:6: to: 127.0.0.1:2002 leads back to this listener, through other forwards
    to = "127.0.0.1:2002"
         ^
    write the address of the server
testdata/config.toml:7:6: to: 127.0.0.1:2003 leads back to this listener, through other forwards
    to = "127.0.0.1:2003"
         ^
    write the address of the server
testdata/config.toml:10:6: to: 127.0.0.1:2001 leads back to this listener, through other forwards
    to = "127.0.0.1:2001"
         ^
    write the address of the server`},
		{"target without port", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[listen]]
tcp = "127.0.0.1:2525"
to = "a.example"
`, `testdata/config.toml:6:6: to: "a.example" is not host:port
    to = "a.example"
         ^
    add the port: "a.example:PORT"`},
		{"IPv6 target without port", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[listen]]
tcp = "127.0.0.1:2525"
to = "2001:db8::25"
`, `testdata/config.toml:6:6: to: "2001:db8::25" is not host:port
    to = "2001:db8::25"
         ^
    add the port: "[2001:db8::25]:PORT"`},
		{"IPv6 target without brackets", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[listen]]
tcp = "127.0.0.1:2525"
to = "2001:db8::zz:25"
`, `testdata/config.toml:6:6: to: "2001:db8::zz:25" is not host:port
    to = "2001:db8::zz:25"
         ^
    put IPv6 addresses in brackets: "[2001:db8::1]:25"`},
		{"target with the name of a port", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[listen]]
tcp = "127.0.0.1:2525"
to = "a.example:smtp"
`, `testdata/config.toml:6:6: to: "smtp" is no port
    to = "a.example:smtp"
         ^
    write a number from 1 to 65535`},
		{"bad target", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[listen]]
tcp = "127.0.0.1:2525"
to = "a..example:25"
`, `testdata/config.toml:6:6: to: host "a..example": neither a host name nor an address: it has an empty label
    to = "a..example:25"
         ^`},
		{"itself", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[listen]]
tcp = "127.0.0.1:2525"
to = "127.0.0.1:2525"
`, `testdata/config.toml:6:6: to: 127.0.0.1:2525 is this listener itself
    to = "127.0.0.1:2525"
         ^
    write the address of the server`},
		{"forward that denies", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[listen]]
tcp = "127.0.0.1:2525"
to = "a.example:25"
use = "deny"
`, `testdata/config.toml:7:7: use: a forward that refuses everything is no use
    use = "deny"
          ^
    remove the listener`},
		{"source without the family", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
voip = "198.51.100.30"
[[listen]]
udp = "127.0.0.1:5060"
to = "[2001:db8::5]:5060"
use = "voip"
`, `testdata/config.toml:8:7: use: "voip" has no IPv6 address, and the target 2001:db8::5 is one
    use = "voip"
          ^
    name a source that has one`},
		{"source_port without use", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
source_port = 5060
`, `testdata/config.toml:7:1: source_port needs a use: the address that has the port
    source_port = 5060
    ^
    add use = "NAME", or write source_port in a rule`},
		{"source_port of a range", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
batch = "198.51.100.64-198.51.100.95"
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
use = "batch"
source_port = 5060
`, `testdata/config.toml:9:15: source_port: "batch" is not one address, and so no fixed address and port
    source_port = 5060
                  ^
    name a source that is an address: with a port it is one fixed sender`},
		{"source_port of a word", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
use = "wan"
source_port = "5060"
`, `testdata/config.toml:8:15: source_port: want a port as an integer, or "same", got text
    source_port = "5060"
                  ^
    write it without quotes: 5060`},
		{"sends from where it listens", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[listen]]
udp = "198.51.100.10:5060"
to = "203.0.113.5:5060"
use = "wan"
source_port = 5060
`, `testdata/config.toml:8:15: source_port: 198.51.100.10:5060 is where the listener in line 5 listens, and so no sender
    source_port = 5060
                  ^
    let it listen on another address, such as 127.0.0.1, or on another port`},
		{"TCP sends from a port of the wildcard", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[listen]]
mixed = ":1080"
open = true
[[listen]]
tcp = "127.0.0.1:2525"
to = "203.0.113.5:25"
use = "wan"
source_port = 1080
`, `testdata/config.toml:11:15: source_port: 198.51.100.10:1080 is where the listener in line 5 listens, and so no sender
    source_port = 1080
                  ^
    let it listen on another address, such as 127.0.0.1, or on another port`},
		{"misspelled use", `default = "wan"
[sources]
wan = ["198.51.100.10", "2001:db8::10"]
[[listen]]
udp = "127.0.0.1:5060"
to = "203.0.113.5:5060"
use = "wam"
`, `testdata/config.toml:7:7: use: no source or pool is named "wam"
    use = "wam"
          ^
    did you mean "wan"?`},
	}
}
