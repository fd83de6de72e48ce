package dialer

import (
	"context"
	"math"
	"net"
	"time"
)

// outcome is the end of one attempt of a race.
type outcome struct {
	conn net.Conn
	dec  Decision
	err  error
	i    int
}

// maxRacing bounds the attempts of one dial that are under way at the same time, and
// with them its sockets: whoever names a destination could otherwise have a socket for
// each of the addresses that do not answer.
const maxRacing = 8

// race dials flows, the addresses of one name, and returns the first connection. An
// address is started when one before it has failed, or when the last one started has
// been tried for the fallback delay.
func (d *Dialer) race(ctx context.Context, f *Flow, flows []Flow) (net.Conn, Decision, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan outcome)
	racing := d.shared()
	timer := time.NewTimer(d.fallbackDelay())
	defer timer.Stop()
	started := 0
	start := func() {
		if started == len(flows) {
			return
		}
		go racing.attempt(ctx, flows, started, results)
		started++
		timer.Reset(d.fallbackDelay())
	}
	failed := make([]outcome, len(flows))
	start()
	for ended := 0; ended < len(flows); {
		select {
		case <-timer.C:
			if started-ended < maxRacing {
				start()
			} // else the end of one starts the next
		case o := <-results:
			ended++
			if o.err == nil {
				go racing.closeLosers(results, started-ended)
				return o.conn, o.dec, nil
			}
			failed[o.i] = o
			start()
		}
	}
	first := &failed[0].dec
	return nil, *first, opError(f, first, allOf(failed))
}

func (d *Dialer) attempt(ctx context.Context, flows []Flow, i int, results chan<- outcome) {
	if d.FallbackDelay >= 0 && i+maxRacing < len(flows) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, maxRacing*d.fallbackDelay())
		defer cancel()
	}
	c, dec, err := d.dialAddr(ctx, &flows[i])
	results <- outcome{c, dec, err, i}
}

func (d *Dialer) fallbackDelay() time.Duration {
	switch {
	case d.FallbackDelay < 0:
		return math.MaxInt64
	case d.FallbackDelay == 0:
		return 300 * time.Millisecond
	}
	return d.FallbackDelay
}

// closeLosers takes the n outcomes that are still to come. The race's context is
// cancelled by then, so that they come soon.
func (d *Dialer) closeLosers(results <-chan outcome, n int) {
	for range n {
		if o := <-results; o.conn != nil {
			_ = o.conn.Close() // nobody has used it
			d.Release(&o.dec)
		}
	}
}

func allOf(failed []outcome) attempts {
	all := make(attempts, len(failed))
	for i, o := range failed {
		all[i] = o.err
	}
	return all
}
