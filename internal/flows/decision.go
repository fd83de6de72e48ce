package flows

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"
)

// A Decision is what the kernel plane has decided for a call of a program. Its flow is
// the kernel's: how it ends is not seen.
type Decision struct {
	Time     time.Time
	Attach   string // what the rules are attached to
	Program  string // as it calls itself
	PID, UID uint32
	Protocol string // "tcp", "udp", or another
	Dst      netip.AddrPort
	Rule     string
	Source   string         // "" where the program chose, or none is up
	Src      netip.AddrPort // what the destination sees; a port of 0 is not known yet
	Port     uint16         // the local port where there is no Src; 0: any
	Err      error          // nil: it was let through
}

// LogDecision writes the one line of a decision, level info, message "decision", with the
// time at which it was made. Where they say the same, keys are those of a flow:
//
//	attach program pid uid protocol dst rule source src local_port err
//
// Whether there are lines of flows does not matter; destinations are left out as there.
func (r *Registry) LogDecision(d *Decision) {
	if r.Log == nil || !r.Log.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	a := make(attrs, 0, 11)
	a.text("attach", d.Attach)
	a.text("program", d.Program)
	a = append(a, slog.Uint64("pid", uint64(d.PID)), slog.Uint64("uid", uint64(d.UID)))
	a.text("protocol", d.Protocol)
	if r.logDestinations.Load() {
		a.addr("dst", d.Dst)
	}
	a.text("rule", d.Rule)
	a.text("source", d.Source)
	a.addr("src", d.Src)
	if !d.Src.IsValid() && d.Port != 0 {
		a = append(a, slog.Uint64("local_port", uint64(d.Port)))
	}
	if d.Err != nil {
		a.text("err", errText(&Info{Dst: d.Dst}, d.Err, r.logDestinations.Load()))
	}
	line := slog.NewRecord(d.Time, slog.LevelInfo, "decision", 0)
	line.AddAttrs(a...)
	_ = r.Log.Handler().Handle(context.Background(), line) // there is nowhere to say so
}

// Line returns the same for people, with a line feed at its end:
//
//	15:04:05.000 curl[1234] uid 1000 tcp 203.0.113.1:443 from 198.51.100.10 (wan), rule "mail"
//	15:04:05.000 curl[1234] uid 1000 tcp 203.0.113.66:443 refused: rule "forbidden": denied
func (d *Decision) Line(destinations bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s[%d] uid %d %s", d.Time.Format("15:04:05.000"), Clean(d.Program), d.PID, d.UID, d.Protocol)
	if destinations {
		b.WriteString(" " + withPort(d.Dst))
	}
	switch {
	case d.Err != nil:
		b.WriteString(" refused")
	case d.Src.IsValid():
		b.WriteString(" from " + withPort(d.Src))
	case d.Port != 0:
		fmt.Fprintf(&b, " from port %d", d.Port)
	}
	switch {
	case d.Err != nil:
		return b.String() + ": " + Clean(errText(&Info{Dst: d.Dst}, d.Err, destinations)) + "\n"
	case d.Source == "":
		b.WriteString(" (its own choice), ")
	default:
		b.WriteString(" (" + Clean(d.Source) + "), ")
	}
	if d.Rule == "default" {
		return b.String() + d.Rule + "\n"
	}
	return fmt.Sprintf("%srule %q\n", b.String(), d.Rule)
}

// withPort leaves out a port that is not known.
func withPort(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}
