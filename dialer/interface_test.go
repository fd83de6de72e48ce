package dialer_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
)

// TestInterface takes the address that the link has at the moment.
func TestInterface(t *testing.T) {
	dsl := &dialer.Source{Name: "dsl", Interface: "ppp0"}
	s := downs()
	d := &dialer.Dialer{Table: newTable(t, from(dsl)), State: s}
	flow, flow6 := tcp("198.51.100.1:80"), tcp("[2001:db8::1]:80")
	want := func(f dialer.Flow, a string) {
		t.Helper()
		dec := d.Decide(f)
		if dec.Err != nil || dec.Addr != netip.MustParseAddr(a) || dec.Source != dsl {
			t.Errorf("got %v from %v, %v, want %s", dec.Source, dec.Addr, dec.Err, a)
		}
	}
	refused := func(d *dialer.Dialer, f dialer.Flow) {
		t.Helper()
		dec := d.Decide(f)
		if !errors.Is(dec.Err, dialer.ErrSourceDown) || !strings.Contains(dec.Err.Error(), `source "dsl": ppp0 has no `) {
			t.Errorf("got %v from %v, want ErrSourceDown that names source and link", dec.Err, dec.Addr)
		}
	}
	refused(d, flow)
	s.links = map[string][]netip.Addr{"ppp0": addrs("192.0.2.7")}
	want(flow, "192.0.2.7")
	refused(d, flow6)
	s.links["ppp0"] = addrs("192.0.2.8", "2001:db8::7")
	want(flow, "192.0.2.8")
	want(flow6, "2001:db8::7")
	s.down[dsl] = errNoCarrier
	if dec := d.Decide(flow); !errors.Is(dec.Err, errNoCarrier) {
		t.Errorf("down: got %v, want %v", dec.Err, errNoCarrier)
	}
	delete(s.down, dsl)
	refused(&dialer.Dialer{Table: d.Table}, flow)
	if n := testing.AllocsPerRun(100, func() { d.Decide(flow) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

// TestInterfaceInPool passes over a link without an address.
func TestInterfaceInPool(t *testing.T) {
	dsl := &dialer.Source{Name: "dsl", Interface: "ppp0"}
	s := downs()
	d := dialerOf(t, s, &dialer.Pool{Name: "p", Of: []dialer.Member{{Source: dsl}, {Source: wan1}}})
	if dec := d.Decide(tcp("198.51.100.1:80")); dec.Err != nil || dec.Source != wan1 {
		t.Errorf("without an address: got %v, %v, want %v", dec.Source, dec.Err, wan1)
	}
	s.links = map[string][]netip.Addr{"ppp0": addrs("192.0.2.7")}
	if dec := d.Decide(tcp("198.51.100.1:80")); dec.Err != nil || dec.Source != dsl {
		t.Errorf("with one: got %v, %v, want %v", dec.Source, dec.Err, dsl)
	}
}

func TestInterfaceIsChecked(t *testing.T) {
	both := &dialer.Source{Name: "dsl", Interface: "ppp0", Addrs: addrs("192.0.2.7")}
	if _, err := dialer.NewTable(nil, from(both)); err == nil {
		t.Error("a source with an interface and an address is taken")
	}
}
