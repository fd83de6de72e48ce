package udprelay

import "testing"

// TestLimitAfterRename has two forwards exchange their names while each has a flow: the
// limit counts the flows that each name has now, and ends no others.
func TestLimitAfterRename(t *testing.T) {
	e, _ := newEngine(t)
	p := newPeer(t, "127.0.0.1:0", false)
	named := func(name string, limit int) *Settings {
		return &Settings{Name: name, Limit: limit, Dialer: always(t, useOf("wan1", "127.0.0.2")), Target: to(p.addr)}
	}
	f, g := forward(t, e, "127.0.0.1:0", named("a", 1)), forward(t, e, "127.0.0.1:0", named("b", 3))
	first, second := open(t, "127.0.0.9:0"), open(t, "127.0.0.9:0")
	echo(t, first, addrPort(f.conn), "x")
	echo(t, second, addrPort(g.conn), "x")
	f.Set(named("b", 3))
	g.Set(named("a", 1))
	for range 2 {
		echo(t, open(t, "127.0.0.9:0"), addrPort(f.conn), "there is room")
	}
	echo(t, open(t, "127.0.0.9:0"), addrPort(g.conn), "instead of the second")
	s := e.Stats()
	if s.Flows != 4 || s.Evicted != 1 {
		t.Errorf("%d flows, and %d were evicted; want 4 and 1", s.Flows, s.Evicted)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.counts["a"] != 1 || e.counts["b"] != 3 {
		t.Errorf("counts by listener: %v, want 1 and 3", e.counts)
	}
}

// TestUnlimited takes zero for no limit, as the configuration does.
func TestUnlimited(t *testing.T) {
	e, _ := newEngine(t)
	if n := e.limit(); n != defaultMaxFlows {
		t.Errorf("the limit is %d where none was set, want %d", n, defaultMaxFlows)
	}
	e.SetMaxFlows(0)
	if n := e.limit(); n <= 1<<30 {
		t.Errorf("the limit is %d, want none", n)
	}
}
