package server

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/explain"
)

// TestMarksTell: of a mark that fails by another destination with each look there is a line now and then, the last state
// is told in the end, and that it leads again at once.
func TestMarksTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b strings.Builder
		m := marks{log: slog.New(slog.NewTextHandler(&b, nil)), found: make(map[string][]mark)}
		tell := func(fault string) {
			x := mark{Marked: explain.Marked{Source: &dialer.Source{Name: "voip", Mark: 107}, Addr: netip.MustParseAddr("198.51.100.10")}}
			if fault != "" {
				x.fault = &explain.Fault{Text: fault}
			}
			m.tell("one", []mark{x})
		}
		want := func(lines int, last string) {
			t.Helper()
			got := strings.Split(strings.TrimSpace(b.String()), "\n")
			if len(got) != lines || !strings.Contains(got[len(got)-1], last) {
				t.Errorf("%d lines, want %d that end with %q:\n%s", len(got), lines, last, b.String())
			}
		}
		tell("")
		for i := range 100 {
			tell(fmt.Sprint("fault ", i))
		}
		want(1, "fault 0")
		<-time.After(faultPause)
		tell("fault 99")
		tell("fault 99")
		want(2, "fault 99")
		tell("")
		want(3, "a mark leads to its source")
		tell("fault 100")
		want(4, "fault 100")
	})
}
