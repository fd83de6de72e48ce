package config

// badWay is files that say wrongly by which way flows leave, and what they are told.
func badWay() []badFile {
	return []badFile{
		{"device of a prefix's form", `default = "lte"
[sources]
lte = { ip = "192.0.2.7", device = "wwan0/1" }
`, `testdata/config.toml:3:36: device: "wwan0/1" cannot name an interface
    lte = { ip = "192.0.2.7", device = "wwan0/1" }
                                       ^
    ip link shows their names`},
		{"long device", `default = "lte"
[sources]
lte = { ip = "192.0.2.7", device = "a-name-of-16-byt" }
`, `testdata/config.toml:3:36: device: "a-name-of-16-byt" cannot name an interface
    lte = { ip = "192.0.2.7", device = "a-name-of-16-byt" }
                                       ^
    ip link shows their names`},
		{"empty device", `default = "lte"
[sources]
lte = { ip = "192.0.2.7", device = "" }
`, `testdata/config.toml:3:36: device is empty
    lte = { ip = "192.0.2.7", device = "" }
                                       ^
    write a value, or leave the key out`},
		{"mark in quotes", `default = "lte"
[sources]
lte = { ip = "192.0.2.7", mark = "7" }
`, `testdata/config.toml:3:34: mark: want an integer, got text
    lte = { ip = "192.0.2.7", mark = "7" }
                                     ^
    write it without quotes: 7`},
		{"mark zero", `default = "lte"
[sources]
lte = { ip = "192.0.2.7", mark = 0 }
`, `testdata/config.toml:3:34: mark: 0 is not between 1 and 4294967295
    lte = { ip = "192.0.2.7", mark = 0 }
                                     ^`},
		{"large mark", `default = "lte"
[sources]
lte = { ip = "192.0.2.7", mark = 0x100000000 }
`, `testdata/config.toml:3:34: mark: 0x100000000 is not between 1 and 4294967295
    lte = { ip = "192.0.2.7", mark = 0x100000000 }
                                     ^`},
		{"source named same", `default = "kernel"
[sources]
same = "192.0.2.7"
`, `testdata/config.toml:3:1: "same" is a reserved word
    same = "192.0.2.7"
    ^
    choose another name`},
		{"same in a pool", `default = "web"
[sources]
wan = "198.51.100.10"
[pools]
web = { of = ["wan", "same"] }
`, `testdata/config.toml:5:22: of: the members of a pool are sources; "same" is none
    web = { of = ["wan", "same"] }
                         ^
    known sources: wan`},
		{"same with a fixed port", `default = "deny"
[[rules]]
use = "same"
source_port = 5060
`, `testdata/config.toml:4:15: source_port: "same" is not one address, and so no fixed address and port
    source_port = 5060
                  ^
    name a source that is an address: with a port it is one fixed sender`},
		{"same for an attachment", `default = "deny"
[[attach]]
service = "a.service"
use = "same"
`, `testdata/config.toml:4:7: use: no client connects to anything here, so "same" is no address
    use = "same"
          ^
    name a source`},
		{"same for a proxy", `default = "deny"
[[listen]]
mixed = "127.0.0.1:1080"
use = "same"
`, `testdata/config.toml:4:1: use is for tcp and udp forwards; this is mixed
    use = "same"
    ^
    write a rule: [[rules]] listener = "NAME OF THE LISTENER", use = "same"`},
	}
}
