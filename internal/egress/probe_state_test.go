package egress

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// scripted is a prober whose tests end as the script says: + for success, - for
// failure, . for no result, t for one that hangs.
func scripted(script string, told *[]string) *prober {
	b := &prober{
		place:  place{"lte", true},
		probe:  Probe{Kind: ProbeTCP, Every: 10 * time.Second, Timeout: 3 * time.Second, Rise: 2, Fall: 3},
		target: "203.0.113.1:443",
	}
	n := 0
	b.test = func(ctx context.Context) (netip.Addr, error) {
		step := script[min(n, len(script)-1)]
		n++
		switch step {
		case '-':
			return addr9, fmt.Errorf("connect: %w", syscall.ECONNREFUSED)
		case '.':
			return addr9, errNoResult
		case 't':
			<-ctx.Done()
			return addr9, ctx.Err()
		}
		return addr9, nil
	}
	b.report = func(source string, from netip.Addr, err error) {
		if source != "lte" || from != addr9 {
			err = fmt.Errorf("of %s from %v", source, from)
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			err = errors.New("wraps the cause")
		}
		*told = append(*told, fmt.Sprintf("%d: %v", n, err))
	}
	return b
}

// TestProberCounts tells after how many tests a source goes down, and comes back.
func TestProberCounts(t *testing.T) {
	const refused = "probe 203.0.113.1:443: connect: connection refused"
	for _, tt := range []struct {
		name, script string
		want         []string
	}{
		{"well", "++++", nil},
		{"two failures are not enough", "--+--+", nil},
		{"three are", "+---", []string{"4: " + refused}},
		{"and each after them", "-----", []string{"3: " + refused, "4: " + refused, "5: " + refused}},
		{"two successes bring it back", "---++++", []string{"3: " + refused, "5: <nil>"}},
		{"one does not", "---+-+-", []string{"3: " + refused, "5: " + refused, "7: " + refused}},
		{"no result does not count", "--..-.+.+", []string{"5: " + refused, "9: <nil>"}},
		{"a test that hangs", "ttt", []string{"3: probe 203.0.113.1:443 timed out"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told []string
				b := scripted(tt.script, &told)
				for range tt.script {
					b.once(t.Context())
				}
				if !slices.Equal(told, tt.want) {
					t.Errorf("told %q, want %q", told, tt.want)
				}
			})
		})
	}
}

// TestProberTimes: until something is known one test follows the other, later there is
// one every ten seconds, give or take a tenth; a stop leaves what was found, until that is
// taken back.
func TestProberTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		b := scripted("t", &told)
		inner := b.test
		var times []time.Duration
		start := time.Now()
		b.test = func(ctx context.Context) (netip.Addr, error) {
			times = append(times, time.Since(start))
			return inner(ctx)
		}
		b.start()
		time.Sleep(10 * time.Minute)
		b.stop()
		if len(times) < 54 || len(times) > 67 || times[0] >= time.Second {
			t.Errorf("%d tests in 10 minutes, the first after %v", len(times), times[0])
		}
		different := make(map[time.Duration]bool)
		for i := range times[1:] {
			gap, want := times[i+1]-times[i], 10*time.Second
			if i < b.probe.Fall-1 { // when one has hung for 3 s, the next is due
				want = 3 * time.Second
			}
			different[gap] = true
			if gap < want-want/10 || gap > want+want/10 {
				t.Errorf("%v between tests %d and %d, want %v", gap, i+1, i+2, want)
			}
		}
		if len(different) < 10 {
			t.Errorf("only %d different times between tests", len(different))
		}
		if last := told[len(told)-1]; !strings.HasSuffix(last, "timed out") {
			t.Errorf("when it stops it tells %q, want nothing more", last)
		}
		b.takeBack()
		if last := told[len(told)-1]; !strings.HasSuffix(last, "<nil>") {
			t.Errorf("the last that was told is %q, want that it is taken back", last)
		}
	})
}

// TestProberStops in the middle of a test, whose end then counts for nothing.
func TestProberStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		b := scripted("t", &told)
		b.probe.Fall = 1
		b.start()
		time.Sleep(2 * time.Second)
		start := time.Now()
		b.stop()
		if d := time.Since(start); d != 0 || len(told) != 0 {
			t.Errorf("after %v: told %q, want nothing at once", d, told)
		}
	})
}

func TestProbeTargets(t *testing.T) {
	for _, tt := range []struct {
		kind      ProbeKind
		targets   []string
		four, six string
	}{
		{ProbeTCP, []string{"203.0.113.1:443"}, "203.0.113.1:443", ""},
		{ProbeTCP, []string{"203.0.113.1:443", "[2001:db8::1]:443"}, "203.0.113.1:443", "[2001:db8::1]:443"},
		{ProbeTCP, []string{"www.example:443"}, "www.example:443", "www.example:443"},
		{ProbeHTTP, []string{"http://203.0.113.1/x", "http://[2001:db8::1]:8080/"}, "http://203.0.113.1/x", "http://[2001:db8::1]:8080/"},
		{ProbeICMP, []string{"2001:db8::1"}, "", "2001:db8::1"},
		{ProbeDNS, []string{"a.example@203.0.113.1", "a.example@[2001:db8::1]:53"}, "a.example@203.0.113.1", "a.example@[2001:db8::1]:53"},
	} {
		p := Probe{Kind: tt.kind, Targets: tt.targets}
		if four, six := p.target(true), p.target(false); four != tt.four || six != tt.six {
			t.Errorf("%q: got %q and %q, want %q and %q", tt.targets, four, six, tt.four, tt.six)
		}
	}
}

// FuzzPing: of what comes in by a raw socket only the answer with the cookie counts.
func FuzzPing(f *testing.F) {
	cookie := []byte("sixteen bytes...")
	reply := func(kind icmp.Type) []byte {
		m := icmp.Message{Type: kind, Body: &icmp.Echo{ID: 7, Seq: 1, Data: cookie}}
		b, err := m.Marshal(nil)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	header := append([]byte{0x45}, make([]byte, 19)...)
	f.Add(append(header, reply(ipv4.ICMPTypeEchoReply)...), true, true)
	f.Add(reply(ipv4.ICMPTypeEchoReply), true, false)
	f.Add(reply(ipv6.ICMPTypeEchoReply), false, true)
	f.Add(reply(ipv4.ICMPTypeEcho), true, false)
	f.Add([]byte{0x4f}, true, true)
	f.Fuzz(func(t *testing.T, b []byte, is4, raw bool) {
		s := &pingSocket{is4: is4, raw: raw}
		if s.answers(b, cookie) && !strings.Contains(string(b), string(cookie)) {
			t.Errorf("% x is no answer", b)
		}
	})
}
