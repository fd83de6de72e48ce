package egress

import (
	"fmt"
	"time"
)

// Condition is the state that an address of a source is in. The zero value is Up.
type Condition uint8

// The conditions.
const (
	Up      Condition = iota // usable
	Down                     // not now: its address has gone, or its probe fails
	Waiting                  // its address has not been on this host yet
	Broken                   // packets would take a wrong way, or the answers to them
)

var conditions = [...]string{"up", "down", "waiting", "broken"}

// String returns the word that commands and the log use.
func (c Condition) String() string {
	if int(c) < len(conditions) {
		return conditions[c]
	}
	return fmt.Sprintf("condition(%d)", c)
}

// MarshalText returns String.
func (c Condition) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// A Status is how one source does in one family: a source with an address of each has
// two of them.
type Status struct {
	Name      string    `json:"name"`
	Addr      string    `json:"addr"`                // its address, prefix or range; of a link without one, the link
	Interface string    `json:"interface,omitempty"` // the link whose address it has
	Egress    string    `json:"egress,omitempty"`    // how packets leave for the rest of the world: "eth0 via 198.51.100.1"
	State     Condition `json:"state"`
	Since     time.Time `json:"since"`            // when it came into that state, or was first seen
	Reason    string    `json:"reason,omitempty"` // why it is not up
}
