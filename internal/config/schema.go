package config

import (
	"fmt"
	"strings"
)

// A key is one line of the schema.
type key struct {
	name string
	want string // what stands there, as a message names it
	only group  // in [[listen]]: which listeners have it; empty: all
}

// group is the listeners that share a set of keys.
type group string

const (
	proxies      group = "mixed, socks and http listeners"
	socksProxies group = "mixed and socks listeners"
	forwards     group = "tcp and udp forwards"
	udpForwards  group = "udp forwards"
	relays       group = "mixed, socks and udp listeners"
)

// has reports whether listeners of the kind k are in the group.
func (g group) has(k Kind) bool {
	switch g {
	case proxies:
		return !k.IsForward()
	case socksProxies:
		return k == Mixed || k == SOCKS
	case forwards:
		return k.IsForward()
	case udpForwards:
		return k == UDP
	case relays:
		return k == Mixed || k == SOCKS || k == UDP
	}
	return true
}

// table is the name of a table in the schema.
type table string

const (
	topTable      table = ""
	sourceTable   table = "sources.NAME"
	probeTable    table = "sources.NAME.probe"
	poolTable     table = "pools.NAME"
	ruleTable     table = "rules"
	listenTable   table = "listen"
	attachTable   table = "attach"
	limitsTable   table = "limits"
	boundTable    table = "limits.NAME"
	timeoutsTable table = "timeouts"
	dnsTable      table = "dns"
	logTable      table = "log"
	adminTable    table = "admin"
)

// What stands under keys of several tables.
const (
	wantName       = `the name of a source or pool, an address, "kernel", "same" or "deny"`
	wantNames      = `a name in quotes, or a list of them`
	wantPorts      = `a port, "lo-hi", or a list of them`
	wantPrefixes   = `an address or prefix in quotes, or a list of them`
	wantListen     = `an address with port in quotes ("127.0.0.1:1080"), or a list of them`
	wantDuration   = `a duration in quotes ("30s", "5m")`
	wantTarget     = "a target in quotes, or a list of one for each family"
	wantCount      = "an integer"
	wantBound      = "a table: { connections = 500, new_per_second = 50 }"
	wantIntegers   = "a list of integers"
	wantBool       = "true or false, without quotes"
	wantPort       = "a port as an integer"
	wantSourcePort = `a port as an integer, or "same"`
	wantRange      = `a range of ports in quotes ("40000-44999")`
)

