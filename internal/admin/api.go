package admin

import (
	"net/netip"
	"time"

	"github.com/srcproxy/srcproxy/internal/egress"
)

// The answers of the API. Rates are over about the last minute; In is what came from
// the destinations, Out what was sent to them.

// Status says how the program is.
type Status struct {
	Version       string       `json:"version"`
	PID           int          `json:"pid"`
	Config        string       `json:"config,omitempty"` // the file, as an absolute path; empty for the built-in configuration
	State         string       `json:"state"`            // Running or Draining
	Started       time.Time    `json:"started"`
	UptimeSeconds float64      `json:"uptime_seconds"`
	Reloads       int          `json:"reloads"` // tried
	LastReload    *Reload      `json:"last_reload,omitempty"`
	Listeners     []Listener   `json:"listeners"`
	Attachments   []Attachment `json:"attachments,omitempty"`
	Sources       SourceCounts `json:"sources"`
	Connections   Usage        `json:"connections"` // TCP, those among them that are in their handshake or dial
	UDPFlows      Usage        `json:"udp_flows"`
	Descriptors   Usage        `json:"descriptors"`
	Health        []string     `json:"health"` // what is wrong; empty when nothing is
}

// The words of Status.State.
const (
	Running  = "running"
	Draining = "draining"
)

// A Reload is what became of one.
type Reload struct {
	At    time.Time `json:"at"`
	Error string    `json:"error,omitempty"`
}

// A Listener is one [[listen]] entry.
type Listener struct {
	Name      string    `json:"name"`
	Kind      string    `json:"kind"`
	Addresses []string  `json:"addresses"`
	State     string    `json:"state"` // Up, Waiting or Down
	Reason    string    `json:"reason,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	Flows     int       `json:"flows"` // now
}

// The words of Listener.State. Those of Address.State are egress.Condition's.
const (
	Up      = "up"
	Waiting = "waiting" // its address is not on this host yet
	Down    = "down"    // it cannot be opened on its address
)

// SourceCounts counts the addresses of sources by their state.
type SourceCounts struct {
	Up      int `json:"up"`
	Down    int `json:"down"`
	Waiting int `json:"waiting"`
	Broken  int `json:"broken"`
}

// Usage is how much of something is used. A Max of zero is no limit.
type Usage struct {
	Used int `json:"used"`
	Max  int `json:"max"`
}

// Sources lists the sources, and the pools that they are in.
type Sources struct {
	Sources []Source `json:"sources"`
	Pools   []Pool   `json:"pools"`
	Health  []string `json:"health"`
}

// A Source is how one is, and what leaves from it.
type Source struct {
	Name             string    `json:"name"`
	Addresses        []Address `json:"addresses,omitempty"` // one per family; none for what is no configured source
	Connections      int       `json:"connections"`         // flows now, TCP and UDP
	NewPerSecond     float64   `json:"new_per_second"`
	InBitsPerSecond  float64   `json:"in_bits_per_second"`
	OutBitsPerSecond float64   `json:"out_bits_per_second"`
	FailedPerMinute  float64   `json:"failed_per_minute"`
	Total            Total     `json:"total"`

	// Places is what it has and may have under its limit; none without one.
	Places *Usage `json:"places,omitempty"`

	// Ports is how it uses its local ports; none while it has no flows.
	Ports *egress.PortUse `json:"ports,omitempty"`
}

// An Address is an address, a prefix or a range of a source.
type Address struct {
	Address string    `json:"address"`
	State   string    `json:"state"`
	Reason  string    `json:"reason,omitempty"` // why it is not up
	Since   time.Time `json:"since"`            // when it came to that state
	Egress  string    `json:"egress,omitempty"` // "eth0 via 198.51.100.1", while it is up
}

// Total is what was counted since the program started.
type Total struct {
	Opened   uint64 `json:"opened"`
	Failed   uint64 `json:"failed"` // flows that were refused for the source, or not connected
	BytesIn  uint64 `json:"bytes_in"`
	BytesOut uint64 `json:"bytes_out"`
}

// A Pool is one of the configuration.
type Pool struct {
	Name string   `json:"name"`
	Pick string   `json:"pick"`
	Of   []string `json:"of"` // sources

	// Uses is the source that a pool takes which takes the first that is up. It is empty
	// for the others, and when none is up.
	Uses string `json:"uses,omitempty"`
}

// Rules lists the rules in their order, the default, and the forwards that have a use of
// their own.
type Rules struct {
	Rules []Rule `json:"rules"`
}

// A Rule is what decides about flows, and how often it did.
type Rule struct {
	Number   int       `json:"number,omitempty"` // its place from 1; none for the default and forwards
	Name     string    `json:"name"`
	Use      string    `json:"use"` // "map" where the destination decides
	Position string    `json:"position,omitempty"`
	Hits     uint64    `json:"hits"`   // flows, since the program started or the counts were reset
	Denied   uint64    `json:"denied"` // of those
	LastHit  time.Time `json:"last_hit,omitzero"`
	Attached uint64    `json:"attached,omitempty"` // calls of attached programs that it decided; they are no hits
}

// Conns lists the live flows, the oldest first.
type Conns struct {
	Conns []Conn `json:"conns"`
}

// A Conn is one live flow.
type Conn struct {
	ID         uint64         `json:"id"`
	Network    string         `json:"network"` // "tcp" or "udp"
	Client     netip.AddrPort `json:"client"`
	Listener   string         `json:"listener"`
	User       string         `json:"user,omitempty"`
	Session    string         `json:"session,omitempty"`
	Dst        netip.AddrPort `json:"dst,omitzero"` // none for a UDP association, which has many
	Name       string         `json:"name,omitempty"`
	Rule       string         `json:"rule,omitempty"`
	Source     string         `json:"source,omitempty"`
	Src        netip.AddrPort `json:"src,omitzero"`
	BytesIn    int64          `json:"bytes_in"`
	BytesOut   int64          `json:"bytes_out"`
	Started    time.Time      `json:"started"`
	AgeSeconds float64        `json:"age_seconds"`
}

// Reloaded is what a reload has done.
type Reloaded struct {
	Reloads int      `json:"reloads"`
	Config  string   `json:"config,omitempty"`
	Changes []Change `json:"changes"`
}

// A Change is an entry of the configuration that is not as before.
type Change struct {
	What     string   `json:"what"` // "added", "removed", "changed" or "moved"
	Kind     string   `json:"kind"`
	Name     string   `json:"name,omitempty"`
	Keys     []string `json:"keys,omitempty"`
	Position string   `json:"position,omitempty"`
}

// failure is the answer when something goes wrong.
type failure struct {
	Error string `json:"error"`
}
