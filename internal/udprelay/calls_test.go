package udprelay

import (
	"fmt"
	"testing"
	"time"
)

// TestCallsBounded floods the calls of a client: they stay within their bound, and
// silent ones go first.
func TestCallsBounded(t *testing.T) {
	var c calls
	k := func(i int) callKey { return newCallKey(fmt.Append(nil, i), nil) }
	old := newCallKey([]byte("old"), []byte("tag"))
	c.add(0, old, leg{class: 1})
	if l, ok := c.find(time.Second, old); !ok || l.class != 1 {
		t.Fatalf("got %v, %v", l, ok)
	}
	if _, ok := c.find(0, newCallKey([]byte("old"), nil)); ok {
		t.Error("another tag is the same call")
	}
	for i := range maxCalls - 1 {
		c.add(callsForget, k(i), leg{})
	}
	now := callsForget + 2*time.Second
	c.add(now, k(maxCalls), leg{})
	if _, ok := c.find(now, old); ok {
		t.Error("the silent call is there still")
	}
	if n := len(c.by); n != maxCalls {
		t.Errorf("%d calls, want all but the silent one and the new one: %d", n, maxCalls)
	}
	for i := range 2 * maxCalls {
		c.add(now, k(maxCalls+i), leg{})
	}
	if n := len(c.by); n != maxCalls {
		t.Errorf("%d calls after a flood, want %d", n, maxCalls)
	}
}
