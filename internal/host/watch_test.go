package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// init keeps the first thread for the main goroutine, so that no test takes it into
// another namespace: /proc/self is what that thread sees.
func init() { runtime.LockOSThread() }

// TestMain runs the tests as the root of a user namespace when they are not root's,
// so that they can make network namespaces.
func TestMain(m *testing.M) {
	const inside = "HOST_TEST_INSIDE"
	if os.Geteuid() == 0 || os.Getenv(inside) != "" {
		goleak.VerifyTestMain(m)
		return
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	exit := (*exec.ExitError)(nil)
	switch err := cmd.Run(); {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	}
	goleak.VerifyTestMain(m) // no user namespaces here: what needs one is skipped
}

// inNamespace runs f in a network namespace of its own, on a thread that ends with
// it. F must not call t.Fatal: it returns an error.
func inNamespace(t *testing.T, f func() error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("no permission to make a user namespace, and in it network namespaces")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("unshare: %w", err)
			return
		}
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// withVeth makes an up veth pair, and lo up, and returns one end.
func withVeth() (netlink.Link, error) {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v1"}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, err
	}
	for _, name := range []string{"lo", "v0", "v1"} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return nil, err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return nil, err
		}
	}
	return netlink.LinkByName("v0")
}

func nlAddr(s string, flags int) *netlink.Addr {
	a, err := netlink.ParseAddr(s)
	if err != nil {
		panic(err)
	}
	a.Flags = flags
	return a
}

// until waits until the host answers want for a, at most for ten seconds, and returns
// how long it took.
func until(h *Host, a netip.Addr, want bool) (time.Duration, error) {
	start := time.Now()
	deadline := time.After(10 * time.Second)
	for {
		changed := h.Changed()
		if h.Local(a) == want {
			return time.Since(start), nil
		}
		select {
		case <-changed:
		case <-deadline:
			return 0, fmt.Errorf("Local(%v) is still %v after 10 s", a, !want)
		}
	}
}

// watched runs f with a Host of a namespace that has a veth pair.
func watched(t *testing.T, f func(*Host, netlink.Link) error) {
	t.Helper()
	inNamespace(t, func() error {
		v, err := withVeth()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(t.Context())
		h, err := Watch(ctx, nil)
		if err != nil {
			cancel()
			return err
		}
		defer h.Wait()
		defer cancel()
		return f(h, v)
	})
}

func TestRead(t *testing.T) {
	watched(t, func(h *Host, v netlink.Link) error {
		for _, a := range []string{"198.51.100.10/24", "198.51.100.11/24", "2001:db8::10/64"} {
			if err := netlink.AddrAdd(v, nlAddr(a, unix.IFA_F_NODAD)); err != nil {
				return fmt.Errorf("%s: %w", a, err)
			}
		}
		anyIP := netip.MustParsePrefix("2001:db8:64::/64")
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{
			LinkIndex: lo.Attrs().Index, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Dst: nlAddr(anyIP.String(), 0).IPNet,
		}); err != nil {
			return err
		}
		// Even without duplicate address detection its route comes a moment later.
		if _, err := until(h, netip.MustParseAddr("2001:db8::10"), true); err != nil {
			return err
		}
		s, err := Read()
		if err != nil {
			return err
		}
		for a, want := range map[string]bool{
			"198.51.100.10": true, "198.51.100.11": true, "198.51.100.12": false, "198.51.100.255": false,
			"127.3.4.5": true, "::1": true, "2001:db8::10": true, "2001:db8::11": false, "2001:db8:64::77": true,
		} {
			if got := s.Local(netip.MustParseAddr(a)); got != want {
				t.Errorf("Local(%s): got %v, want %v", a, got, want)
			}
		}
		if !s.Covers(anyIP) || s.Covers(netip.MustParsePrefix("2001:db8:64::/48")) {
			t.Error("Covers does not know the AnyIP prefix")
		}
		i := slices.IndexFunc(s.Addresses(), func(a Address) bool { return a.Addr == netip.MustParseAddr("198.51.100.11") })
		want := Address{Addr: netip.MustParseAddr("198.51.100.11"), Prefix: netip.MustParsePrefix("198.51.100.0/24"), Link: "v0", Flags: Secondary | Permanent}
		if i < 0 || s.Addresses()[i] != want {
			t.Errorf("got addresses %v, want among them %v", s.Addresses(), want)
		}
		i = slices.IndexFunc(s.Links(), func(l Link) bool { return l.Name == "v0" })
		if wantLink := (Link{Index: v.Attrs().Index, Name: "v0", Up: true, Running: true, Kind: "veth"}); i < 0 || s.Links()[i] != wantLink {
			t.Errorf("got links %v, want among them %v", s.Links(), wantLink)
		}
		return nil
	})
}

