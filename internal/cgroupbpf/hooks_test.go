//go:build linux

package cgroupbpf

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/nstest"
	"github.com/srcproxy/srcproxy/internal/ruleset"
)

// asker asks the judgement of the hooks in the kernel, by a program that has the flow as its packet.
type asker struct {
	*Plane
	ask *ebpf.Program
}

func newAsker(t testing.TB) *asker {
	t.Helper()
	spec, err := loadHooks()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range hookNames {
		delete(spec.Programs, name)
	}
	if err := prepare(spec); err != nil {
		t.Fatal(err)
	}
	a := &asker{Plane: &Plane{inner: innerSpecs(spec), past: make(map[string]Counter)}}
	c, err := newCollection(spec, nil)
	if err = diagnose(err); errors.Is(err, os.ErrPermission) {
		nstest.Skip(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	a.ask = c.DetachProgram(hooksProgAsk)
	if err := c.Assign(&a.maps); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(a.ask.Close(), a.Close()); err != nil {
			t.Error(err)
		}
	})
	return a
}

// judge asks for one flow.
func (a *asker) judge(t testing.TB, f dialer.Flow) answer {
	t.Helper()
	q := hooksQuestion{Dst: address(f.Dst.Addr()), Port: f.Dst.Port(), LocalPort: f.LocalPort, Protocol: uint8(ruleset.TCP)}
	if f.Network == "udp" {
		q.Protocol = uint8(ruleset.UDP)
	}
	size := unsafe.Sizeof(q)
	in := unsafe.Slice((*byte)(unsafe.Pointer(&q)), size)
	out := make([]byte, size)
	if _, err := a.ask.Run(&ebpf.RunOptions{Data: in, DataOut: out}); err != nil {
		t.Fatal(err)
	}
	return a.answer(t, (*hooksQuestion)(unsafe.Pointer(unsafe.SliceData(out))))
}

func (a *asker) answer(t testing.TB, q *hooksQuestion) answer {
	t.Helper()
	out := answer{rule: "default", bind: q.Bind == 1, port: q.SourcePort}
	if q.Rule != noRule {
		out.rule = a.now.rules.names[q.Rule]
	}
	if out.bind {
		out.src = netipAddr(q.Src)
	}
	switch unix.Errno(-q.Err) {
	case 0:
	case unix.EPERM:
		out.err = dialer.ErrDenied
	case unix.EADDRNOTAVAIL:
		out.err = dialer.ErrNoSource
	default:
		t.Fatalf("the hooks refuse by %d", q.Err)
	}
	return out
}

// set compiles t and gives it to the hooks.
func (a *asker) set(t testing.TB, table *dialer.Table, o Options) {
	t.Helper()
	r, err := Compile(table, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Set(r); err != nil {
		t.Fatal(err)
	}
}

// TestHooksAgreeWithTable asks the programs in the kernel what the proxy is asked too.
func TestHooksAgreeWithTable(t *testing.T) {
	a := newAsker(t)
	for i := range 60 {
		d, table, r, err := compile(random(10_000 + i))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Set(r); err != nil {
			t.Fatal(err)
		}
		if err := d.differs(t, table, func(f dialer.Flow) answer { return a.judge(t, f) }); err != nil {
			t.Fatalf("the hooks differ %v", err)
		}
	}
}

// pool is a table that sends all flows to one pool of seven sources, whose weights are their numbers.
func pool(t testing.TB, p dialer.Pool) *dialer.Table {
	t.Helper()
	for i := range 7 {
		a := netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)})
		p.Of = append(p.Of, dialer.Member{Source: &dialer.Source{Name: a.String(), Addrs: []netip.Addr{a}}, Weight: i + 1})
	}
	p.Name = p.Pick.String()
	table, err := dialer.NewTable(nil, dialer.Use{Pool: &p})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func flowTo(i int) dialer.Flow {
	return dialer.Flow{Network: "tcp", Dst: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 80)}
}

