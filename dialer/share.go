package dialer

import "sync"

// share is the Limiter of one race: its attempts take one place of each source together,
// as at most one of them becomes a connection. The connection keeps that place, which is
// given back to the Limiter itself.
type share struct {
	limiter Limiter

	mu       sync.Mutex
	attempts map[*Source]int // that have a place now
}

var _ Limiter = (*share)(nil)

// shared returns d for the attempts of one race.
func (d *Dialer) shared() *Dialer {
	if d.Limiter == nil {
		return d
	}
	racing := *d
	racing.Limiter = &share{limiter: d.Limiter, attempts: make(map[*Source]int)}
	return &racing
}

func (h *share) has(s *Source) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.attempts[s] > 0
}

// Full implements Limiter.
func (h *share) Full(s *Source) error {
	if h.has(s) {
		return nil
	}
	return h.limiter.Full(s)
}

// Enter implements Limiter.
func (h *share) Enter(s *Source) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.attempts[s] == 0 {
		if err := h.limiter.Enter(s); err != nil {
			return err
		}
	}
	h.attempts[s]++
	return nil
}

// Leave implements Limiter.
func (h *share) Leave(s *Source) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.attempts[s]--; h.attempts[s] == 0 {
		h.limiter.Leave(s)
	}
}
