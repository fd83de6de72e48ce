//go:build linux

package integration

import (
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"
)

// reloading reloads until f has returned, and tells how often. It calls between after
// each reload.
func (r *rig) reloading(f func(), between func(reloads int)) (reloads int) {
	r.t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f()
	}()
	for {
		if e := r.reload(trunkConfig + "# again\n"); e.text("msg") != "reloaded" {
			r.t.Errorf("reload: %v", e)
		}
		reloads++
		between(reloads)
		select {
		case <-ended:
			return reloads
		case <-time.After(400 * time.Millisecond): // between reloads
		}
	}
}

// TestSIPManyDialogs holds 2,000 calls of one phone, which are silent for many times the
// idle time, while another makes 50 calls a second and the configuration is reloaded: no
// call fails, and all leaves from S:5060.
func TestSIPManyDialogs(t *testing.T) {
	r := trunk(t, trunkConfig)
	r.answers(r.Server, "203.0.113.5", 5060)
	reloads := r.reloading(func() {
		var both sync.WaitGroup
		both.Go(func() {
			r.calls(r.Proxy, "127.0.0.2", "127.0.0.1:5060", 2000, "-r", "200", "-d", "20000", "-l", "2000")
		})
		both.Go(func() { r.calls(r.Proxy, "127.0.0.3", "127.0.0.1:5060", 1000, "-r", "50", "-d", "200") })
		both.Wait()
	}, func(int) {})
	t.Logf("%d reloads", reloads)
	r.wantOnePort()
}

// TestSIPAddressLost takes the address of the trunk away under 50 calls a second, and
// puts it back: hardly any fails, those to which an answer was on its way, and nothing
// leaves from elsewhere.
func TestSIPAddressLost(t *testing.T) {
	const calls, want = 500, 450
	voip := netip.MustParsePrefix("198.51.100.30/24")
	r := trunk(t, trunkConfig)
	r.answers(r.Server, "203.0.113.5", 5060)
	losses, successes := 0, ""
	r.reloading(func() {
		got := r.Proxy.Run(t, r.command("sipp", "-sn", "uac", "127.0.0.1:5060", "-i", "127.0.0.2", "-p", "5070", "-m", strconv.Itoa(calls),
			"-r", "50", "-d", "200", "-recv_timeout", "8000", "-nostdin", "-timeout", "50s"))
		successes = successful(got.Stdout)
	}, func(reloads int) {
		if reloads != 5 && reloads != 12 {
			return
		}
		r.Proxy.DelAddr(t, "wan0", voip)
		losses++
		r.log.wait(t, losses, "source port is gone")
		r.Proxy.AddAddr(t, "wan0", voip)
	})
	t.Logf("%s of %d calls were successful, the address was lost %d times", successes, calls, losses)
	if n, err := strconv.Atoi(successes); err != nil || n < want || losses != 2 {
		t.Errorf("want at least %d and 2", want)
	}
	r.wantOnePort()
}