// TestHashInKernel compares the picks of sticky pools for many destinations.
func TestHashInKernel(t *testing.T) {
	for _, span := range []time.Duration{0, 24 * time.Hour} {
		a := newAsker(t)
		table := pool(t, dialer.Pool{Pick: dialer.Sticky, By: []dialer.Key{dialer.ByDestination}, For: span})
		a.set(t, table, Options{})
		seen := make(map[netip.Addr]int)
		for i := range 10_000 {
			f := flowTo(i)
			want := table.Lookup(f).Addr
			if got := a.judge(t, f); got.src != want || got.err != nil {
				t.Fatalf("for %v: %v: got %+v, want %v", span, f.Dst, got, want)
			}
			seen[want]++
		}
		if len(seen) != 7 {
			t.Errorf("for %v: %d of 7 members were picked: %v", span, len(seen), seen)
		}
	}
}

// away is a State in which some addresses are down.
type away map[netip.Addr]bool

func (s away) Down(_ *dialer.Source, a netip.Addr) error {
	if s[a] {
		return errors.New("away")
	}
	return nil
}
func (s away) LinkAddr(string, bool) netip.Addr { return netip.Addr{} }
func (s away) Flows(*dialer.Source) int         { return 0 }

// TestShares counts what pools pick, with all members up and with some down: each by its weight.
func TestShares(t *testing.T) {
	const rounds = 2800 // the weights of all add up to 28
	for _, pick := range []dialer.Pick{dialer.RoundRobin, dialer.Random} {
		a := newAsker(t)
		a.set(t, pool(t, dialer.Pool{Pick: pick}), Options{})
		for _, down := range []away{{}, {netip.MustParseAddr("198.51.100.7"): true, netip.MustParseAddr("198.51.100.2"): true}} {
			if err := a.SetState(down); err != nil {
				t.Fatal(err)
			}
			seen := make(map[netip.Addr]int)
			for i := range rounds {
				seen[a.judge(t, flowTo(i)).src]++
			}
			checkShares(t, pick, down, seen, rounds)
		}
	}
}

func checkShares(t *testing.T, pick dialer.Pick, down away, seen map[netip.Addr]int, rounds int) {
	t.Helper()
	total := 28
	for a := range down {
		total -= int(a.As4()[3])
	}
	for i := 1; i <= 7; i++ {
		a := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
		want := rounds * i / total
		if down[a] {
			want = 0
		}
		tolerance := 28.0 // one turn
		if pick == dialer.Random {
			tolerance = 6 * math.Sqrt(float64(want))
		}
		if math.Abs(float64(seen[a]-want)) > tolerance {
			t.Errorf("%v without %v: %v was picked %d times, want about %d", pick, down, a, seen[a], want)
		}
	}
}

