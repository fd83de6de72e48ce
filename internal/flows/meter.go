package flows

import (
	"maps"
	"slices"
	"time"
)

// SampleEvery is how often Sample is to be called for Traffic of the last minute.
const SampleEvery = 5 * time.Second

// samples is how many of them make the minute.
const samples = int(time.Minute / SampleEvery)

// Traffic is what was counted of a source. As in the log line, In is what came from
// the destinations and Out is what was sent to them, in bytes.
type Traffic struct {
	Opened uint64 // flows
	Failed uint64 // flows that were to leave from the source and were refused, or not connected
	In     uint64
	Out    uint64
}

func (t Traffic) minus(o Traffic) Traffic {
	return Traffic{t.Opened - o.Opened, t.Failed - o.Failed, t.In - o.In, t.Out - o.Out}
}

// SourceStats is what a Registry knows of one source.
type SourceStats struct {
	Name  string
	Live  int     // flows now
	Total Traffic // since the first flow

	// Minute is the traffic of the time Span: about the last minute, and less where the
	// Registry has not been sampled for so long, but never below SampleEvery.
	Minute Traffic
	Span   time.Duration
}

// meter counts what leaves from one source. It stays when no flow is left, since sources
// are few. The lock of the registry guards it.
type meter struct {
	live  int
	total Traffic
	past  [samples]sample // a ring, the oldest at next
	next  int
}

// sample is a total at some time. The zero one is none.
type sample struct {
	at    time.Time
	total Traffic
}

// meter returns the meter of a source, nil for no name.
func (r *Registry) meter(source string) *meter {
	if source == "" {
		return nil
	}
	m := r.sources[source]
	if m == nil {
		if r.sources == nil {
			r.sources = make(map[string]*meter)
		}
		now := time.Now()
		if r.began.IsZero() {
			r.began = now
		}
		m = new(meter)
		m.past[samples-1].at = now.Add(-min(now.Sub(r.began), time.Minute)) // it had nothing until now
		r.sources[source] = m
	}
	return m
}

// opened counts a flow that leaves from source.
func (r *Registry) opened(source string) *meter {
	m := r.meter(source)
	if m != nil {
		m.live++
		m.total.Opened++
	}
	return m
}

// leave counts one less.
func (m *meter) leave(f *Flow) {
	if m != nil {
		m.live--
		m.read(f)
	}
}

// read counts the bytes of f since it was read last.
func (m *meter) read(f *Flow) {
	in, out := f.Down.Load(), f.Up.Load()
	m.total.In += uint64(in - f.metered[0])
	m.total.Out += uint64(out - f.metered[1])
	f.metered = [2]int64{in, out}
}

// push keeps the total of now.
func (m *meter) push(now time.Time) {
	m.past[m.next] = sample{now, m.total}
	m.next = (m.next + 1) % samples
}

// oldest returns the first sample of the minute.
func (m *meter) oldest() sample {
	for i := range samples {
		if s := m.past[(m.next+i)%samples]; !s.at.IsZero() {
			return s
		}
	}
	return sample{}
}

// Sample reads the counters of all live flows, and keeps for a minute what the sources
// have by now. Call it every SampleEvery.
func (r *Registry) Sample() {
	r.readAll()
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.began.IsZero() {
		r.began = now
	}
	for _, m := range r.sources {
		m.push(now)
	}
}

// Sources returns what was counted of each source, by name.
func (r *Registry) Sources() []SourceStats {
	r.readAll()
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	out := make([]SourceStats, 0, len(r.sources))
	for _, name := range slices.Sorted(maps.Keys(r.sources)) {
		m := r.sources[name]
		first := m.oldest()
		out = append(out, SourceStats{
			Name:   name,
			Live:   m.live,
			Total:  m.total,
			Minute: m.total.minus(first.total),
			Span:   max(now.Sub(first.at), SampleEvery),
		})
	}
	return out
}

// burst is how many flows are read under one lock: there can be very many, and others
// want to open and to end theirs.
const burst = 256

// readAll brings the meters up to date.
func (r *Registry) readAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.live.first
	for next != nil {
		for n := 0; next != nil && n < burst; n++ {
			if next.source != nil {
				next.source.read(next)
			}
			next = next.next
		}
		if next != nil {
			next = r.pause(next)
		}
	}
}

// pause lets others have the lock for a moment. It returns the flow at the place of f:
// that is f, or when f has ended, the one that came after it.
func (r *Registry) pause(f *Flow) *Flow {
	var bookmark Flow
	r.live.before(f, &bookmark)
	r.mu.Unlock()
	r.mu.Lock()
	f = bookmark.next
	r.live.unlink(&bookmark)
	return f
}
