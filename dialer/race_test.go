//go:build linux

package dialer_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// attempt is a socket that was made, and when.
type attempt struct {
	address string
	after   time.Duration
}

// clock is a Control that writes down the attempts; each then takes as long as the map
// says and fails.
type clock struct {
	start time.Time
	takes map[string]time.Duration
	mu    sync.Mutex
	log   []attempt
}

var errSlow = errors.New("failed in the end")

func (c *clock) control(_, address string, _ syscall.RawConn) error {
	c.mu.Lock()
	c.log = append(c.log, attempt{address, time.Since(c.start)})
	c.mu.Unlock()
	time.Sleep(c.takes[address])
	return errSlow
}

// TestStagger checks the moments at which the addresses of a name are tried.
func TestStagger(t *testing.T) {
	const ms = time.Millisecond
	const a, b, c = "[::1]:80", "127.0.0.1:80", "127.0.0.2:80"
	list := addrs("127.0.0.1", "127.0.0.2", "::1")
	for _, tt := range []struct {
		name  string
		delay time.Duration
		first bool // IPv4
		takes map[string]time.Duration
		want  []attempt
	}{
		{"all slow", 0, false, map[string]time.Duration{a: 9000 * ms, b: 9000 * ms, c: 9000 * ms}, []attempt{{a, 0}, {b, 300 * ms}, {c, 600 * ms}}},
		{"own delay", 50 * ms, false, map[string]time.Duration{a: 9000 * ms, b: 9000 * ms}, []attempt{{a, 0}, {b, 50 * ms}, {c, 100 * ms}}},
		{"IPv4 first", 0, true, map[string]time.Duration{a: 9000 * ms, b: 9000 * ms}, []attempt{{b, 0}, {a, 300 * ms}, {c, 600 * ms}}},
		{"a failure starts the next", 0, false, map[string]time.Duration{a: 100 * ms, b: 9000 * ms}, []attempt{{a, 0}, {b, 100 * ms}, {c, 400 * ms}}},
		{"an old failure starts the next", 0, false, map[string]time.Duration{a: 400 * ms, b: 9000 * ms}, []attempt{{a, 0}, {b, 300 * ms}, {c, 400 * ms}}},
		{"one after the other", -1, false, map[string]time.Duration{a: 9000 * ms, b: 1000 * ms}, []attempt{{a, 0}, {b, 9000 * ms}, {c, 10000 * ms}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &clock{start: time.Now(), takes: tt.takes}
				d := &dialer.Dialer{
					Resolver:      answers{"a.example": list},
					FallbackDelay: tt.delay,
					PreferIPv4:    tt.first,
					Control:       log.control,
				}
				wantErr(t, refused(t, d, tcp("a.example:80")), errSlow)
				if !slices.Equal(log.log, tt.want) {
					t.Errorf("attempts %v, want %v", log.log, tt.want)
				}
			})
		})
	}
}

// TestTimeoutBoundsTheName has a resolver that answers only when the context ends.
func TestTimeoutBoundsTheName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dialer.Dialer{Resolver: waitingResolver{}, Timeout: 5 * time.Second}
		start := time.Now()
		err := refused(t, d, tcp("a.example:80"))
		wantErr(t, err, context.DeadlineExceeded)
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

type waitingResolver struct{}

func (waitingResolver) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestFallback has a first address that never answers. The connection comes from the
// second, by its own source, and the first is given up.
func TestFallback(t *testing.T) {
	server := serve(t, "127.0.0.1:0")
	hole := blackHole(t, "127.0.0.9:"+port(server))
	var mu sync.Mutex
	ended := make(map[netip.AddrPort]error)
	lost := make(chan struct{})
	d := &dialer.Dialer{
		Table:         newTable(t, from(wan1), dialer.Rule{Name: "hole", To: to("127.0.0.9"), Use: from(wan2)}),
		Resolver:      answers{"a.example": addrs("127.0.0.9", "127.0.0.1")},
		FallbackDelay: 10 * time.Millisecond,
		OnDial: func(f dialer.Flow, _ dialer.Decision, err error) {
			mu.Lock()
			defer mu.Unlock()
			ended[f.Dst] = err
			if f.Dst == hole {
				close(lost)
			}
		},
	}
	saw, dec := dial(t, d, tcp("a.example:"+port(server)))
	if saw.Addr() != wan1.Addrs[0] || dec.Rule != "default" {
		t.Errorf("the server saw %v, by %+v", saw, dec)
	}
	select {
	case <-lost:
	case <-time.After(10 * time.Second):
		t.Fatal("the address that lost is still tried")
	}
	mu.Lock()
	defer mu.Unlock()
	wantErr(t, ended[hole], context.Canceled)
	if err, ok := ended[server]; !ok || err != nil {
		t.Errorf("the winner ended with %v", err)
	}
}

// TestLosersAreClosed lets two connections succeed: the one that is not returned must
// end.
func TestLosersAreClosed(t *testing.T) {
	one := serve(t, "127.0.0.1:0")
	l, err := net.Listen("tcp", "127.0.0.9:"+port(one))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connected, returned := make(chan struct{}), make(chan struct{})
	d := &dialer.Dialer{
		Table:         newTable(t, from(wan1)),
		Resolver:      answers{"a.example": addrs("127.0.0.9", "127.0.0.1")},
		FallbackDelay: time.Millisecond,
		OnDial: func(f dialer.Flow, _ dialer.Decision, err error) {
			if err != nil {
				t.Error(err)
			}
			if f.Dst == one {
				<-connected
				return
			}
			close(connected)
			<-returned
		},
	}
	c, _, err := d.DialFlow(t.Context(), tcp("a.example:"+port(one)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	close(returned)
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := other.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the far side of the loser reads %d bytes, %v", n, err)
	}
}
