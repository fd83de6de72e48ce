package udprelay

// Drop is a reason for which a datagram was not relayed.
type Drop uint8

// The reasons.
const (
	Stranger    Drop = iota // it came from an address to which no flow leads
	Truncated               // it was longer than the buffer
	Refused                 // the rules, or the list of clients, refuse its flow
	Limited                 // its client or its source has as many flows as it may have
	Unresolved              // the target's name has no address now
	Waiting                 // too many wait for the target's name
	Draining                // it would have started a flow on a forward that takes no more
	NoLocal                 // it was sent to a group, from which no answer can leave
	Unsent                  // the kernel would not send it
	NotClient               // it came to an association, and not from its client
	Fragment                // it is a fragment, which RFC 1928 section 7 lets a relay drop
	Short                   // it is shorter than its header
	AddressType             // its header has an unknown type of address
	PortZero                // its header names port 0
	Unspecified             // its header names 0.0.0.0 or ::
	BadName                 // its header names what is no name
	Unmatched               // it came to a port that clients share, and is for none of them
	KeepAlive               // likewise, and needs no answer
	Overflow                // the kernel dropped it, as a rule since the socket's buffer was full
	numDrops
)

var dropNames = [numDrops]string{
	"stranger", "truncated", "refused", "limit", "unresolved", "waiting", "draining", "no-local", "unsent",
	"not-client", "fragment", "short", "address-type", "port-zero", "unspecified", "bad-name", "sip-unmatched", "keep-alive", "overflow",
}

// String returns the word for metrics.
func (d Drop) String() string {
	if d < numDrops {
		return dropNames[d]
	}
	return "unknown"
}
