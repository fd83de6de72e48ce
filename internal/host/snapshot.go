package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Snapshot is what this host had at one moment. It never changes and is safe for
// concurrent use. The zero Snapshot has nothing.
type Snapshot struct {
	local    set
	addrs    []Address
	links    []Link
	replaced chan struct{} // closed when a Host has a newer one

	following map[linkFamily]netip.Addr // see LinkAddr
}

// Read returns what the host has now.
func Read() (*Snapshot, error) {
	r, err := newReader()
	if err != nil {
		return nil, err
	}
	defer r.close()
	return r.snapshot()
}

// NewSnapshot returns a Snapshot of a host with these links and addresses, and with
// local routes for the prefixes beside them: for tests, and for plans.
func NewSnapshot(links []Link, addrs []Address, local []netip.Prefix) *Snapshot {
	local = slices.Clone(local)
	for _, a := range addrs {
		if a.Flags.Usable() {
			local = append(local, netip.PrefixFrom(a.Addr, a.Addr.BitLen()))
		}
	}
	return newSnapshot(links, addrs, local)
}

func newSnapshot(links []Link, addrs []Address, local []netip.Prefix) *Snapshot {
	s := &Snapshot{local: newSet(local), addrs: addrs, links: links, replaced: make(chan struct{})}
	s.following = following(addrs, &s.local)
	return s
}

// Local reports whether a is an address of this host: packets to it are delivered
// here, and a socket can be bound to it (for AnyIP prefixes of IPv6, with
// IPV6_FREEBIND). A zone is not looked at. It does not allocate.
func (s *Snapshot) Local(a netip.Addr) bool {
	return s.local.contains(a.Unmap().WithZone(""))
}

// ByRoute reports whether a is local only as part of a prefix (ip route add local P dev
// lo). To bind such an address takes IPV6_FREEBIND in IPv6, and nothing in IPv4.
func (s *Snapshot) ByRoute(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	_, single := s.local.single[a]
	return !single && s.local.contains(a)
}

// Covers reports whether one local route contains all of p.
func (s *Snapshot) Covers(p netip.Prefix) bool { return s.local.covers(p.Masked()) }

// Addresses returns the addresses of the interfaces, by link and then in the kernel's
// order. The caller must not change the slice.
func (s *Snapshot) Addresses() []Address { return s.addrs }

// Links returns the interfaces by index. The caller must not change the slice.
func (s *Snapshot) Links() []Link { return s.links }

// OwnerLink returns the link that has a, or nothing where a is local by a route alone
// (AnyIP) or not at all.
func (s *Snapshot) OwnerLink(a netip.Addr) (Link, bool) {
	a = bare(a)
	i := slices.IndexFunc(s.addrs, func(x Address) bool { return x.Addr == a })
	if i < 0 {
		return Link{}, false
	}
	k := slices.IndexFunc(s.links, func(l Link) bool { return l.Name == s.addrs[i].Link })
	if k < 0 {
		return Link{}, false
	}
	return s.links[k], true
}

// WrongEgress reports whether packets from src that take the way of a leave by another
// link than the one that has src, and returns that. Providers drop such packets, and
// answers come in elsewhere. Addresses of links that carry no packets, such as the
// loopback, and AnyIP may leave by any link, and others by a second link to their own
// network.
func (s *Snapshot) WrongEgress(src netip.Addr, a RouteAnswer) (owner Link, wrong bool) {
	if a.Type != RouteUnicast {
		return Link{}, false
	}
	src = bare(src)
	for _, x := range s.addrs {
		if x.Link == a.Link && x.Prefix.Contains(src) {
			return Link{}, false // one address can be on several links, too
		}
		if x.Addr != src {
			continue
		}
		if l, ok := s.OwnerLink(src); ok && l.Carries() {
			owner, wrong = l, true
		}
	}
	return owner, wrong
}

// reader reads snapshots by a socket of its own, which stays in the network namespace
// in which it was made.
type reader struct {
	handle      *netlink.Handle
	interrupted bool // a change fell into a dump, which may lack something
}

func newReader() (*reader, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	// With it the kernel sends only the table asked for (Linux 4.20); without it the
	// netlink package leaves out the rest, which costs time on a router.
	_ = h.SetStrictCheck(true)
	return &reader{handle: h}, nil
}

func (r *reader) close() { r.handle.Close() }

// snapshot reads links, addresses and local routes. What a change interrupted is read
// again; should that go on, the last reading is taken, as the event of the change that
// interrupted it leads to another.
func (r *reader) snapshot() (*Snapshot, error) {
	const tries = 5
	for try := 1; ; try++ {
		r.interrupted = false
		s, err := r.once()
		if err != nil || !r.interrupted || try == tries {
			return s, err
		}
	}
}

// ended returns the error of a dump, but for that of an interrupted one, which it
// remembers.
func (r *reader) ended(err error) error {
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		r.interrupted = true
		return nil
	}
	return err
}

func (r *reader) once() (*Snapshot, error) {
	links, err := r.links()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	addrs, err := r.addresses(links)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var local []netip.Prefix
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := r.localRoutes(family)
		if err != nil {
			return nil, fmt.Errorf("list local routes: %w", err)
		}
		local = append(local, routes...)
	}
	// The routes alone say what is local: the kernel adds that of an IPv6 address when
	// duplicate address detection is over, and an address on a link that is down may
	// have none (seen on Linux 6.18).
	return newSnapshot(links, addrs, local), nil
}

func (r *reader) links() ([]Link, error) {
	list, err := r.handle.LinkList()
	if err := r.ended(err); err != nil {
		return nil, err
	}
	links := make([]Link, 0, len(list))
	for _, l := range list {
		a := l.Attrs()
		links = append(links, Link{
			Index:    a.Index,
			Name:     a.Name,
			Up:       a.Flags&net.FlagUp != 0,
			Running:  a.RawFlags&unix.IFF_RUNNING != 0,
			Loopback: a.Flags&net.FlagLoopback != 0,
			Kind:     l.Type(),
		})
	}
	slices.SortFunc(links, func(a, b Link) int { return a.Index - b.Index })
	return links, nil
}

func (r *reader) addresses(links []Link) ([]Address, error) {
	list, err := r.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err := r.ended(err); err != nil {
		return nil, err
	}
	slices.SortStableFunc(list, func(a, b netlink.Addr) int { return a.LinkIndex - b.LinkIndex })
	addrs := make([]Address, 0, len(list))
	for _, l := range list {
		p, ok := prefix(l.IPNet)
		if !ok {
			continue
		}
		a := Address{Addr: p.Addr(), Prefix: p.Masked(), Flags: Flags(l.Flags), Scope: uint8(l.Scope)}
		if i := slices.IndexFunc(links, func(k Link) bool { return k.Index == l.LinkIndex }); i >= 0 {
			a.Link = links[i].Name
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// localRoutes returns the destinations of the local routes of one family. A family
// that the kernel does not have, or a table that is still empty, has none.
func (r *reader) localRoutes(family int) ([]netip.Prefix, error) {
	filter := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}
	var prefixes []netip.Prefix
	// RouteListFiltered drops all that an interrupted dump gave; this one keeps it.
	err := r.handle.RouteListFilteredIter(family, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE, func(l netlink.Route) bool {
		if p, ok := prefix(l.Dst); ok {
			prefixes = append(prefixes, p)
		}
		return true
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, nil
	}
	return prefixes, r.ended(err)
}

// prefix returns n with its host bits.
func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	a = a.Unmap()
	return netip.PrefixFrom(a, bits), ok && size == a.BitLen()
}
