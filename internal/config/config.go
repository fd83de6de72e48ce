// Package config reads the configuration file: TOML text becomes a Config in which
// every name is resolved and every value checked, or errors that show the line, the
// place in it and the cure.
//
// A tree over go-toml's unstable parser keeps the position of every key and value and
// finds what is defined twice; the decoders read that. One table, schema, holds the
// keys there are. The time all this takes grows with the file and the lists it names,
// not with their square: a reload is made while flows wait.
//
// Parse reads no network state: whether an address is on this host is not its business.
package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// CommandLine is the Path of a configuration that the flags of a command have made.
const CommandLine = "command line"

// A Config is what a configuration file says. It is not changed once made, and can
// then be read by several goroutines.
type Config struct {
	Path       string     // the file, or CommandLine; empty for the built-in configuration
	Default    dialer.Use // when no rule matches
	PreferIPv4 bool       // dial IPv4 addresses first

	// Sources and Pools are the named ones in the order of the file. An address that
	// stands where a name may stand becomes a Source with the address as its name; it
	// is not among Sources, and the same wherever the address stands.
	Sources []*dialer.Source
	Pools   []*dialer.Pool

	// SourceOptions is what the tables of sources say beside that, by name; those that
	// say nothing are not in it.
	SourceOptions map[string]SourceOptions

	Rules    []dialer.Rule
	Listen   []Listener
	Attach   []Attach
	Limits   Limits
	Timeouts Timeouts
	DNS      DNS
	Log      Log
	Admin    Admin

	sum   string         // see Sum
	root  *node          // of the file; nil where there is none
	marks map[mark]*node // where things stand
}

// Limits bounds what is open at one time.
type Limits struct {
	Connections int // TCP connections; 0: no limit
	UDPFlows    int // UDP conversations; 0: no limit

	PerSource Bound // of each source that has none of its own
	PerClient Bound // of each address of clients; in IPv6 of each /64
	PerUser   Bound // of each name given at a login
}

// Bound is what one party may have. Zero fields are no limit.
type Bound struct {
	Connections  int // at one time; UDP conversations count, too
	NewPerSecond int
}

// Timeouts holds how long things may take. Where zero is allowed it means none.
type Timeouts struct {
	Handshake  time.Duration // from accept to the end of the SOCKS or HTTP request
	Dial       time.Duration // for all addresses of a destination together
	Idle       time.Duration // of a TCP connection; zero: none
	HalfClosed time.Duration // after one direction has ended
	UDP        time.Duration // of an idle UDP conversation
	Drain      time.Duration // for live flows at the end of the program; zero: they are cut
	User       time.Duration // TCP_USER_TIMEOUT: data that is not acknowledged; zero: the kernel's own
	KeepAlive  time.Duration // between TCP keepalive probes; zero: no probes
}

// Log says what is logged and how.
type Log struct {
	Level        slog.Level
	Format       string // "text", "json", or "auto": text on a terminal, else json
	Flows        bool   // a line at the end of each flow
	Destinations bool   // with the destination in it
}

// Load reads the file path and the files it names.
func Load(path string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return Parse(path, text)
}

// Parse reads a configuration. The path stands in messages, and file names in the
// text are relative to its directory. The error is an *Error, or several of them
// joined in the order of the file.
func Parse(path string, text []byte) (*Config, error) {
	f := newFile(path, text)
	root, err := f.tree()
	if err != nil {
		return nil, err
	}
	d := decoder{
		file:     f,
		config:   Default(),
		uses:     make(map[string]dialer.Use),
		literals: make(map[netip.Addr]*dialer.Source),
		leads:    make(map[int]*node),
		sum:      sha256.New(),
	}
	d.sum.Write(text)
	d.config.Path = path
	d.config.root = root
	d.root(root)
	if err := d.errs.err(); err != nil {
		return nil, err
	}
	d.config.sum = hex.EncodeToString(d.sum.Sum(nil))
	return d.config, nil
}

// Default returns the configuration that is used without a file: SOCKS and HTTP on
// 127.0.0.1:1080, and the routing table chooses the source.
func Default() *Config {
	l := Listener{Kind: Mixed, Bind: true, Addrs: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 1080)}}
	l.Name = l.defaultName()
	return &Config{
		Default: dialer.Use{Kernel: true},
		Listen:  []Listener{l},
		Limits:  Limits{UDPFlows: 100000},
		Timeouts: Timeouts{
			Handshake:  10 * time.Second,
			Dial:       10 * time.Second,
			HalfClosed: 5 * time.Minute,
			UDP:        2 * time.Minute,
			Drain:      30 * time.Second,
			KeepAlive:  30 * time.Second,
		},
		DNS:   DNS{Cache: 10000},
		Log:   Log{Format: "auto", Flows: true, Destinations: true},
		marks: make(map[mark]*node),
	}
}

