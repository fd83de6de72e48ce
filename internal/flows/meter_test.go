package flows_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/srcproxy/srcproxy/internal/flows"
)

// sample calls Sample as the program does, for that long, and returns after the last call:
// d is a multiple of SampleEvery. Ticks are counted, since an end by a timer of its own
// would come together with the last one, and lose it or not.
func sample(r *flows.Registry, d time.Duration) {
	tick := time.NewTicker(flows.SampleEvery)
	defer tick.Stop()
	for range d / flows.SampleEvery {
		<-tick.C
		r.Sample()
	}
}

// stats returns those of the only source.
func stats(t *testing.T, r *flows.Registry) flows.SourceStats {
	t.Helper()
	all := r.Sources()
	if len(all) != 1 {
		t.Fatalf("got %d sources, want 1: %+v", len(all), all)
	}
	return all[0]
}

func TestSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r flows.Registry
		r.Sample()
		long := r.Open(info("wan1", "", "192.0.2.1:1"), nil)
		short := r.Open(info("wan1", "", "192.0.2.1:2"), nil)
		r.Open(flows.Info{}, nil)
		long.Up.Add(10)
		long.Down.Add(1000)
		short.Down.Add(500)
		short.Done(nil)
		r.Refuse(info("wan1", "", "192.0.2.1:3"), time.Now(), errors.New("no route"))
		r.Count("", "wan1", nil)

		all := flows.Traffic{Opened: 3, Failed: 1, In: 1500, Out: 10}
		want := flows.SourceStats{Name: "wan1", Live: 1, Total: all, Minute: all, Span: flows.SampleEvery}
		if diff := cmp.Diff(want, stats(t, &r)); diff != "" {
			t.Errorf("at once (-want +got):\n%s", diff)
		}
		sample(&r, 30*time.Second)
		want.Span = 30 * time.Second
		if diff := cmp.Diff(want, stats(t, &r)); diff != "" {
			t.Errorf("after half a minute (-want +got):\n%s", diff)
		}
		long.Down.Add(7)
		sample(&r, 45*time.Second)
		got := stats(t, &r)
		if want := (flows.Traffic{In: 7}); got.Minute != want {
			t.Errorf("the minute that began after the burst: got %+v, want %+v", got.Minute, want)
		}
		if want := time.Minute - flows.SampleEvery; got.Span != want {
			t.Errorf("after a sample the minute takes %v, want %v", got.Span, want)
		}
		<-time.After(flows.SampleEvery - 1)
		if got, want := stats(t, &r).Span, time.Minute-1; got != want {
			t.Errorf("before the next sample the minute takes %v, want %v", got, want)
		}
		long.Done(nil)
		sample(&r, 2*time.Minute)
		got = stats(t, &r)
		all.In += 7
		if got.Live != 0 || got.Total != all || got.Minute != (flows.Traffic{}) {
			t.Errorf("at the end: got %+v, want the total %+v and an empty minute", got, all)
		}
	})
}

// TestNewSource: what a source does first is not taken for its rate.
func TestNewSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r flows.Registry
		r.Sample()
		sample(&r, 5*time.Minute)
		r.Open(info("wan1", "", "192.0.2.1:1"), nil)
		if got := stats(t, &r); got.Minute.Opened != 1 || got.Span != time.Minute {
			t.Errorf("got %+v, want one flow in a minute", got)
		}
	})
}

func TestRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		denied := errors.New("denied")
		r := flows.Registry{Denied: denied}
		start := time.Now()
		r.Open(flows.Info{Rule: "mail"}, nil).Done(nil)
		r.Open(flows.Info{}, nil)
		<-time.After(time.Second)
		r.Refuse(flows.Info{Rule: "mail"}, start, errors.New("no route"))
		r.Refuse(flows.Info{Rule: "inside"}, start, fmt.Errorf("rule: %w", denied))
		r.Count("default", "", nil)
		r.Count("", "", denied)
		now := time.Now()
		want := []flows.RuleStats{
			{Name: "default", Hits: 1, Last: now},
			{Name: "inside", Hits: 1, Denied: 1, Last: now},
			{Name: "mail", Hits: 2, Last: now},
		}
		if diff := cmp.Diff(want, r.Rules()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		r.KeepRules(map[string]string{"inside": "rule 7", "none": "rule 8"})
		want[1].Name = "rule 7"
		if diff := cmp.Diff(want[1:2], r.Rules()); diff != "" {
			t.Errorf("kept, -want +got:\n%s", diff)
		}
	})
}

// TestReadAll reads the counters while flows open and end before, at and after the
// place that is read.
func TestReadAll(t *testing.T) {
	var r flows.Registry
	i := info("wan1", "", "192.0.2.1:1")
	const workers, each, live = 4, 3000, 500
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			var open []*flows.Flow
			for n := range each {
				f := r.Open(i, nil)
				f.Down.Add(1)
				if open = append(open, f); len(open) == live {
					at := n * 7 % live
					f = open[at]
					open[at] = open[live-1]
					open = open[:live-1]
					f.Down.Add(1)
					f.Done(nil)
				}
			}
			for _, f := range open {
				f.Down.Add(1)
				f.Done(nil)
			}
		})
	}
	ended := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
					r.Sample()
					if f := r.Get(0); f != nil {
						t.Error("Get returns a flow without a number")
					}
					for _, f := range r.All() {
						if f.ID == 0 {
							t.Error("All returns a flow without a number")
						}
					}
				}
			}
		})
	}
	running.Wait()
	close(ended)
	readers.Wait()
	got := stats(t, &r)
	if want := (flows.Traffic{Opened: workers * each, In: 2 * workers * each}); got.Total != want || got.Live != 0 {
		t.Errorf("got %+v, want the total %+v", got, want)
	}
	if r.Len() != 0 || len(r.All()) != 0 {
		t.Errorf("%d flows are left", r.Len())
	}
}

func BenchmarkSample(b *testing.B) {
	var r flows.Registry
	for n := range 100000 {
		r.Open(info(fmt.Sprint("s", n%16), "", "192.0.2.1:1000"), nil)
	}
	for b.Loop() {
		r.Sample()
	}
}