// schema is every key that the file may have. It tells unknown keys from known ones,
// is what did-you-mean chooses from, and what config.toml.example is tested against.
var schema = map[table][]key{
	topTable: {
		{name: "default", want: wantName},
		{name: "prefer", want: `"ipv6" or "ipv4"`},
		{name: "sources", want: "a table: [sources]"},
		{name: "pools", want: "a table: [pools]"},
		{name: "rules", want: "a list of tables: [[rules]]"},
		{name: "listen", want: "a list of tables: [[listen]]"},
		{name: "attach", want: "a list of tables: [[attach]]"},
		{name: "limits", want: "a table: [limits]"},
		{name: "timeouts", want: "a table: [timeouts]"},
		{name: "dns", want: "a table: [dns]"},
		{name: "log", want: "a table: [log]"},
		{name: "admin", want: "a table: [admin]"},
	},
	sourceTable: {
		{name: "ip", want: `an address, a prefix or a range "lo-hi" in quotes, or a list of one address per family`},
		{name: "interface", want: "the name of an interface in quotes"},
		{name: "ports", want: wantRange},
		{name: "freebind", want: wantBool},
		{name: "device", want: "the name of an interface in quotes"},
		{name: "mark", want: wantCount},
		{name: "limit", want: wantCount},
		{name: "new_per_second", want: wantCount},
		{name: "gateway", want: "an address in quotes, or a list of one per family"},
		{name: "hold", want: wantDuration},
		{name: "probe", want: `a target for TCP in quotes ("203.0.113.1:443"), or a table`},
	},
	probeTable: {
		{name: "tcp", want: wantTarget},
		{name: "http", want: wantTarget},
		{name: "icmp", want: wantTarget},
		{name: "dns", want: wantTarget},
		{name: "every", want: wantDuration},
		{name: "timeout", want: wantDuration},
		{name: "rise", want: wantCount},
		{name: "fall", want: wantCount},
	},
	poolTable: {
		{name: "of", want: "a list of sources"},
		{name: "pick", want: "a word in quotes"},
		{name: "weights", want: wantIntegers},
		{name: "by", want: "a word in quotes, or a list of them"},
		{name: "for", want: wantDuration},
		{name: "retry", want: wantBool},
	},
	ruleTable: {
		{name: "name", want: "a name in quotes"},
		{name: "to", want: `a name, a pattern ("*.a.example"), an address or a prefix in quotes, or a list of them`},
		{name: "port", want: wantPorts},
		{name: "protocol", want: `"tcp" or "udp"`},
		{name: "client", want: wantPrefixes},
		{name: "user", want: wantNames},
		{name: "listener", want: wantNames},
		{name: "local_port", want: wantPorts},
		{name: "service", want: wantNames},
		{name: "map", want: "a table: [rules.map]"},
		{name: "use", want: wantName},
		{name: "source_port", want: wantPort},
	},
	listenTable: {
		{name: "name", want: "a name in quotes"},
		{name: "mixed", want: wantListen},
		{name: "socks", want: wantListen},
		{name: "http", want: wantListen},
		{name: "tcp", want: wantListen},
		{name: "udp", want: wantListen},
		{name: "allow", want: wantPrefixes},
		{name: "limit", want: wantCount},
		{name: "idle", want: wantDuration},
		{name: "dscp", want: `a code point: "ef", "cs3", "af41", or an integer`, only: relays},
		{name: "users", want: "a file name in quotes", only: proxies},
		{name: "open", want: wantBool, only: proxies},
		{name: "relay_ports", want: wantRange, only: socksProxies},
		{name: "advertise", want: "an address in quotes", only: socksProxies},
		{name: "filter", want: `"address", "address-and-port" or "none"`, only: socksProxies},
		{name: "bind", want: wantBool, only: socksProxies},
		{name: "to", want: `a host with port in quotes ("smtp.mail.example:25")`, only: forwards},
		{name: "use", want: `the name of a source or pool, an address, "kernel" or "same"`, only: forwards},
		{name: "source_port", want: wantSourcePort, only: forwards},
		{name: "share", want: `"sip"`, only: udpForwards},
		{name: "inbound", want: `an address with port in quotes ("127.0.0.1:5080")`, only: udpForwards},
		{name: "inbound_from", want: wantPrefixes, only: udpForwards},
	},
	attachTable: {
		{name: "service", want: `the name of a service in quotes ("asterisk.service")`},
		{name: "cgroup", want: `a path in quotes ("/some.slice")`},
		{name: "use", want: wantName},
		{name: "override", want: wantBool},
		{name: "names", want: `"resolve"`},
		{name: "wildcard_port", want: `"mark"`},
		{name: "persist", want: wantBool},
		{name: "log", want: wantBool},
	},
	limitsTable: {
		{name: "connections", want: wantCount},
		{name: "udp_flows", want: wantCount},
		{name: "per_source", want: wantBound},
		{name: "per_client", want: wantBound},
		{name: "per_user", want: wantBound},
	},
	boundTable: {
		{name: "connections", want: wantCount},
		{name: "new_per_second", want: wantCount},
	},
	timeoutsTable: {
		{name: "handshake", want: wantDuration},
		{name: "dial", want: wantDuration},
		{name: "idle", want: wantDuration},
		{name: "half_closed", want: wantDuration},
		{name: "udp", want: wantDuration},
		{name: "drain", want: wantDuration},
		{name: "user", want: wantDuration},
		{name: "keepalive", want: wantDuration},
	},
	dnsTable: {
		{name: "servers", want: `addresses of name servers in quotes, or "system"`},
		{name: "timeout", want: wantDuration},
		{name: "cache", want: wantCount},
	},
	logTable: {
		{name: "level", want: `"debug", "info", "warn" or "error"`},
		{name: "format", want: `"auto", "text" or "json"`},
		{name: "flows", want: wantBool},
		{name: "destinations", want: wantBool},
	},
	adminTable: {
		{name: "socket", want: "a path in quotes"},
	},
}

