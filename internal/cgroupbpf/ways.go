//go:build linux

package cgroupbpf

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
)

// A Mark is an address of a source that sockets with a port of their own can get by the mark of the source alone, and where
// the rules may want that.
type Mark struct {
	Source *dialer.Source
	Addr   netip.Addr
	Within map[netip.Prefix]bool // of an address the longest prefix counts
}

// Marks returns the marks that the rules use, of the addresses that state knows. It is empty for rules that were compiled
// without MarkWildcard.
func (r *Rules) Marks(state dialer.State) []Mark {
	if r.settings.MarkWildcard == 0 {
		return nil
	}
	var out []Mark
	for _, s := range r.sources {
		for _, is4 := range []bool{true, false} {
			a := addrOf(s, is4, state)
			if s.Mark == 0 || !a.IsValid() || slices.ContainsFunc(out, func(m Mark) bool { return m.Addr == a && m.Source.Mark == s.Mark }) {
				continue
			}
			out = append(out, Mark{Source: s, Addr: a, Within: r.within(s.Mark, a, state)})
		}
	}
	return out
}

// within tells for each prefix of the family of a whether a flow to it may get this mark and address.
func (r *Rules) within(mark uint32, a netip.Addr, state dialer.State) map[netip.Prefix]bool {
	is4 := a.Is4()
	picks := make([]bool, len(r.uses))
	for i, u := range r.uses {
		picks[i] = slices.ContainsFunc(r.sources[u.First:u.First+u.Count], func(s *dialer.Source) bool {
			return s.Mark == mark && addrOf(s, is4, state) == a
		})
	}
	out := make(map[netip.Prefix]bool)
	for k, l := range r.lists {
		p := prefixOf(k)
		if p.Addr().Is4() != is4 {
			continue
		}
		out[p] = r.reaches(l, picks)
	}
	return out
}

// reaches reports whether one of the rules that may decide has a use that picks, or the default.
func (r *Rules) reaches(l hooksList, picks []bool) bool {
	for _, c := range r.candidates[l.First : l.First+l.Count] {
		if picks[c.Use] {
			return true
		}
		if c.Protocol == 0 && c.PortLow == 0 && c.PortHigh == math.MaxUint16 && c.LocalLow == 0 && c.LocalHigh == math.MaxUint16 {
			return false // it always decides
		}
	}
	return picks[l.Use]
}

// A Way says whether the routing of this host gives Src to a socket with Mark towards Dst, as far as that is in no longer
// prefix of another Way.
type Way struct {
	Mark  uint32
	Src   netip.Addr
	Dst   netip.Prefix
	Leads bool
}

// WaysHold is how long what SetWays was told counts. After that a connect that needs a mark is refused, so that rules which
// nobody looks after do not trust routes that may be others by now.
const WaysHold = 15 * time.Second

// SetWays tells where marks lead. It is to be called at each change of the routing, before WaysHold has gone by in any case,
// from a thread in the network namespace whose routing it is. In others marks do not lead anywhere. What is not in list does
// not lead.
func (p *Plane) SetWays(list []Way) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opened() {
		return errOpened
	}
	if len(list) == 0 && len(p.ways) == 0 {
		return nil
	}
	err := p.setWays(list)
	if err != nil { // half of them may be worse than none
		err = errors.Join(err, p.maps.Surveys.Put(uint32(0), hooksSurvey{}))
		return fmt.Errorf("tell the kernel plane where marks lead: %w", err)
	}
	return nil
}

func (p *Plane) setWays(list []Way) error {
	survey, err := newSurvey()
	if err != nil {
		return err
	}
	next := make(map[hooksWay]uint32, len(list))
	for _, w := range list {
		next[wayKey(w)] = uint32(flag(w.Leads))
	}
	// In an order in which no address ever leads that led neither before nor now.
	if err := p.putWays(next, 0); err != nil {
		return err
	}
	for k := range p.ways {
		if _, stays := next[k]; stays {
			continue
		}
		if err := p.maps.Ways.Delete(k); err != nil {
			return err
		}
		delete(p.ways, k)
	}
	if err := p.putWays(next, 1); err != nil {
		return err
	}
	return p.maps.Surveys.Put(uint32(0), survey)
}

// putWays writes those of next that have this value, and had another.
func (p *Plane) putWays(next map[hooksWay]uint32, value uint32) error {
	for k, v := range next {
		if old, there := p.ways[k]; v != value || there && old == v {
			continue
		}
		if err := p.maps.Ways.Put(k, v); err != nil {
			return err
		}
		p.ways[k] = v
	}
	return nil
}

func wayKey(w Way) hooksWay {
	k := key(w.Dst)
	const before = 32 + 128 // the mark and the source
	return hooksWay{Bits: before + k.Bits, Mark: w.Mark, Src: address(w.Src), Dst: k.Address}
}

// newSurvey is for the network namespace of this thread, from now on.
func newSurvey() (hooksSurvey, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return hooksSurvey{}, os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }() // it was only asked
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return hooksSurvey{}, os.NewSyscallError("getsockopt(SO_NETNS_COOKIE)", err)
	}
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return hooksSurvey{}, os.NewSyscallError("clock_gettime", err)
	}
	return hooksSurvey{Netns: cookie, Until: uint64(boot.Nano() + int64(WaysHold))}, nil // #nosec G115 -- not negative
}
