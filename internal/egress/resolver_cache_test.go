package egress

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/srcproxy/srcproxy/internal/host"
)

func answerFor(ttl time.Duration) answer {
	return answer{addrs: []netip.Addr{netip.MustParseAddr("203.0.113.9")}, ttl: ttl}
}

// fetch asks c and returns how often ask was called.
func fetch(c *cache, name string, ttl time.Duration) int {
	n := 0
	f := c.join(question{name, dnsmessage.TypeA}, func(context.Context, question) answer {
		n++
		return answerFor(ttl)
	})
	<-f.done
	return n
}

func TestCacheForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(10)
		for _, step := range []struct {
			after time.Duration
			want  int
		}{{0, 1}, {0, 0}, {59 * time.Second, 0}, {time.Second, 1}, {0, 0}} {
			time.Sleep(step.after)
			if got := fetch(c, "a.example", time.Minute); got != step.want {
				t.Errorf("after %v: asked %d times, want %d", step.after, got, step.want)
			}
		}
		if fetch(c, "zero.example", 0)+fetch(c, "zero.example", 0) != 2 {
			t.Error("an answer without time is remembered")
		}
	})
}

// TestCacheBound keeps those that were used last.
func TestCacheBound(t *testing.T) {
	c := newCache(3)
	for i := range 3 {
		fetch(c, fmt.Sprint(i), time.Hour)
	}
	fetch(c, "0", time.Hour)
	fetch(c, "3", time.Hour) // 1 was used longest ago
	c.mu.Lock()
	if len(c.entries) != 3 || c.order.Len() != 3 {
		t.Errorf("%d and %d entries, want 3", len(c.entries), c.order.Len())
	}
	c.mu.Unlock()
	for name, want := range map[string]int{"0": 0, "2": 0, "3": 0} {
		if got := fetch(c, name, time.Hour); got != want {
			t.Errorf("%s: asked %d times, want %d", name, got, want)
		}
	}
	if fetch(c, "1", time.Hour) != 1 {
		t.Error("1 is remembered")
	}
	none := newCache(0)
	if fetch(none, "a", time.Hour)+fetch(none, "a", time.Hour) != 2 {
		t.Error("a cache of no size remembers")
	}
}

// TestCacheGivesUp ends a question when the last one who waits has left, and asks again
// for who comes then.
func TestCacheGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(10)
		q := question{"a.example", dnsmessage.TypeA}
		ended := make(chan struct{})
		hang := func(ctx context.Context, _ question) answer {
			<-ctx.Done()
			close(ended)
			return answerFor(time.Hour)
		}
		a, b := c.join(q, hang), c.join(q, hang)
		if a != b {
			t.Fatal("two questions under way")
		}
		c.leave([]*flight{a})
		synctest.Wait()
		select {
		case <-ended:
			t.Fatal("given up while one waits")
		default:
		}
		c.leave([]*flight{b})
		<-ended
		synctest.Wait()
		if got := fetch(c, "a.example", time.Hour); got != 1 {
			t.Errorf("asked %d times after that, want once: the answer of one that was given up must not stay", got)
		}
	})
}

func TestSystemServers(t *testing.T) {
	u := &upstream{attempts: defaultAttempts}
	u.system(&host.ResolvConf{})
	if len(u.servers) != 1 || u.servers[0] != netip.MustParseAddrPort("127.0.0.1:53") || u.attempts != 2 || u.rotate {
		t.Errorf("got %+v", u)
	}
	u = &upstream{attempts: defaultAttempts}
	u.system(&host.ResolvConf{
		Servers:  []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1%eth0")},
		Timeout:  time.Second,
		Attempts: 3,
		Rotate:   true,
	})
	if u.servers[1] != netip.MustParseAddrPort("[fe80::1%eth0]:53") || u.timeout != time.Second || u.attempts != 3 {
		t.Errorf("got %+v", u)
	}
	if a, b, c := u.first(), u.first(), u.first(); a == b || a != c {
		t.Errorf("began with %d, %d and %d, want turns", a, b, c)
	}
}
