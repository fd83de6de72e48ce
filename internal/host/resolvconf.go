package host

import (
	"bufio"
	"bytes"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Where the system says whom to ask for names, resolv.conf(5), and where systemd-resolved
// says in the same form whom it asks itself, systemd-resolved.service(8).
const (
	ResolvFile   = "/etc/resolv.conf"
	ResolvedFile = "/run/systemd/resolve/resolv.conf"
)

// Bounds of glibc's resolver (resolv.h).
const (
	maxNameservers = 3
	maxTimeout     = 30 // seconds
	maxAttempts    = 5
)

// ResolvConf is what a resolv.conf says. The zero value says nothing.
type ResolvConf struct {
	Servers  []netip.Addr  // at most 3; link-local ones with their zone
	Timeout  time.Duration // for the answer of one server; zero: not said
	Attempts int           // rounds through the servers; zero: not said
	Rotate   bool          // each look-up begins with another server
}

// ParseResolvConf reads a resolv.conf. What it does not understand does not count, as
// with the resolvers that read it.
func ParseResolvConf(text []byte) ResolvConf {
	var r ResolvConf
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(words[1]); err == nil && len(r.Servers) < maxNameservers {
				r.Servers = append(r.Servers, a.Unmap())
			}
		case "options":
			for _, o := range words[1:] {
				r.option(o)
			}
		}
	}
	return r
}

func (r *ResolvConf) option(o string) {
	name, value, _ := strings.Cut(o, ":")
	n, err := strconv.Atoi(value)
	switch {
	case name == "rotate":
		r.Rotate = true
	case err != nil || n <= 0:
	case name == "timeout":
		r.Timeout = time.Duration(min(n, maxTimeout)) * time.Second
	case name == "attempts":
		r.Attempts = min(n, maxAttempts)
	}
}