// title names the table n as a message does.
func (t table) title(n *node) string {
	switch t {
	case topTable:
		return "the file"
	case sourceTable:
		return fmt.Sprintf("source %q", n.key)
	case probeTable:
		return "the probe"
	case poolTable:
		return fmt.Sprintf("pool %q", n.key)
	case boundTable:
		return "[limits." + n.key + "]"
	case ruleTable, listenTable, attachTable:
		return "[[" + string(t) + "]]"
	}
	return "[" + string(t) + "]"
}

func (t table) key(name string) *key {
	for i := range schema[t] {
		if schema[t][i].name == name {
			return &schema[t][i]
		}
	}
	return nil
}

func (t table) names() []string {
	var out []string
	for _, k := range schema[t] {
		out = append(out, k.name)
	}
	return out
}

// keys returns the values of a table by key, each with what the schema says of it,
// and reports what is no table, and unknown keys.
func (d *decoder) keys(n *node, t table) map[string]*node {
	if n == nil {
		return nil
	}
	if n.kind != tableKind {
		d.mismatch(n)
		return nil
	}
	out := make(map[string]*node, len(n.items))
	for _, c := range n.items {
		if c.spec = t.key(c.key); c.spec == nil {
			d.unknownKey(n, c, t)
			continue
		}
		out[c.key] = c
	}
	return out
}

func (d *decoder) unknownKey(n, c *node, t table) {
	if t != topTable && d.belongsOnTop(c) {
		return
	}
	d.faultKey(c, d.meant(c.key, t.names(), "known keys:"), "%s has no key %q", t.title(n), c.key)
}

// belongsOnTop reports a key of the top that stands below a table's header, where
// TOML counts it to that table.
func (d *decoder) belongsOnTop(n *node) bool {
	if n.key != "default" && n.key != "prefer" {
		return false
	}
	d.moved = d.moved || n.key == "default"
	d.faultKey(n, fmt.Sprintf("move the line to the top of the file, above the first line that begins with %q", "["),
		"%q stands below a table's header, and so inside that table", n.key)
	return true
}

// mismatch reports a value of the wrong kind.
func (d *decoder) mismatch(n *node) {
	hint := ""
	switch {
	case n.kind == tableKind && strings.HasPrefix(n.spec.want, "a list of tables"):
		hint = fmt.Sprintf("double the brackets: [[%s]]", n.spec.name)
	case n.kind == listKind && n.origin == byHeader:
		hint = fmt.Sprintf("write single brackets: [%s]", n.spec.name)
	case n.kind == textKind && bare(n):
		hint = "write it without quotes: " + n.text
	case n.kind == integerKind && n.spec.want == wantBound:
		hint = fmt.Sprintf("write { connections = %s }", n.text)
	case n.kind == integerKind && n.spec.want == wantListen:
		hint = fmt.Sprintf("write %q, or %q for all addresses", "127.0.0.1:"+n.text, ":"+n.text)
	}
	d.fault(n, hint, "%s: want %s, got %s", n.spec.name, n.spec.want, n.kind)
}

// bare reports whether the text of n is the integer or word that is wanted, if it had
// no quotes.
func bare(n *node) bool {
	switch n.spec.want {
	case wantBool:
		return n.text == "true" || n.text == "false"
	case wantCount, wantPort, wantSourcePort, wantIntegers:
		return n.text != "" && strings.Trim(n.text, "0123456789") == ""
	}
	return false
}
