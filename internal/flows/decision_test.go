package flows_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/flows"
)

func TestDecision(t *testing.T) {
	const who, someone = `time=2026-11-26T14:02:11.208Z level=INFO msg=decision attach=asterisk.service program="aster isk" pid=812 uid=109 protocol=udp `,
		"14:02:11.208 aster isk[812] uid 109 udp"
	src := netip.MustParseAddrPort("198.51.100.30:5060")
	refused := fmt.Errorf("dial 203.0.113.5:5060: %w", errors.New("203.0.113.5 is denied"))
	for _, tt := range []struct {
		name       string
		hide       bool // no destinations
		change     func(*flows.Decision)
		want, line string
	}{
		{
			"full", false, func(*flows.Decision) {},
			who + `dst=203.0.113.5:5060 rule="a voice" source=voip src=198.51.100.30:5060`,
			someone + ` 203.0.113.5:5060 from 198.51.100.30:5060 (voip), rule "a voice"`,
		},
		{
			"hidden", true, func(*flows.Decision) {},
			who + `rule="a voice" source=voip src=198.51.100.30:5060`,
			someone + ` from 198.51.100.30:5060 (voip), rule "a voice"`,
		},
		{
			"no port yet", false, func(d *flows.Decision) { d.Src, d.Port, d.Rule = netip.AddrPortFrom(src.Addr(), 0), 0, "default" },
			who + `dst=203.0.113.5:5060 rule=default source=voip src=198.51.100.30`,
			someone + ` 203.0.113.5:5060 from 198.51.100.30 (voip), default`,
		},
		{
			"kernel", false, func(d *flows.Decision) { d.Src, d.Source = netip.AddrPort{}, "kernel" },
			who + `dst=203.0.113.5:5060 rule="a voice" source=kernel local_port=5060`,
			someone + ` 203.0.113.5:5060 from port 5060 (kernel), rule "a voice"`,
		},
		{
			"own", false, func(d *flows.Decision) { d.Source = "" },
			who + `dst=203.0.113.5:5060 rule="a voice" src=198.51.100.30:5060`,
			someone + ` 203.0.113.5:5060 from 198.51.100.30:5060 (its own choice), rule "a voice"`,
		},
		{
			"refused", false, func(d *flows.Decision) { d.Src, d.Source, d.Port, d.Err = netip.AddrPort{}, "", 0, refused },
			who + `dst=203.0.113.5:5060 rule="a voice" err="dial 203.0.113.5:5060: 203.0.113.5 is denied"`,
			someone + ` 203.0.113.5:5060 refused: dial 203.0.113.5:5060: 203.0.113.5 is denied`,
		},
		{
			"refused, hidden", true, func(d *flows.Decision) { d.Src, d.Source, d.Port, d.Err = netip.AddrPort{}, "", 0, refused },
			who + `rule="a voice" err="- is denied"`,
			someone + ` refused: - is denied`,
		},
		{
			"a name that steers", true, func(d *flows.Decision) { d.Program = "a\nb\x1b[2J" },
			`time=2026-11-26T14:02:11.208Z level=INFO msg=decision attach=asterisk.service program=a␊b␛[2J pid=812 uid=109 protocol=udp rule="a voice" source=voip src=198.51.100.30:5060`,
			`14:02:11.208 a␊b␛[2J[812] uid 109 udp from 198.51.100.30:5060 (voip), rule "a voice"`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := flows.Decision{
				Time: time.Date(2026, 11, 26, 14, 2, 11, 208e6, time.UTC), Attach: "asterisk.service", Program: "aster isk", PID: 812, UID: 109,
				Protocol: "udp", Dst: netip.MustParseAddrPort("203.0.113.5:5060"), Rule: "a voice", Source: "voip", Src: src, Port: 5060,
			}
			tt.change(&d)
			var b bytes.Buffer
			r := &flows.Registry{Log: slog.New(slog.NewTextHandler(&b, nil))}
			r.SetLogging(false, !tt.hide) // that flows have no lines does not matter
			r.LogDecision(&d)
			if got, want := b.String(), tt.want+"\n"; got != want {
				t.Errorf("logged\n%swant\n%s", got, want)
			}
			if got, want := d.Line(!tt.hide), tt.line+"\n"; got != want {
				t.Errorf("for people\n%swant\n%s", got, want)
			}
		})
	}
}
