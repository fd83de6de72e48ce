package dialer_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
)

// astray is a state in which packets from a source to one destination are lost.
type astray struct {
	*state
	source *dialer.Source
	dst    netip.Addr
}

var errAstray = errors.New("they leave by eth1")

func (a astray) Astray(s *dialer.Source, _, dst netip.Addr) error {
	if s == a.source && dst == a.dst {
		return errAstray
	}
	return nil
}

// TestAstray passes over a source whose packets do not reach the destination.
func TestAstray(t *testing.T) {
	lost, reached := tcp("198.51.100.1:80"), tcp("198.51.100.2:80")
	s := astray{downs(), wan1, lost.Dst.Addr()}
	d := &dialer.Dialer{Table: newTable(t, from(wan1)), State: s}
	if dec := d.Decide(lost); !errors.Is(dec.Err, dialer.ErrSourceDown) || !errors.Is(dec.Err, errAstray) {
		t.Errorf("got %v, want ErrSourceDown and %v", dec.Err, errAstray)
	}
	if dec := d.Decide(reached); dec.Err != nil {
		t.Error(dec.Err)
	}
	d = dialerOf(t, s, &dialer.Pool{Name: "p", Of: []dialer.Member{{Source: wan1}, {Source: wan2}}})
	for f, want := range map[*dialer.Flow]*dialer.Source{&lost: wan2, &reached: wan1} {
		if dec := d.Decide(*f); dec.Err != nil || dec.Source != want {
			t.Errorf("to %v: got %v, %v, want %v", f.Dst, dec.Source, dec.Err, want)
		}
		if n := testing.AllocsPerRun(100, func() { d.Decide(*f) }); n != 0 {
			t.Errorf("got %v allocations, want 0", n)
		}
	}
}
