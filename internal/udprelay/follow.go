package udprelay

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// How often the name of a target is looked up that calls may come from.
const (
	followEvery = time.Minute
	followAgain = 5 * time.Second // after a failure
)

// followsName tells whether calls may come from a name: the port is then to be held,
// and its addresses to be known, before a client has spoken.
func (s *Settings) followsName() bool {
	return s.ShareSIP && s.Target.Name != "" && !s.Target.Dst.Addr().IsValid()
}

// follow looks the name of the target up from now on, if s asks for that.
func (f *Forward) follow(s *Settings) {
	select {
	case f.renewed <- struct{}{}:
	default:
	}
	if !s.followsName() {
		f.known.Store(nil)
		return
	}
	f.engine.mu.Lock()
	defer f.engine.mu.Unlock()
	if !f.closed && !f.looking {
		f.looking = true
		f.goroutines.Go(f.lookUp)
	}
}

// lookUp looks up until f is closed. It rests while there is no name.
func (f *Forward) lookUp() {
	t := time.NewTimer(followEvery) // follow has asked for the first look
	defer t.Stop()
	warned := false
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-f.renewed:
			warned = false
		case <-t.C:
		}
		s := f.settings.Load()
		if !s.followsName() {
			continue
		}
		err := f.lookUpOnce(s)
		if err != nil && !warned {
			f.warn(s, err)
		}
		warned = err != nil
		if err != nil {
			t.Reset(followAgain)
		} else {
			t.Reset(followEvery)
		}
	}
}

// lookUpOnce holds the port for the first address of the name, and lets calls come from
// all of them.
func (f *Forward) lookUpOnce(s *Settings) error {
	ctx, cancel := context.WithTimeout(f.ctx, lookupTimeout)
	defer cancel()
	o := f.opening(s, key{}, 0)
	candidates, dec, err := s.Dialer.Resolve(ctx, o.query)
	if err != nil {
		return err
	}
	addrs := make([]netip.Addr, len(candidates))
	for i, q := range candidates {
		addrs[i] = q.Dst.Addr().Unmap()
	}
	f.known.Store(&addrs)
	var errs []error
	for _, q := range candidates {
		if dec = s.Dialer.Decide(q); dec.Err == nil && dec.Use.Pool == nil {
			return f.holdRoute(s, routeOf(&dec, numericZone(q.Dst), o.port), nil)
		}
		errs = append(errs, dec.Err)
	}
	return errors.Join(errs...)
}
