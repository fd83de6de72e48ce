package config

// badSyntax is files with a mistake, and what they are told.
func badSyntax() []badFile {
	return []badFile{
		{"empty file", ``, `testdata/config.toml:1:1: the key default is missing: it says where flows leave from that no rule matches
    write default = "NAME" above the first [table]; "kernel" lets the routing table choose, "deny" refuses`},
		{"missing default names the sources", `[sources]
wan = "198.51.100.10"
mail = "198.51.100.25"
`, `testdata/config.toml:1:1: the key default is missing: it says where flows leave from that no rule matches
    [sources]
    ^
    write default = "wan" above the first [table]; "kernel" lets the routing table choose, "deny" refuses`},
		{"default below a table", `[sources]
wan = "198.51.100.10"

[limits]
default = "wan"
`, `testdata/config.toml:5:1: "default" stands below a table's header, and so inside that table
    default = "wan"
    ^
    move the line to the top of the file, above the first line that begins with "["`},
		{"default among the sources", `[sources]
wan = "198.51.100.10"
default = "wan"
`, `testdata/config.toml:3:1: "default" stands below a table's header, and so inside that table
    default = "wan"
    ^
    move the line to the top of the file, above the first line that begins with "["`},
		{"default in a map", `[sources]
wan = "198.51.100.10"
[[rules]]
[rules.map]
"10.0.0.0/8" = "deny"
default = "wan"
`, `testdata/config.toml:6:1: "default" stands below a table's header, and so inside that table
    default = "wan"
    ^
    move the line to the top of the file, above the first line that begins with "["`},
		{"default in a listener", `[[listen]]
mixed = "127.0.0.1:1080"
default = "kernel"
`, `testdata/config.toml:3:1: "default" stands below a table's header, and so inside that table
    default = "kernel"
    ^
    move the line to the top of the file, above the first line that begins with "["`},
		{"prefer below a table", `default = "kernel"
[log]
prefer = "ipv4"
`, `testdata/config.toml:3:1: "prefer" stands below a table's header, and so inside that table
    prefer = "ipv4"
    ^
    move the line to the top of the file, above the first line that begins with "["`},
		{"not UTF-8", "default = \"kernel\"\nprefer = \"ip\xff\"\n", "testdata/config.toml:2:13: the file is not UTF-8\n    prefer = \"ip\ufffd\"\n                ^\n    save it in UTF-8"},
		{"byte order mark", "\ufeffdefault = \"kernel\"\n", "testdata/config.toml:1:1: invalid character at start of key: U+00EF '\u00ef'\n    \ufffddefault = \"kernel\"\n    ^\n    save the file without a byte order mark"},
		{"unquoted text", `default = wan
`, `testdata/config.toml:1:11: unexpected character U+0077 'w' at start of value
    default = wan
              ^
    quote the text: default = "wan"`},
		{"unquoted address", `default = "kernel"
[sources]
wan = 198.51.100.10
`, `testdata/config.toml:3:13: expected newline but got U+002E '.'
    wan = 198.51.100.10
                ^
    quote the text: wan = "198.51.100.10"`},
		{"unquoted duration", `default = "kernel"
[timeouts]
dial = 10s
`, `testdata/config.toml:3:10: strings must be quoted
    dial = 10s
             ^
    quote the text: dial = "10s"`},
		{"no value", `default = "kernel"
[log]
level =
`, `testdata/config.toml:3:8: unexpected character U+000A at start of value
    level =
           ^
    write a value after the equals sign`},
		{"open string", `default = "kernel"
[log]
level = "info
`, `testdata/config.toml:3:14: basic strings cannot have new lines
    level = "info
                 ^
    close the quotes at the end of the text`},
		{"bad escape", `default = "kernel"
[[listen]]
mixed = "127.0.0.1:1080"
users = "C:\users"
`, `testdata/config.toml:4:14: invalid hexadecimal digit in unicode escape sequence
    users = "C:\users"
                 ^
    write \\ for a backslash, or put the text in single quotes`},
		{"key twice", `default = "kernel"
default = "deny"
`, `testdata/config.toml:2:1: key default is already defined, in line 1
    default = "deny"
    ^
    remove one of the two`},
		{"table twice", `default = "kernel"
[log]
level = "info"
[log]
flows = true
`, `testdata/config.toml:4:2: table log already exists, in line 2
    [log]
     ^
    remove one of the two`},
		{"source twice", `default = "kernel"
[sources]
wan = "198.51.100.10"
mail = "198.51.100.25"
wan = "198.51.100.11"
`, `testdata/config.toml:5:1: key wan is already defined, in line 3
    wan = "198.51.100.11"
    ^
    remove one of the two`},
		{"map key twice", `default = "kernel"
[[rules]]
[rules.map]
"10.0.0.0/8" = "deny"
"10.0.0.0/8" = "kernel"
`, `testdata/config.toml:5:1: key 10.0.0.0/8 is already defined, in line 4
    "10.0.0.0/8" = "kernel"
    ^
    remove one of the two`},
		{"unquoted prefix as a map key", `default = "kernel"
[[rules]]
[rules.map]
10.0.0.0/8 = "deny"
`, `testdata/config.toml:4:9: expected '=' after key
    10.0.0.0/8 = "deny"
            ^
    quote the key: "10.0.0.0/8" = "deny"`},
		{"unquoted IPv6 prefix as a map key", `default = "kernel"
[[rules]]
[rules.map]
2001:db8::/32 = "deny"
`, `testdata/config.toml:4:5: expected '=' after key
    2001:db8::/32 = "deny"
        ^
    quote the key: "2001:db8::/32" = "deny"`},
		{"unquoted pattern as a map key", `default = "kernel"
[[rules]]
[rules.map]
*.shop.example = "deny"
`, `testdata/config.toml:4:1: invalid character at start of key: U+002A '*'
    *.shop.example = "deny"
    ^
    quote the key: "*.shop.example" = "deny"`},
		{"unquoted name as a map key", `default = "kernel"
[[rules]]
[rules.map]
www.shop.example = "deny"
`, `testdata/config.toml:4:1: map: without quotes the dots of www.shop.example divide it
    www.shop.example = "deny"
    ^
    quote the key: "www.shop.example" = "deny"`},
		{"unquoted address as a map key", `default = "kernel"
[[rules]]
[rules.map]
10.0.0.1 = "deny"
`, `testdata/config.toml:4:1: map: without quotes the dots of 10.0.0.1 divide it
    10.0.0.1 = "deny"
    ^
    quote the key: "10.0.0.1" = "deny"`},
		{"unknown table", `default = "kernel"
[source]
wan = "198.51.100.10"
`, `testdata/config.toml:2:2: the file has no key "source"
    [source]
     ^
    did you mean "sources"?`},
		{"unknown table without a likeness", `default = "kernel"
[frobnicate]
x = 1
`, `testdata/config.toml:2:2: the file has no key "frobnicate"
    [frobnicate]
     ^
    known keys: default, prefer, sources, pools, rules, listen, attach, limits, timeouts, dns, log, admin`},
		{"unknown key", `default = "kernel"
[timeouts]
handshak = "10s"
`, `testdata/config.toml:3:1: [timeouts] has no key "handshak"
    handshak = "10s"
    ^
    did you mean "handshake"?`},
		{"unknown key with a hyphen", `default = "kernel"
[timeouts]
half-closed = "5m"
`, `testdata/config.toml:3:1: [timeouts] has no key "half-closed"
    half-closed = "5m"
    ^
    did you mean "half_closed"?`},
		{"unknown key without a likeness", `default = "kernel"
[log]
file = "/var/log/x"
`, `testdata/config.toml:3:1: [log] has no key "file"
    file = "/var/log/x"
    ^
    known keys: level, format, flows, destinations`},
		{"table instead of list of tables", `default = "kernel"
[listen]
mixed = "127.0.0.1:1080"
`, `testdata/config.toml:2:2: listen: want a list of tables: [[listen]], got a table
    [listen]
     ^
    double the brackets: [[listen]]`},
		{"list of tables instead of table", `default = "kernel"
[[limits]]
connections = 10
`, `testdata/config.toml:2:3: limits: want a table: [limits], got a list
    [[limits]]
      ^
    write single brackets: [limits]`},
		{"value instead of table", `default = "kernel"
log = "info"
`, `testdata/config.toml:2:7: log: want a table: [log], got text
    log = "info"
          ^`},
		{"values instead of tables", `default = "kernel"
rules = ["wan"]
`, `testdata/config.toml:2:10: rules: want a list of tables: [[rules]], got text
    rules = ["wan"]
             ^`},
		{"prefer", `default = "kernel"
prefer = "ip4"
`, `testdata/config.toml:2:10: prefer: "ip4" is not known
    prefer = "ip4"
             ^
    did you mean "ipv4"?`},
		{"default is not text", `default = 5
`, `testdata/config.toml:1:11: default: want the name of a source or pool, an address, "kernel", "same" or "deny", got an integer
    default = 5
              ^`},
		{"default is empty", `default = ""
`, `testdata/config.toml:1:11: default is empty
    default = ""
              ^
    write a value, or leave the key out`},
		{"integer as duration", `default = "kernel"
[timeouts]
dial = 10
`, `testdata/config.toml:3:8: dial: want a duration in quotes ("30s", "5m"), got an integer
    dial = 10
           ^
    write dial = "10s" for seconds`},
		{"bare number as duration", `default = "kernel"
[timeouts]
dial = "10"
`, `testdata/config.toml:3:8: dial: "10" is not a duration
    dial = "10"
           ^
    write the unit: "10s"`},
		{"days", `default = "kernel"
[timeouts]
idle = "2d"
`, `testdata/config.toml:3:8: idle: "2d" is not a duration
    idle = "2d"
           ^
    write days as hours: "48h"`},
		{"bad duration", `default = "kernel"
[timeouts]
idle = "soon"
`, `testdata/config.toml:3:8: idle: "soon" is not a duration
    idle = "soon"
           ^
    units are ms, s, m and h: "500ms", "30s", "1h30m"`},
		{"too short", `default = "kernel"
[timeouts]
handshake = "0s"
`, `testdata/config.toml:3:13: handshake: 0s is too short; the least is 1s
    handshake = "0s"
                ^`},
		{"negative duration", `default = "kernel"
[timeouts]
idle = "-1s"
`, `testdata/config.toml:3:8: idle: -1s is too short; the least is 0s
    idle = "-1s"
           ^`},
		{"too long", `default = "kernel"
[timeouts]
user = "10000h"
`, `testdata/config.toml:3:8: user: 10000h is too long; the most is 480h0m0s
    user = "10000h"
           ^`},
		{"quoted integer", `default = "kernel"
[limits]
connections = "5000"
`, `testdata/config.toml:3:15: connections: want an integer, got text
    connections = "5000"
                  ^
    write it without quotes: 5000`},
		{"negative limit", `default = "kernel"
[limits]
connections = -1
`, `testdata/config.toml:3:15: connections: -1 is not between 0 and 2147483647
    connections = -1
                  ^`},
		{"float", `default = "kernel"
[limits]
connections = 1.5
`, `testdata/config.toml:3:15: connections: want an integer, got a float or a date
    connections = 1.5
                  ^`},
		{"quoted bool", `default = "kernel"
[log]
flows = "yes"
`, `testdata/config.toml:3:9: flows: want true or false, without quotes, got text
    flows = "yes"
            ^`},
		{"log level", `default = "kernel"
[log]
level = "warning"
`, `testdata/config.toml:3:9: level: "warning" is not known
    level = "warning"
            ^
    one of: debug, info, warn, error`},
		{"log format", `default = "kernel"
[log]
format = "xml"
`, `testdata/config.toml:3:10: format: "xml" is not known
    format = "xml"
             ^
    one of: auto, text, json`},
		{"several, in the order of the file", `[log]
level = "loud"
[[rules]]
to = "a.example"
[sources]
wan = "198.51.100.300"
`, `testdata/config.toml:1:1: the key default is missing: it says where flows leave from that no rule matches
    [log]
    ^
    write default = "wan" above the first [table]; "kernel" lets the routing table choose, "deny" refuses
testdata/config.toml:2:9: level: "loud" is not known
    level = "loud"
            ^
    one of: debug, info, warn, error
testdata/config.toml:3:3: the rule decides nothing: it has no use and no map
    [[rules]]
      ^
    write use = "NAME"; "kernel" lets the routing table choose, "deny" refuses
testdata/config.toml:6:7: wan: "198.51.100.300" is not an address
    wan = "198.51.100.300"
          ^
    an IPv4 address is four numbers from 0 to 255 without leading zeros`},
		{"tabs stay under tabs", "default = \"kernel\"\n[log]\n\tlevel\t=\t\"loud\"\n", "testdata/config.toml:3:10: level: \"loud\" is not known\n    \tlevel\t=\t\"loud\"\n    \t     \t \t^\n    one of: debug, info, warn, error"},
		{"inline table as a rule in a map of maps", `default = "kernel"
[[rules]]
map = { "a.example" = { use = "kernel" } }
`, `testdata/config.toml:3:23: map: want the name of a source or pool, an address, "kernel", "same" or "deny", got a table
    map = { "a.example" = { use = "kernel" } }
                          ^`},
		{"columns are characters", `default = "kernel"
[[listen]]
name = "büro"
mixed = [ "ü", "127.0.0.1:1080" ]
`, `testdata/config.toml:4:11: mixed: "ü" is no address to listen on
    mixed = [ "ü", "127.0.0.1:1080" ]
              ^
    write "127.0.0.1:1080", "[2001:db8::1]:1080", or ":1080" for all addresses`},
	}
}
