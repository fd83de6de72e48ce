package dialer_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
)

// TestRaceIsBounded dials a name with many addresses that do not answer.
func TestRaceIsBounded(t *testing.T) {
	const most = 8
	port := blackHole(t, "0.0.0.0:0").Port()
	list := answers{}
	for i := range 32 {
		list["a.example"] = append(list["a.example"], netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)}))
	}
	var mu sync.Mutex
	open, peak, tried := 0, 0, 0
	d := &dialer.Dialer{
		Resolver:      list,
		FallbackDelay: 20 * time.Millisecond,
		Timeout:       2 * time.Second,
		Control: func(string, string, syscall.RawConn) error {
			mu.Lock()
			defer mu.Unlock()
			open++
			tried++
			peak = max(peak, open)
			return nil
		},
		OnDial: func(dialer.Flow, dialer.Decision, error) {
			mu.Lock()
			defer mu.Unlock()
			open--
		},
	}
	_, err := d.Dial("tcp", fmt.Sprintf("a.example:%d", port))
	wantErr(t, err, context.DeadlineExceeded)
	mu.Lock()
	defer mu.Unlock()
	if tried != 32 {
		t.Errorf("%d addresses were tried, want all 32", tried)
	}
	if peak > most {
		t.Errorf("%d sockets at a time, want %d", peak, most)
	}
}
