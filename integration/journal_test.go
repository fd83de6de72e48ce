//go:build linux

package integration

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait for something that is due at once.
const patience = 10 * time.Second

// entry is one line of the program's log.
type entry map[string]any

// text is the value of a key that holds a string, or "".
func (e entry) text(key string) string {
	s, _ := e[key].(string)
	return s
}

// number is the value of a key that holds a number, or 0.
func (e entry) number(key string) int {
	f, _ := e[key].(float64)
	return int(f)
}

// journal collects what the program writes to its standard error. It is safe
// for concurrent use.
type journal struct {
	mu      sync.Mutex
	partial []byte
	all     bytes.Buffer
	entries []entry
	plain   []string      // lines that are not JSON
	changed chan struct{} // closed and replaced with each line
}

func newJournal() *journal { return &journal{changed: make(chan struct{})} }

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all.Write(b)
	j.partial = append(j.partial, b...)
	for {
		line, rest, found := bytes.Cut(j.partial, []byte("\n"))
		if !found {
			return len(b), nil
		}
		j.add(line)
		j.partial = append([]byte(nil), rest...)
	}
}

func (j *journal) add(line []byte) {
	var e entry
	if err := json.Unmarshal(line, &e); err != nil {
		j.plain = append(j.plain, string(line))
	} else {
		j.entries = append(j.entries, e)
	}
	close(j.changed)
	j.changed = make(chan struct{})
}

// with returns the entries that have one of the messages, and a channel that is
// closed when there is more to see.
func (j *journal) with(msgs ...string) ([]entry, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []entry
	for _, e := range j.entries {
		for _, msg := range msgs {
			if e.text("msg") == msg {
				found = append(found, e)
			}
		}
	}
	return found, j.changed
}

// wait waits until n entries have one of the messages, and returns them.
func (j *journal) wait(t testing.TB, n int, msgs ...string) []entry {
	t.Helper()
	return j.waitFor(t, n, func(entry) bool { return true }, msgs...)
}

// waitFor is wait for entries that match.
func (j *journal) waitFor(t testing.TB, n int, match func(entry) bool, msgs ...string) []entry {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		all, changed := j.with(msgs...)
		var found []entry
		for _, e := range all {
			if match(e) {
				found = append(found, e)
			}
		}
		if len(found) >= n {
			return found
		}
		select {
		case <-changed:
		case <-limit.C:
			t.Fatalf("%d log lines %q in %v, want %d of", len(found), msgs, patience, n)
		}
	}
}

// lines is the number of lines so far.
func (j *journal) lines() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.entries) + len(j.plain)
}

// from returns the entries but for the first n.
func (j *journal) from(n int) []entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.entries[n:])
}

// notJSON are the lines that are not JSON.
func (j *journal) notJSON() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.plain...)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.all.String()
}

// tail is the end of the log, for messages.
func (j *journal) tail() string {
	lines := strings.SplitAfter(j.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "")
}