// TestSetState takes members of a first-up pool away, one after the other, and gives them back.
func TestSetState(t *testing.T) {
	a := newAsker(t)
	a.set(t, pool(t, dialer.Pool{}), Options{})
	down := away{}
	for i := 1; i <= 7; i++ {
		self := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
		if got := a.judge(t, flowTo(1)); got.src != self {
			t.Errorf("without %v: got %+v, want %v", down, got, self)
		}
		down[self] = true
		if err := a.SetState(down); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.judge(t, flowTo(1)); got.err != dialer.ErrNoSource || got.bind {
		t.Errorf("with none up: got %+v, want %v", got, dialer.ErrNoSource)
	}
	// New rules know it as well.
	a.set(t, pool(t, dialer.Pool{}), Options{})
	if got := a.judge(t, flowTo(1)); got.err != dialer.ErrNoSource {
		t.Errorf("with none up, after Set: got %+v, want %v", got, dialer.ErrNoSource)
	}
	if err := a.SetState(nil); err != nil {
		t.Fatal(err)
	}
	if got := a.judge(t, flowTo(1)); got.src != netip.MustParseAddr("198.51.100.1") {
		t.Errorf("with all up again: got %+v", got)
	}
}

// TestSetStateAgain fails after a member has changed, and before the hooks are told to forget: the next call tells them, though it
// finds nothing to change.
func TestSetStateAgain(t *testing.T) {
	a := newAsker(t)
	a.set(t, pool(t, dialer.Pool{}), Options{})
	frozen, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	if err := frozen.Freeze(); err != nil {
		t.Fatal(err)
	}
	number := func() (n uint64) {
		t.Helper()
		if err := a.maps.Active.Lookup(uint32(0), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before, active, down := number(), a.maps.Active, away{netip.MustParseAddr("198.51.100.1"): true}
	a.maps.Active = frozen
	err = a.SetState(down)
	a.maps.Active = active
	if !errors.Is(err, os.ErrPermission) {
		t.Errorf("with a map that cannot be written: got %v", err)
	}
	if err := a.SetState(down); err != nil {
		t.Fatal(err)
	}
	told := number()
	if told <= before {
		t.Errorf("active was %d and is %d", before, told)
	}
	if err := a.SetState(down); err != nil || number() != told {
		t.Errorf("without a change: got %v, and active is %d after %d", err, number(), told)
	}
}

// dsl is a State with one interface.
type dsl map[bool]netip.Addr

func (s dsl) Down(*dialer.Source, netip.Addr) error  { return nil }
func (s dsl) LinkAddr(_ string, is4 bool) netip.Addr { return s[is4] }
func (s dsl) Flows(*dialer.Source) int               { return 0 }

// TestInterface follows the address of a link.
func TestInterface(t *testing.T) {
	a := newAsker(t)
	table, err := dialer.NewTable(nil, dialer.Use{Source: &dialer.Source{Name: "dsl", Interface: "ppp0"}})
	if err != nil {
		t.Fatal(err)
	}
	a.set(t, table, Options{})
	if got := a.judge(t, flowTo(1)); got.err != dialer.ErrNoSource {
		t.Errorf("without a state: got %+v, want %v", got, dialer.ErrNoSource)
	}
	for _, has := range []string{"198.51.100.1", "198.51.100.2"} {
		if err := a.SetState(dsl{true: netip.MustParseAddr(has)}); err != nil {
			t.Fatal(err)
		}
		if got := a.judge(t, flowTo(1)); got.src != netip.MustParseAddr(has) {
			t.Errorf("got %+v, want %v", got, has)
		}
	}
	six := dialer.Flow{Network: "tcp", Dst: netip.MustParseAddrPort("[2001:db8::1]:80")}
	if got := a.judge(t, six); got.err != dialer.ErrNoSource {
		t.Errorf("by the other family: got %+v, want %v", got, dialer.ErrNoSource)
	}
}

// TestScale judges by 10 rules and by 100,000: neither has the answer more of them, nor does it take much longer.
func TestScale(t *testing.T) {
	a := newAsker(t)
	cost := make(map[int]time.Duration)
	for _, n := range []int{10, 100_000} {
		rules := make([]dialer.Rule, n)
		s := &dialer.Source{Name: "one", Addrs: addrs("198.51.100.1")}
		for i := range rules {
			dst := netip.AddrFrom4([4]byte{203, byte(i >> 16), byte(i >> 8), byte(i)})
			rules[i] = dialer.Rule{To: []dialer.Match{dialer.MatchPrefix(netip.PrefixFrom(dst, 32))}, Use: dialer.Use{Source: s}}
		}
		table, err := dialer.NewTable(rules, dialer.Use{})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		a.set(t, table, Options{})
		t.Logf("%d rules are set in %v", n, time.Since(start).Round(time.Millisecond))
		for _, i := range []int{0, n - 1} {
			f := dialer.Flow{Network: "tcp", Dst: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, byte(i >> 16), byte(i >> 8), byte(i)}), 80)}
			if got, want := a.judge(t, f), (answer{rule: fmt.Sprintf("rule %d", i+1), bind: true, src: s.Addrs[0]}); got != want {
				t.Errorf("%d rules: got %+v, want %+v", n, got, want)
			}
		}
		q := hooksQuestion{Dst: address(netip.MustParseAddr("203.0.0.5")), Port: 80}
		in := unsafe.Slice((*byte)(unsafe.Pointer(&q)), unsafe.Sizeof(q))
		for range 5 {
			_, took, err := a.ask.Benchmark(in, 20_000, nil)
			if err != nil {
				t.Fatal(err)
			}
			if cost[n] == 0 || took < cost[n] {
				cost[n] = took
			}
		}
	}
	t.Logf("a judgement takes %v", cost)
	if cost[100_000] > 4*cost[10] {
		t.Errorf("a judgement takes %v", cost)
	}
}
