package config

// badSource is files with a mistake, and what they are told.
func badSource() []badFile {
	return []badFile{
		{"bad address", `default = "kernel"
[sources]
wan = "198.51.100.300"
`, `testdata/config.toml:3:7: wan: "198.51.100.300" is not an address
    wan = "198.51.100.300"
          ^
    an IPv4 address is four numbers from 0 to 255 without leading zeros`},
		{"leading zero", `default = "kernel"
[sources]
wan = "198.51.100.010"
`, `testdata/config.toml:3:7: wan: "198.51.100.010" is not an address
    wan = "198.51.100.010"
          ^
    an IPv4 address is four numbers from 0 to 255 without leading zeros`},
		{"name instead of address", `default = "kernel"
[sources]
wan = "host.example"
`, `testdata/config.toml:3:7: wan: "host.example" is not an address
    wan = "host.example"
          ^
    write an address: "198.51.100.10", "2001:db8::10"`},
		{"address with port", `default = "kernel"
[sources]
wan = "198.51.100.10:80"
`, `testdata/config.toml:3:7: wan: "198.51.100.10:80" is not an address
    wan = "198.51.100.10:80"
          ^
    no port stands here: write "198.51.100.10"`},
		{"address in brackets", `default = "kernel"
[sources]
wan = "[2001:db8::1]"
`, `testdata/config.toml:3:7: wan: "[2001:db8::1]" is not an address
    wan = "[2001:db8::1]"
          ^
    write "2001:db8::1"`},
		{"two in one string", `default = "kernel"
[sources]
wan = "198.51.100.10, 198.51.100.11"
`, `testdata/config.toml:3:7: wan: "198.51.100.10, 198.51.100.11" is not an address
    wan = "198.51.100.10, 198.51.100.11"
          ^
    write a list: ["...", "..."]`},
		{"zone", `default = "kernel"
[sources]
wan = "fe80::1%eth0"
`, `testdata/config.toml:3:7: wan: an address here has no zone
    wan = "fe80::1%eth0"
          ^
    write "fe80::1"`},
		{"link-local", `default = "kernel"
[sources]
wan = "fe80::1"
`, `testdata/config.toml:3:7: wan: fe80::1 is link-local, and a source names no link
    wan = "fe80::1"
          ^
    use a global or unique local address`},
		{"unspecified", `default = "kernel"
[sources]
wan = "0.0.0.0"
`, `testdata/config.toml:3:7: wan: 0.0.0.0 is no address to send from
    wan = "0.0.0.0"
          ^
    for the routing table's choice, write use = "kernel"`},
		{"multicast", `default = "kernel"
[sources]
wan = "224.0.0.1"
`, `testdata/config.toml:3:7: wan: 224.0.0.1 is no address to send from
    wan = "224.0.0.1"
          ^`},
		{"broadcast", `default = "kernel"
[sources]
wan = "255.255.255.255"
`, `testdata/config.toml:3:7: wan: 255.255.255.255 is no address to send from
    wan = "255.255.255.255"
          ^`},
		{"everything", `default = "kernel"
[sources]
wan = "0.0.0.0/0"
`, `testdata/config.toml:3:7: wan: 0.0.0.0 is no address to send from
    wan = "0.0.0.0/0"
          ^
    for the routing table's choice, write use = "kernel"`},
		{"two of one family", `default = "kernel"
[sources]
wan = ["198.51.100.10", "198.51.100.11"]
`, `testdata/config.toml:3:25: wan: a second IPv4 address; a source has one per family
    wan = ["198.51.100.10", "198.51.100.11"]
                            ^
    make it a source of its own, and a pool of both: [pools] NAME = { of = [...] }`},
		{"two of one family, one mapped", `default = "kernel"
[sources]
wan = ["198.51.100.10", "::ffff:198.51.100.11"]
`, `testdata/config.toml:3:25: wan: a second IPv4 address; a source has one per family
    wan = ["198.51.100.10", "::ffff:198.51.100.11"]
                            ^
    make it a source of its own, and a pool of both: [pools] NAME = { of = [...] }`},
		{"empty list", `default = "kernel"
[sources]
wan = []
`, `testdata/config.toml:3:7: wan is an empty list
    wan = []
          ^
    write an element, or leave the key out`},
		{"empty element", `default = "kernel"
[sources]
wan = ["198.51.100.10", ""]
`, `testdata/config.toml:3:25: wan has an empty element
    wan = ["198.51.100.10", ""]
                            ^
    remove it`},
		{"integer", `default = "kernel"
[sources]
wan = 7
`, `testdata/config.toml:3:7: wan: want an address, a prefix or a range "lo-hi" in quotes, or a list of one address per family, got an integer
    wan = 7
          ^`},
		{"integer in a list", `default = "kernel"
[sources]
wan = ["198.51.100.10", 7]
`, `testdata/config.toml:3:25: wan: want an address, a prefix or a range "lo-hi" in quotes, or a list of one address per family, got an integer
    wan = ["198.51.100.10", 7]
                            ^`},
		{"host bits", `default = "kernel"
[sources]
wan = "198.51.100.10/24"
`, `testdata/config.toml:3:7: wan: "198.51.100.10/24" has bits beyond its length
    wan = "198.51.100.10/24"
          ^
    write "198.51.100.0/24" for the network, or "198.51.100.10" for the address`},
		{"host bits, IPv6", `default = "kernel"
[sources]
crawl = { ip = "2001:db8:64::1/64" }
`, `testdata/config.toml:3:16: ip: "2001:db8:64::1/64" has bits beyond its length
    crawl = { ip = "2001:db8:64::1/64" }
                   ^
    write "2001:db8:64::/64" for the network, or "2001:db8:64::1" for the address`},
		{"netmask", `default = "kernel"
[sources]
wan = "198.51.100.0/255.255.255.0"
`, `testdata/config.toml:3:7: wan: "198.51.100.0/255.255.255.0" is not a prefix
    wan = "198.51.100.0/255.255.255.0"
          ^
    write "198.51.100.0/24"`},
		{"prefix in a list", `default = "kernel"
[sources]
wan = ["198.51.100.10", "2001:db8::/64"]
`, `testdata/config.toml:3:25: wan: a list holds addresses, one per family; "2001:db8::/64" is none
    wan = ["198.51.100.10", "2001:db8::/64"]
                            ^
    make it a source of its own, and a pool of both`},
		{"range reversed", `default = "kernel"
[sources]
batch = "198.51.100.95-198.51.100.64"
`, `testdata/config.toml:3:9: batch: the range "198.51.100.95-198.51.100.64" is reversed
    batch = "198.51.100.95-198.51.100.64"
            ^
    write "198.51.100.64-198.51.100.95"`},
		{"range of two families", `default = "kernel"
[sources]
batch = { ip = "198.51.100.64-2001:db8::1" }
`, `testdata/config.toml:3:16: ip: the range "198.51.100.64-2001:db8::1" mixes IPv4 and IPv6
    batch = { ip = "198.51.100.64-2001:db8::1" }
                   ^
    write one source for each family`},
		{"range cut short", `default = "kernel"
[sources]
batch = "198.51.100.64-95"
`, `testdata/config.toml:3:9: batch: both ends of the range "198.51.100.64-95" have to be addresses
    batch = "198.51.100.64-95"
            ^
    write "198.51.100.64-198.51.100.95"`},
		{"table without ip", `default = "kernel"
[sources]
batch = { ports = "40000-44999" }
`, `testdata/config.toml:3:1: source "batch" has no ip
    batch = { ports = "40000-44999" }
    ^
    write ip = "198.51.100.10", or interface = "ppp0" for whatever address that has`},
		{"interface beside ip", `default = "kernel"
[sources]
dsl = { interface = "ppp0", ip = "198.51.100.64" }
`, `testdata/config.toml:3:9: source "dsl": interface takes whatever address the link has: ip and freebind cannot stand beside it
    dsl = { interface = "ppp0", ip = "198.51.100.64" }
            ^
    leave one of them out`},
		{"interface that is none", `default = "kernel"
[sources]
dsl = { interface = "198.51.100.64/24" }
`, `testdata/config.toml:3:21: interface: "198.51.100.64/24" cannot name an interface
    dsl = { interface = "198.51.100.64/24" }
                        ^
    ip link shows their names`},
		{"interface as a number", `default = "kernel"
[sources]
dsl = { interface = 2 }
`, `testdata/config.toml:3:21: interface: want the name of an interface in quotes, got an integer
    dsl = { interface = 2 }
                        ^`},
		{"unknown key in a table", `default = "kernel"
[sources]
batch = { ip = "198.51.100.64", port = "40000-44999" }
`, `testdata/config.toml:3:33: source "batch" has no key "port"
    batch = { ip = "198.51.100.64", port = "40000-44999" }
                                    ^
    did you mean "ports"?`},
		{"key of a later time", `default = "kernel"
[sources.lte]
ip = "192.0.2.7"
via = "socks5://203.0.113.9:1080"
`, `testdata/config.toml:4:1: source "lte" has no key "via"
    via = "socks5://203.0.113.9:1080"
    ^
    known keys: ip, interface, ports, freebind, device, mark, limit, new_per_second, gateway, hold, probe`},
		{"gateway of another family", `default = "kernel"
[sources]
lte = { ip = "192.0.2.7", gateway = "2001:db8::1" }
`, `testdata/config.toml:3:37: gateway: source "lte" has no IPv6 address, and 2001:db8::1 is one
    lte = { ip = "192.0.2.7", gateway = "2001:db8::1" }
                                        ^
    name a router of that family`},
		{"two gateways of one family", `default = "kernel"
[sources]
lte = { ip = "192.0.2.7", gateway = ["192.0.2.1", "192.0.2.2"] }
`, `testdata/config.toml:3:51: gateway: a second IPv4 address; a source has one gateway per family
    lte = { ip = "192.0.2.7", gateway = ["192.0.2.1", "192.0.2.2"] }
                                                      ^
    leave one of them out`},
		{"gateway that is none", `default = "kernel"
[sources]
lte = { ip = "192.0.2.7", gateway = "0.0.0.0" }
`, `testdata/config.toml:3:37: gateway: 0.0.0.0 is no router
    lte = { ip = "192.0.2.7", gateway = "0.0.0.0" }
                                        ^
    write the address of the router: ip route show default`},
		{"ports reversed", `default = "kernel"
[sources]
batch = { ip = "198.51.100.64", ports = "44999-40000" }
`, `testdata/config.toml:3:41: ports: "44999-40000" is reversed
    batch = { ip = "198.51.100.64", ports = "44999-40000" }
                                            ^
    write "40000-44999"`},
		{"ports with a colon", `default = "kernel"
[sources]
batch = { ip = "198.51.100.64", ports = "40000:44999" }
`, `testdata/config.toml:3:41: ports: "40000:44999" is no port and no range of ports
    batch = { ip = "198.51.100.64", ports = "40000:44999" }
                                            ^
    write "40000-44999"`},
		{"ports too high", `default = "kernel"
[sources]
batch = { ip = "198.51.100.64", ports = "40000-70000" }
`, `testdata/config.toml:3:41: ports: "40000-70000" is no port and no range of ports
    batch = { ip = "198.51.100.64", ports = "40000-70000" }
                                            ^
    ports are numbers from 1 to 65535: 25, or "587-588"`},
		{"ports as a list", `default = "kernel"
[sources]
batch = { ip = "198.51.100.64", ports = [40000, 44999] }
`, `testdata/config.toml:3:41: ports: want a range of ports in quotes ("40000-44999"), got a list
    batch = { ip = "198.51.100.64", ports = [40000, 44999] }
                                            ^`},
		{"freebind in quotes", `default = "kernel"
[sources]
spare = { ip = "198.51.100.64", freebind = "true" }
`, `testdata/config.toml:3:44: freebind: want true or false, without quotes, got text
    spare = { ip = "198.51.100.64", freebind = "true" }
                                               ^
    write it without quotes: true`},
		{"hold without a unit", `default = "kernel"
[sources]
dsl = { ip = "198.51.100.64", hold = 5 }
`, `testdata/config.toml:3:38: hold: want a duration in quotes ("30s", "5m"), got an integer
    dsl = { ip = "198.51.100.64", hold = 5 }
                                         ^
    write hold = "5s" for seconds`},
		{"name with a dot", `default = "kernel"
[sources]
wan.one = "198.51.100.10"
`, `testdata/config.toml:3:1: source "wan": a name has no dot
    wan.one = "198.51.100.10"
    ^
    write wan = "198.51.100.10", or a table with ip`},
		{"name with a space", `default = "kernel"
[sources]
"my wan" = "198.51.100.10"
`, `testdata/config.toml:3:1: "my wan" cannot name a source
    "my wan" = "198.51.100.10"
    ^
    a name has letters, digits, - and _`},
		{"name is an address", `default = "kernel"
[sources]
"198.51.100.10" = "198.51.100.10"
`, `testdata/config.toml:3:1: "198.51.100.10" cannot name a source
    "198.51.100.10" = "198.51.100.10"
    ^
    a name has letters, digits, - and _`},
		{"reserved name", `default = "kernel"
[sources]
kernel = "198.51.100.10"
`, `testdata/config.toml:3:1: "kernel" is a reserved word
    kernel = "198.51.100.10"
    ^
    choose another name`},
		{"sources are no table", `default = "kernel"
sources = "198.51.100.10"
`, `testdata/config.toml:2:11: sources: want a table: [sources], got text
    sources = "198.51.100.10"
              ^`},
	}
}
