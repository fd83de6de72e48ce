//go:build linux

package cgroupbpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBytecode compares with what ss(8) compiles from "src ADDRESS".
func TestBytecode(t *testing.T) {
	for text, tt := range map[string]struct {
		yes  byte
		no   uint16
		rest []byte
	}{
		"198.51.100.10": {16, 20, []byte{unix.AF_INET, 32, 0, 0, 255, 255, 255, 255, 198, 51, 100, 10}},
		"2001:db8::1":   {28, 32, []byte{unix.AF_INET6, 128, 0, 0, 255, 255, 255, 255, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}},
	} {
		want := append(binary.NativeEndian.AppendUint16([]byte{7, tt.yes}, tt.no), tt.rest...)
		if got := bytecode(netip.MustParseAddr(text)); !bytes.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}

// TestEndedLog: a line for each address, with what is to be done about sockets that are left.
func TestEndedLog(t *testing.T) {
	one, two := netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("2001:db8::10")
	for _, tt := range []struct {
		name  string
		ended Ended
		want  []string
	}{
		{"none", Ended{}, nil},
		{"all", Ended{Sockets: map[netip.Addr]int{two: 4, one: 3}}, []string{
			`level=WARN msg="sockets of programs ended with their address" src=198.51.100.10 ended=3`,
			`level=WARN msg="sockets of programs ended with their address" src=2001:db8::10 ended=4`,
		}},
		{"no right", Ended{Failed: map[netip.Addr]int{one: 2}, Err: unable("TCP", unix.EPERM)}, []string{
			`level=WARN msg="sockets of programs stay open without their address" src=198.51.100.10 failed=2 err="end TCP sockets: operation not permitted" cure="ss -K src 198.51.100.10"`,
		}},
		{"built without", Ended{Failed: map[netip.Addr]int{one: 2}, Err: unable("TCP", unix.EOPNOTSUPP)}, []string{
			`level=WARN msg="sockets of programs stay open without their address" src=198.51.100.10 failed=2 err="unsupported operation: this kernel cannot end TCP sockets (CONFIG_INET_DIAG_DESTROY): operation not supported" cure="restart the programs that leave from it"`,
		}},
		{"not found", Ended{Err: unable("UDP", unix.ENOENT)}, []string{
			`level=WARN msg="sockets of programs may stay open without their address" err="unsupported operation: this kernel does not tell of UDP sockets (CONFIG_INET_UDP_DIAG): no such file or directory" cure="ss -K src ADDRESS"`,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			}}))
			tt.ended.Log(log)
			tt.ended.Log(nil)
			if got := strings.Split(strings.TrimSpace(b.String()), "\n"); !slices.Equal(got, tt.want) && b.Len()+len(tt.want) > 0 {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestUnsupportedProtocol asks for sockets of which no kernel tells.
func TestUnsupportedProtocol(t *testing.T) {
	d, err := openSockdiag()
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	_, err = d.on(unix.IPPROTO_PIM, []netip.Addr{netip.MustParseAddr("198.51.100.10")})
	if err = unable("PIM", err); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "CONFIG_INET_PIM_DIAG") {
		t.Errorf("got %v, want %v", err, errors.ErrUnsupported)
	}
}

// TestBlind: without the program that finds sockets, the hooks are there and End tells once why it cannot do its work.
func TestBlind(t *testing.T) {
	a := []netip.Addr{netip.MustParseAddr("198.51.100.10")}
	var all Ended
	for range 2 {
		p := &Plane{blind: fmt.Errorf("no BTF: %w", errors.ErrUnsupported)}
		all.Add(p.End(a))
		all.Add(p.End(a))
	}
	if all.Sockets != nil || all.Failed != nil || !errors.Is(all.Err, errors.ErrUnsupported) || all.Err.Error() != "no BTF: unsupported operation" {
		t.Errorf("got %+v", all)
	}
}
