package server

import (
	"fmt"
	"io"
	"log/slog"
	"testing"
)

// gate is a writer that lets lines through when it is told to.
type gate struct {
	open chan struct{}
	to   io.Writer
}

func (g *gate) Write(b []byte) (int, error) {
	<-g.open
	return g.to.Write(b)
}

func jsonTo(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) }

// TestBacklog logs more than fits to a reader that sleeps, and then wakes it.
func TestBacklog(t *testing.T) {
	g := &gate{make(chan struct{}), &journal{changed: make(chan struct{})}}
	b := newBacklog(g, jsonTo)
	log := slog.New(jsonTo(b))
	const tooMany = 100
	for i := range maxBacklog + 1 + tooMany { // one more is being written
		log.Info("line", "n", i)
	}
	close(g.open)
	l := g.to.(*journal).wait(t, "log lines dropped", 1)[0]
	if n, ok := l["lines"].(float64); !ok || n < tooMany || n > tooMany+1 {
		t.Errorf("%v lines were dropped, want %d", l["lines"], tooMany)
	}
	b.close()
	lines := g.to.(*journal).all("line")
	if n := len(lines); n < maxBacklog || n > maxBacklog+1 {
		t.Fatalf("%d lines came, want %d", n, maxBacklog)
	}
	for i, l := range lines {
		if l.text("n") != fmt.Sprint(i) {
			t.Fatalf("line %d is %v", i, l)
		}
	}
}

// TestBacklogCloses though nobody reads.
func TestBacklogCloses(t *testing.T) {
	g := &gate{make(chan struct{}), io.Discard}
	b := newBacklog(g, jsonTo)
	slog.New(jsonTo(b)).Info("line")
	b.close()
	select {
	case <-b.ended:
		t.Error("the line was written")
	default:
	}
	close(g.open)
	<-b.ended
}