// Sum returns a hash of the file and of the files it names, and nothing for the built-in
// configuration: two files with the same path and sum say the same.
func (c *Config) Sum() string { return c.sum }

// Table compiles the rules.
func (c *Config) Table() (*dialer.Table, error) { return dialer.NewTable(c.Rules, c.Default) }

// mark is the name of something that has a position.
type mark struct{ kind, name string }

// Position returns where something stands, as path:line, or nothing when it stands
// nowhere. The kind is "rule", "source", "pool", "listener", "attach" or "default",
// the name that of Decision.Rule, Source, Pool, Listener or Attach; a default has none.
func (c *Config) Position(kind, name string) string {
	n := c.marks[mark{kind, name}]
	if n == nil {
		return ""
	}
	return n.position()
}

// mark notes where something stands, and reports whether the name was free.
func (d *decoder) mark(n *node, kind, name string) (taken *node, ok bool) {
	m := mark{kind, name}
	if taken, found := d.config.marks[m]; found {
		return taken, false
	}
	d.config.marks[m] = n
	return nil, true
}

// root reads the whole file. Sources and pools come first, wherever they stand, since
// the rest refers to them.
func (d *decoder) root(n *node) {
	d.config.Listen = nil
	k := d.keys(n, topTable)
	d.sources(k["sources"])
	d.pools(k["pools"])
	d.rules(k["rules"])
	d.listeners(k["listen"])
	d.attachments(k["attach"])
	d.limits(k["limits"])
	d.timeouts(k["timeouts"])
	d.dns(k["dns"])
	d.log(k["log"])
	d.admin(k["admin"])
	if i, ok := d.word(k["prefer"], "ipv6", "ipv4"); ok {
		d.config.PreferIPv4 = i == 1
	}
	d.otherwise(n, k["default"])
}

func (d *decoder) otherwise(root, n *node) {
	if n != nil {
		d.config.Default, _ = d.use(n)
		d.mark(n, "default", "")
		return
	}
	if d.moved {
		return
	}
	name := "NAME"
	if len(d.names) > 0 {
		name = d.names[0]
	}
	d.fault(root, fmt.Sprintf("write default = %q above the first [table]; \"kernel\" lets the routing table choose, \"deny\" refuses", name),
		"the key default is missing: it says where flows leave from that no rule matches")
}

func (d *decoder) limits(n *node) {
	k := d.keys(n, limitsTable)
	if v, ok := d.integer(k["connections"], 0, 1<<31-1); ok {
		d.config.Limits.Connections = int(v)
	}
	if v, ok := d.integer(k["udp_flows"], 0, 1<<31-1); ok {
		d.config.Limits.UDPFlows = int(v)
	}
	d.config.Limits.PerSource = d.bound(k["per_source"])
	d.config.Limits.PerClient = d.bound(k["per_client"])
	d.config.Limits.PerUser = d.bound(k["per_user"])
}

func (d *decoder) bound(n *node) Bound {
	k := d.keys(n, boundTable)
	if k != nil && len(n.items) == 0 {
		d.faultKey(n, "write { connections = 500 }, or remove it", "%s says no limit", n.key)
	}
	return d.boundOf(k["connections"], k["new_per_second"])
}

// maxPerSecond is more than any host opens.
const maxPerSecond = 1_000_000

func (d *decoder) boundOf(connections, perSecond *node) Bound {
	n, _ := d.integer(connections, 1, 1<<31-1)
	rate, _ := d.integer(perSecond, 1, maxPerSecond)
	return Bound{int(n), int(rate)}
}

func (d *decoder) timeouts(n *node) {
	k := d.keys(n, timeoutsTable)
	t := &d.config.Timeouts
	for _, f := range []struct {
		key    string
		value  *time.Duration
		lowest time.Duration
	}{
		{"handshake", &t.Handshake, time.Second},
		{"dial", &t.Dial, time.Second},
		{"idle", &t.Idle, 0},
		{"half_closed", &t.HalfClosed, time.Second},
		{"udp", &t.UDP, time.Second},
		{"drain", &t.Drain, 0},
		{"user", &t.User, 0},
		{"keepalive", &t.KeepAlive, 0},
	} {
		*f.value = d.duration(k[f.key], f.lowest, *f.value)
	}
}

func (d *decoder) log(n *node) {
	k := d.keys(n, logTable)
	l := &d.config.Log
	levels := []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}
	if i, ok := d.word(k["level"], "debug", "info", "warn", "error"); ok {
		l.Level = levels[i]
	}
	formats := []string{"auto", "text", "json"}
	if i, ok := d.word(k["format"], formats...); ok {
		l.Format = formats[i]
	}
	l.Flows = d.boolean(k["flows"], l.Flows)
	l.Destinations = d.boolean(k["destinations"], l.Destinations)
}
