//go:build linux

package integration

import (
	"net/netip"
	"sync"
	"testing"
	"time"
)

// TestSIPManyDialogs holds 2,000 calls of one phone, which are silent for many times the
// idle time, while another makes 50 calls a second, the configuration is reloaded and
// the address of the trunk goes and comes: no call fails, and all leaves from S:5060.
func TestSIPManyDialogs(t *testing.T) {
	voip := netip.MustParsePrefix("198.51.100.30/24")
	r := trunk(t, trunkConfig)
	r.answers(r.Server, "203.0.113.5", 5060)
	var calling sync.WaitGroup
	ended := make(chan struct{})
	calling.Go(func() {
		r.calls(r.Proxy, "127.0.0.2", "127.0.0.1:5060", 2000, "-r", "200", "-d", "20000", "-l", "2000")
	})
	calling.Go(func() { r.calls(r.Proxy, "127.0.0.3", "127.0.0.1:5060", 1000, "-r", "50", "-d", "200") })
	go func() {
		defer close(ended)
		calling.Wait()
	}()
	reloads, losses := 0, 0
	for running := true; running; reloads++ {
		if e := r.reload(trunkConfig + "# again\n"); e.text("msg") != "reloaded" {
			t.Errorf("reload: %v", e)
		}
		if reloads == 10 || reloads == 25 {
			r.Proxy.DelAddr(t, "wan0", voip)
			losses++
			r.log.wait(t, losses, "source port is gone")
			r.Proxy.AddAddr(t, "wan0", voip)
		}
		select {
		case <-ended:
			running = false
		case <-time.After(400 * time.Millisecond): // between reloads
		}
	}
	t.Logf("%d reloads, the address was lost %d times", reloads, losses)
	if losses != 2 {
		t.Errorf("the address was lost %d times, want 2", losses)
	}
	r.wantOnePort()
}
