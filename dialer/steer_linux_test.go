package dialer_test

import (
	"net"
	"syscall"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"golang.org/x/sys/unix"
)

// device reads the link that the socket behind c is bound to.
func device(t *testing.T, c any) string {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var name string
	var inner error
	if err := raw.Control(func(fd uintptr) {
		name, inner = unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	}); err != nil || inner != nil {
		t.Fatal(err, inner)
	}
	return name
}

// rawOf is a connection that shows its descriptor, whatever it is.
type rawOf struct{ raw syscall.RawConn }

func (r rawOf) SyscallConn() (syscall.RawConn, error) { return r.raw, nil }

// TestDeviceAndMark reads both options back, of TCP, of UDP and of what listens.
func TestDeviceAndMark(t *testing.T) {
	inNamespace(t, "40000 40999", func(t *testing.T) {
		steered := &dialer.Source{Name: "steered", Addrs: addrs("127.0.0.2"), Device: "lo", Mark: 0x80000007}
		d := &dialer.Dialer{Table: newTable(t, from(steered))}
		check := func(what string, c any) {
			if got := device(t, c); got != "lo" {
				t.Errorf("%s: the device is %q", what, got)
			}
			if got := uint32(option(t, c, unix.SOL_SOCKET, unix.SO_MARK)); got != steered.Mark {
				t.Errorf("%s: the mark is %#x", what, got)
			}
		}
		c, _, err := d.DialFlow(t.Context(), tcp(serve(t, "127.0.0.1:0").String()))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		check("tcp", c)
		server, _ := serveUDP(t, "127.0.0.1:0")
		var raw syscall.RawConn
		d.Control = func(_, _ string, c syscall.RawConn) error { raw = c; return nil }
		u, err := d.DialContext(t.Context(), "udp", server.String())
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		check("udp", rawOf{raw})
		l, _, _, err := d.ListenFlow(t.Context(), tcp("127.0.0.1:0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		check("listener", l)
		lc := net.ListenConfig{Control: steered.Control}
		pc, err := lc.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		check("Control", pc)
	})
}

// TestPacketConnIsNotSteered refuses what would steer the other datagrams too.
func TestPacketConnIsNotSteered(t *testing.T) {
	server, _ := serveUDP(t, "127.0.0.1:0")
	for _, s := range []*dialer.Source{
		{Name: "marked", Addrs: addrs("127.0.0.2"), Mark: 7},
		{Name: "bound", Addrs: addrs("127.0.0.2"), Device: "lo"},
	} {
		c, err := (&dialer.Dialer{Table: newTable(t, from(s))}).ListenPacket(t.Context(), "udp4")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(server))
		wantErr(t, err, dialer.ErrPorts)
		wantText(t, err, s.Name)
	}
}

// TestNoSuchDevice refuses before anything is sent, and says which device it is.
func TestNoSuchDevice(t *testing.T) {
	lost := &dialer.Source{Name: "lost", Addrs: addrs("127.0.0.2"), Device: "ppp77"}
	err := refused(t, &dialer.Dialer{Table: newTable(t, from(lost))}, tcp(serve(t, "127.0.0.1:0").String()))
	wantErr(t, err, dialer.ErrSourceDown)
	wantErr(t, err, unix.ENODEV)
	wantText(t, err, "ppp77", `"lost"`)
	for _, name := range []string{"a-name-of-16-byt", "a b", "a/b"} {
		s := &dialer.Source{Name: "bad", Addrs: addrs("127.0.0.2"), Device: name}
		if _, err := dialer.NewTable(nil, from(s)); err == nil {
			t.Errorf("%q was taken for a device", name)
		}
	}
}
