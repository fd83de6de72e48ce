package udprelay

import (
	"maps"
	"slices"
	"time"
)

// hurry lets the sweeper find out how soon it has to look again.
func (e *Engine) hurry() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// startSweeper starts it with the first forward or association. Mu is held.
func (e *Engine) startSweeper() {
	if !e.sweeping {
		e.sweeping = true
		e.all.Go(e.sweep)
	}
}

// sweep ends idle flows until the engine is closed. All flows share its one timer.
func (e *Engine) sweep() {
	t := time.NewTimer(e.interval())
	defer t.Stop()
	for {
		select {
		case <-e.done:
			return
		case <-e.wake:
		case <-t.C:
			e.expire()
			e.expireDestinations()
			e.holdAgain()
		}
		t.Reset(e.interval())
	}
}

// interval is how exactly flows end: an eighth of the shortest idle time, within
// 10 ms and a second.
func (e *Engine) interval() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	shortest := defaultIdle
	for f := range e.forwards {
		shortest = min(shortest, f.idleTime())
	}
	for a := range e.associations.live {
		shortest = min(shortest, a.idleTime())
	}
	return min(max(shortest/8, 10*time.Millisecond), time.Second)
}

// expire ends the flows that have been idle for too long.
func (e *Engine) expire() {
	now := e.now()
	e.mu.Lock()
	defer e.unlock()
	for f := range e.forwards {
		for fl := f.idle.oldest(); fl != nil && now-fl.lastUsed() >= f.idleTime(); fl = f.idle.oldest() {
			if fl.trunk != nil && fl.trunk.busy(now, fl) {
				fl.use(now) // its silence counts from when that has ended, about
				continue
			}
			e.remove(fl, fl.outcome())
		}
	}
	for _, o := range e.owners {
		if o.trunk != nil {
			o.trunk.expire(now)
		}
	}
}

// expireDestinations forgets where associations have not sent for too long. An
// association's lock comes before mu.
func (e *Engine) expireDestinations() {
	e.mu.Lock()
	live := slices.Collect(maps.Keys(e.associations.live))
	e.mu.Unlock()
	now := e.now()
	for _, a := range live {
		a.expire(now)
	}
}

// holdAgain tries once more to take the fixed ports that could not be had.
func (e *Engine) holdAgain() {
	e.mu.Lock()
	var missing []*Forward
	for f := range e.forwards {
		if f.missing && e.now() >= f.again {
			missing = append(missing, f)
		}
	}
	e.mu.Unlock()
	e.holdPorts(missing)
}

// oldest returns the flow that has been idle for the longest time, of a listener or,
// without a name, of all.
func (e *Engine) oldest(listener string) *flow {
	var first *flow
	for f := range e.forwards {
		if listener != "" && f.settings.Load().Name != listener {
			continue
		}
		if fl := f.idle.oldest(); fl != nil && (first == nil || fl.lastUsed() < first.lastUsed()) {
			first = fl
		}
	}
	return first
}

// spare returns the flow that makes room for another: of those that oldest may return,
// the first without a registration or call. Where each has one it is the oldest, and for
// a second none is looked at.
func (e *Engine) spare(listener string) *flow {
	now := e.now()
	for range e.count {
		fl := e.oldest(listener)
		if fl == nil || fl.trunk == nil || now < e.crowded || !fl.trunk.settled(now, fl) {
			return fl
		}
		fl.use(now) // its silence counts from now on
	}
	e.crowded = now + time.Second
	return e.oldest(listener)
}

// evict ends fl to make room.
func (e *Engine) evict(fl *flow) {
	if fl != nil {
		fl.forward.counts().evicted.Add(1)
		e.remove(fl, ErrEvicted)
	}
}
