//go:build linux

package cgroupbpf

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Ended says what became of the sockets of addresses that have gone. The zero Ended is that there were none.
type Ended struct {
	Sockets map[netip.Addr]int // how many were ended
	Failed  map[netip.Addr]int // how many could not be
	Err     error              // why, or why they could not be looked for
}

// Add adds what became of others. What several of them lack is said once.
func (e *Ended) Add(f Ended) {
	for a, n := range f.Sockets {
		e.ended(a, n)
	}
	for a, n := range f.Failed {
		e.failed(a, n)
	}
	if e.Err == nil || f.Err == nil || e.Err.Error() != f.Err.Error() {
		e.Err = errors.Join(e.Err, f.Err)
	}
}

func (e *Ended) ended(a netip.Addr, n int) {
	if e.Sockets == nil {
		e.Sockets = make(map[netip.Addr]int)
	}
	e.Sockets[a] += n
}

func (e *Ended) failed(a netip.Addr, n int) {
	if e.Failed == nil {
		e.Failed = make(map[netip.Addr]int)
	}
	e.Failed[a] += n
}

// Log writes a line for each address that had sockets, and says what ends those that are left. A nil log discards it.
func (e Ended) Log(log *slog.Logger) {
	if log == nil {
		return
	}
	for _, a := range slices.SortedFunc(maps.Keys(e.Sockets), netip.Addr.Compare) {
		log.Warn("sockets of programs ended with their address", "src", a.String(), "ended", e.Sockets[a])
	}
	for _, a := range slices.SortedFunc(maps.Keys(e.Failed), netip.Addr.Compare) {
		log.Warn("sockets of programs stay open without their address", "src", a.String(), "failed", e.Failed[a], "err", e.Err, "cure", e.cure(a.String()))
	}
	if e.Err != nil && e.Failed == nil {
		log.Warn("sockets of programs may stay open without their address", "err", e.Err, "cure", e.cure("ADDRESS"))
	}
}

func (e *Ended) cure(a string) string {
	if errors.Is(e.Err, unix.EOPNOTSUPP) {
		return "restart the programs that leave from it" // ss asks the kernel for the same
	}
	return "ss -K src " + a
}

// End ends the sockets that have one of these local addresses because the hooks chose it: TCP connections, and datagram
// sockets that are connected. Their programs get ECONNABORTED. It leaves alone what programs have bound themselves, what the
// kernel chose, and all that is outside of the cgroups. Only sockets in the network namespace of the calling thread are
// ended, as an address may well be there in another one. It needs CAP_NET_ADMIN. Ended.Err is errors.ErrUnsupported where the
// kernel cannot do it; that sockets cannot even be found is told once. SetState comes before, or programs get the same
// address again.
func (p *Plane) End(addrs []netip.Addr) Ended {
	if p.finder == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		err := p.blind
		p.blind = nil
		return Ended{Err: err}
	}
	d, err := openSockdiag()
	if err != nil {
		return Ended{Err: err}
	}
	defer d.close()
	return p.finder.end(d, addrs)
}

// protocols are those whose sockets the kernel can end. Datagrams come first: over IPv6 they would go on.
var protocols = []struct {
	name   string
	number uint8
}{
	{"UDP", unix.IPPROTO_UDP},
	{"TCP", unix.IPPROTO_TCP},
}

// end ends the sockets on addrs that a hook chose. It looks again until none is left: of sockets with the same addresses
// (SO_REUSEPORT) the kernel knows only the first.
func (f *finder) end(d sockdiag, addrs []netip.Addr) Ended {
	const looks = 10 // for the case that sockets come as fast as they go
	var all Ended
	for range looks {
		all.Failed, all.Err = nil, nil // of those that are left
		found, err := f.find(addrs)
		if len(found) == 0 || err != nil {
			all.Err = err
			break
		}
		var e Ended
		for _, p := range protocols {
			list, err := d.on(p.number, addrs)
			list = slices.DeleteFunc(list, func(s sockID) bool {
				a, ok := found[s.cookie()]
				return !ok || a.IsValid() && a != s.local()
			})
			e.Add(Ended{Err: unable(p.name, err)})
			e.Add(d.destroyAll(p.name, p.number, list))
		}
		all.Add(e)
		if e.Sockets == nil {
			break
		}
	}
	return all
}

// destroyAll ends sockets, but for those that have ended meanwhile.
func (d sockdiag) destroyAll(name string, protocol uint8, list []sockID) Ended {
	var e Ended
	for _, s := range list {
		switch err := d.destroy(protocol, s); {
		case err == nil:
			e.ended(s.local(), 1)
		case !errors.Is(err, unix.ENOENT):
			e.failed(s.local(), 1)
			e.Err = unable(name, err)
		}
	}
	return e
}

// finder finds sockets by what hooks remember of them.
type finder struct {
	lostObjects
	memories *link.Iter

	mu sync.Mutex // of the maps
}

func newFinder(memories *ebpf.Map) (*finder, error) {
	f := new(finder)
	err := loadLostObjects(&f.lostObjects, nil)
	if err != nil {
		return nil, fmt.Errorf("find sockets without their address: %w", err)
	}
	if f.memories, err = link.AttachIter(link.IterOptions{Program: f.Find, Map: memories}); err != nil {
		return nil, errors.Join(fmt.Errorf("find sockets without their address: %w", err), f.lostObjects.Close())
	}
	return f, nil
}

func (f *finder) close() error { return errors.Join(f.memories.Close(), f.lostObjects.Close()) }

// find returns the cookies of the sockets to which a hook gave one of these addresses, with that; it is not valid where a mark
// chose an address, be it one of them or not.
func (f *finder) find(addrs []netip.Addr) (map[uint64]netip.Addr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range addrs {
		if err := f.Lost.Put(address(a), uint8(1)); err != nil {
			return nil, fmt.Errorf("map lost: %w", err)
		}
		defer func() { _ = f.Lost.Delete(address(a)) }() // it is there
	}
	r, err := f.memories.Open()
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, r) // runs the program; it writes nothing
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("look at the sockets that hooks remember: %w", err)
	}
	found := make(map[uint64]netip.Addr)
	var cookie uint64
	var src hooksAddress
	i := f.Found.Iterate()
	for i.Next(&cookie, &src) {
		found[cookie] = netip.Addr{}
		if a := netipAddr(src); !a.IsUnspecified() {
			found[cookie] = a
		}
	}
	if err := i.Err(); err != nil {
		return nil, fmt.Errorf("map found: %w", err)
	}
	for cookie := range found {
		if err := f.Found.Delete(cookie); err != nil {
			return nil, fmt.Errorf("map found: %w", err)
		}
	}
	return found, nil
}

// unable tells what an error of sock_diag(7) means.
func unable(protocol string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: this kernel does not tell of %s sockets (CONFIG_INET_%s_DIAG): %w", errors.ErrUnsupported, protocol, protocol, err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: this kernel cannot end %s sockets (CONFIG_INET_DIAG_DESTROY): %w", errors.ErrUnsupported, protocol, err)
	}
	return fmt.Errorf("end %s sockets: %w", protocol, err)
}
