package flows_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/srcproxy/srcproxy/internal/flows"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func info(source, user, client string) flows.Info {
	return flows.Info{Source: source, User: user, Client: netip.MustParseAddrPort(client)}
}

func TestCounts(t *testing.T) {
	var r flows.Registry
	a := r.Open(info("wan1", "ann", "192.0.2.1:1000"), nil)
	b := r.Open(info("wan1", "ben", "192.0.2.1:1001"), nil)
	c := r.Open(info("wan2", "ann", "[2001:db8::1]:1002"), nil)
	d := r.Open(flows.Info{}, nil)
	steps := []struct {
		name string
		done *flows.Flow
		want [3]int // flows, of wan1, of wan2
	}{
		{"all open", nil, [3]int{4, 2, 1}},
		{"first done", a, [3]int{3, 1, 1}},
		{"done twice", a, [3]int{3, 1, 1}},
		{"last but one", c, [3]int{2, 1, 0}},
		{"nameless", d, [3]int{1, 1, 0}},
		{"none", b, [3]int{}},
	}
	for _, s := range steps {
		if s.done != nil {
			s.done.Done(nil)
		}
		if got := [3]int{r.Len(), r.SourceLen("wan1"), r.SourceLen("wan2")}; got != s.want {
			t.Errorf("%s: got %v, want %v", s.name, got, s.want)
		}
		if r.SourceLen("") != 0 {
			t.Errorf("%s: the empty name is counted", s.name)
		}
		if got := len(r.All()); got != s.want[0] {
			t.Errorf("%s: All: got %d, want %d", s.name, got, s.want[0])
		}
	}
}

func TestAllIsInOrder(t *testing.T) {
	var r flows.Registry
	var open []*flows.Flow
	for range 5 {
		open = append(open, r.Open(flows.Info{}, nil))
	}
	open[2].Done(nil)
	open[0].Done(nil)
	open[4].Done(nil)
	last := r.Open(flows.Info{}, nil)
	var got []uint64
	for _, f := range r.All() {
		got = append(got, f.ID)
	}
	if want := fmt.Sprint([]uint64{2, 4, 6}); fmt.Sprint(got) != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if r.Get(6) != last || r.Get(3) != nil {
		t.Errorf("Get: got %v, %v", r.Get(6), r.Get(3))
	}
}

func TestClose(t *testing.T) {
	var r flows.Registry
	var calls []error
	f := r.Open(flows.Info{}, func(reason error) { calls = append(calls, reason) })
	if f.Reason() != nil {
		t.Errorf("Reason: got %v, want nil", f.Reason())
	}
	f.Close(flows.ErrSourceDown)
	f.Close(flows.ErrDrained)
	if len(calls) != 1 || calls[0] != flows.ErrSourceDown || f.Reason() != flows.ErrSourceDown {
		t.Errorf("got %v, reason %v, want the first only", calls, f.Reason())
	}
	if r.Len() != 1 {
		t.Error("Close has removed the flow")
	}
	f.Done(io.EOF)
	g := r.Open(flows.Info{}, func(error) { t.Error("Close after Done asks the owner") })
	g.Done(nil)
	g.Close(nil)
	h := r.Open(flows.Info{}, nil)
	h.Close(nil)
	if h.Reason() != flows.ErrClosed {
		t.Errorf("nil reason: got %v, want ErrClosed", h.Reason())
	}
}

func TestCloseAll(t *testing.T) {
	var r flows.Registry
	var closed atomic.Int32
	for range 10 {
		var f *flows.Flow
		opened := make(chan struct{})
		f = r.Open(flows.Info{}, func(reason error) {
			<-opened
			closed.Add(1)
			f.Done(reason) // an owner that ends the flow at once must not meet a lock
		})
		close(opened)
	}
	r.CloseAll(flows.ErrDrained)
	if closed.Load() != 10 || r.Len() != 0 {
		t.Errorf("got %d closed, %d left", closed.Load(), r.Len())
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r flows.Registry
		if err := r.Wait(t.Context()); err != nil {
			t.Errorf("empty: got %v, want nil", err)
		}
		a, b := r.Open(flows.Info{}, nil), r.Open(flows.Info{}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("two left: got %v, want a timeout", err)
		}
		done := make(chan error, 3)
		for range 2 {
			go func() { done <- r.Wait(t.Context()) }()
		}
		synctest.Wait()
		a.Done(nil)
		synctest.Wait()
		if len(done) != 0 {
			t.Error("Wait has returned with one left")
		}
		b.Done(nil)
		synctest.Wait()
		if len(done) != 2 {
			t.Error("Wait has not returned")
		}
		c := r.Open(flows.Info{}, nil) // used again
		go func() { done <- r.Wait(t.Context()) }()
		synctest.Wait()
		c.Done(nil)
		synctest.Wait()
		if len(done) != 3 {
			t.Error("the second Wait has not returned")
		}
	})
}