func TestWatchFollowsAddresses(t *testing.T) {
	watched(t, func(h *Host, v netlink.Link) error {
		var took []time.Duration
		for i := range 50 {
			for _, s := range []string{fmt.Sprintf("198.51.100.%d/24", i+1), fmt.Sprintf("2001:db8::%d/64", i+1)} {
				a := nlAddr(s, unix.IFA_F_NODAD)
				addr := netip.MustParsePrefix(s).Addr()
				if err := netlink.AddrAdd(v, a); err != nil {
					return err
				}
				d, err := until(h, addr, true)
				if err != nil {
					return err
				}
				took = append(took, d)
				if err := netlink.AddrDel(v, a); err != nil {
					return err
				}
				if d, err = until(h, addr, false); err != nil {
					return err
				}
				took = append(took, d)
			}
		}
		slices.Sort(took)
		t.Logf("%d changes: median %v, p99 %v, most %v", len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
		if median := took[len(took)/2]; median > 50*time.Millisecond {
			t.Errorf("median %v, want at most 50 ms", median)
		}
		return nil
	})
}

func TestWatchFollowsLocalRoutes(t *testing.T) {
	watched(t, func(h *Host, _ netlink.Link) error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		r := &netlink.Route{LinkIndex: lo.Attrs().Index, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Dst: nlAddr("203.0.113.0/24", 0).IPNet}
		if err := netlink.RouteAdd(r); err != nil {
			return err
		}
		if _, err := until(h, netip.MustParseAddr("203.0.113.77"), true); err != nil {
			return err
		}
		if err := netlink.RouteDel(r); err != nil {
			return err
		}
		_, err = until(h, netip.MustParseAddr("203.0.113.77"), false)
		return err
	})
}

// TestTentativeAddressIsNotLocal: the kernel announces an IPv6 address before it can
// be bound, and once more when duplicate address detection is over.
func TestTentativeAddressIsNotLocal(t *testing.T) {
	watched(t, func(h *Host, v netlink.Link) error {
		a := netip.MustParseAddr("2001:db8::99")
		if err := netlink.AddrAdd(v, nlAddr("2001:db8::99/64", 0)); err != nil {
			return err
		}
		seenTentative := false
		for deadline := time.After(10 * time.Second); !h.Local(a); {
			changed := h.Changed()
			seenTentative = seenTentative || slices.ContainsFunc(h.Addresses(), func(x Address) bool { return x.Addr == a })
			if h.Local(a) {
				break
			}
			select {
			case <-changed:
			case <-deadline:
				return fmt.Errorf("not local after 10 s: %v", h.Addresses())
			}
		}
		if !seenTentative {
			t.Error("the address was never listed as tentative, and not local")
		}
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Bind(fd, &unix.SockaddrInet6{Addr: a.As16()})
	})
}

// TestWatchSurvivesLostEvents floods a socket that has room for few events.
func TestWatchSurvivesLostEvents(t *testing.T) {
	watched(t, func(h *Host, v netlink.Link) error {
		var setErr error
		if err := h.events.raw.Control(func(fd uintptr) {
			setErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
		}); err != nil || setErr != nil {
			return fmt.Errorf("%w %w", err, setErr)
		}
		const n = 1000
		at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}) }
		for i := range n {
			if err := netlink.AddrAdd(v, nlAddr(at(i).String()+"/32", 0)); err != nil {
				return err
			}
		}
		for i := range n {
			if _, err := until(h, at(i), true); err != nil {
				return err
			}
		}
		if err := netlink.LinkDel(v); err != nil { // takes all of them away at once
			return err
		}
		for i := range n {
			if _, err := until(h, at(i), false); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestLostEventIsAChange: the queue holds nothing but events that do not matter, and
// what was lost after them may have mattered.
func TestLostEventIsAChange(t *testing.T) {
	inNamespace(t, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		e, err := subscribe()
		if err != nil {
			return err
		}
		defer e.close()
		addRoutes := func(first, n int) error {
			for i := range n {
				dst := nlAddr(netip.AddrFrom4([4]byte{198, 18, byte(i), byte(first)}).String()+"/32", 0).IPNet
				if err := netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst, Scope: unix.RT_SCOPE_LINK}); err != nil {
					return err
				}
			}
			return nil
		}
		if err := addRoutes(1, 3); err != nil {
			return err
		}
		if err := e.file.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		if what, err := e.wait(); what != routing || err != nil {
			t.Errorf("routes of the main table change what is local: got %v, %v", what, err)
		}
		if err := e.raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
		}); err != nil {
			return err
		}
		if err := addRoutes(2, 200); err != nil {
			return err
		}
		if what, err := e.wait(); what != addressing || err != nil {
			return fmt.Errorf("events were lost: got %v, %w", what, err)
		}
		return nil
	})
}

func TestWatchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h, err := Watch(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !h.Local(netip.MustParseAddr("127.0.0.1")) {
		t.Error("127.0.0.1 is not local")
	}
	cancel()
	h.Wait()
	if !h.Local(netip.MustParseAddr("127.0.0.1")) {
		t.Error("the last Snapshot did not stay")
	}
}