func TestConcurrent(t *testing.T) {
	var r flows.Registry
	var wait sync.WaitGroup
	var closed, ids atomic.Int64
	stop := make(chan struct{})
	wait.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				r.CloseAll(flows.ErrClosed)
				_, _, _ = r.Len(), r.SourceLen("wan1"), r.All()
			}
		}
	})
	var owners sync.WaitGroup
	for i := range 8 {
		owners.Go(func() {
			for j := range 500 {
				f := r.Open(info("wan1", fmt.Sprint("user", i), "192.0.2.1:1"), func(error) { closed.Add(1) })
				ids.Add(int64(f.ID))
				f.Up.Add(int64(j))
				owners.Go(func() { f.Close(nil) })
				f.Done(nil)
				f.Done(nil)
			}
		})
	}
	owners.Wait()
	close(stop)
	wait.Wait()
	if r.Len() != 0 || r.SourceLen("wan1") != 0 {
		t.Errorf("got %d flows, %d of the source", r.Len(), r.SourceLen("wan1"))
	}
	if got, want := ids.Load(), int64(4000*4001/2); got != want {
		t.Errorf("sum of numbers: got %d, want %d: not all are distinct", got, want)
	}
}

func BenchmarkOpenDone(b *testing.B) {
	for _, live := range []int{0, 10000} {
		b.Run(fmt.Sprintf("live=%d", live), func(b *testing.B) {
			var r flows.Registry
			i := info("wan1", "ann", "192.0.2.1:1000")
			for range live {
				r.Open(i, nil)
			}
			b.ReportAllocs()
			began := cpu(b)
			for b.Loop() {
				r.Open(i, nil).Done(nil)
			}
			b.ReportMetric(float64(cpu(b)-began)/float64(b.N), "cpu-ns/op")
		})
	}
	b.Run("parallel", func(b *testing.B) {
		var r flows.Registry
		i := info("wan1", "ann", "192.0.2.1:1000")
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				r.Open(i, nil).Done(nil)
			}
		})
	})
}

// cpu returns the time this process has used: it tells more than the clock on
// a busy machine.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkSourceLen(b *testing.B) {
	var r flows.Registry
	for i := range 10000 {
		r.Open(info(fmt.Sprint("s", i%16), "", "192.0.2.1:1000"), nil)
	}
	for b.Loop() {
		r.SourceLen("s7")
	}
}

func TestAllocs(t *testing.T) {
	var r flows.Registry
	i := info("wan1", "ann", "192.0.2.1:1000")
	r.Open(i, nil)
	if n := testing.AllocsPerRun(1000, func() { r.SourceLen("wan1"); r.Len() }); n != 0 {
		t.Errorf("counts: got %v allocations, want 0", n)
	}
	if n := testing.AllocsPerRun(1000, func() { r.Open(i, nil).Done(nil) }); n != 1 {
		t.Errorf("Open and Done: got %v allocations, want 1, the Flow", n)
	}
}

func ExampleRegistry() {
	var r flows.Registry
	f := r.Open(flows.Info{Source: "wan1"}, func(reason error) { fmt.Println("closing:", reason) })
	f.Down.Add(1500)
	fmt.Println(r.Len(), r.SourceLen("wan1"))
	f.Close(flows.ErrDrained)
	f.Done(nil)
	fmt.Println(r.Len())
	// Output:
	// 1 1
	// closing: ended by the drain limit
	// 0
}
