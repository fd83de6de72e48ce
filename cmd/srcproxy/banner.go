package main

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/srcproxy/srcproxy/internal/config"
)

// banner is what serve says when it is ready.
type banner struct {
	Version string     `json:"version"`
	Config  string     `json:"config"`
	Default string     `json:"default"`
	Listen  []listener `json:"listen"`
	Attach  []string   `json:"attach,omitempty"` // the services and control groups that the rules are for
	Try     string     `json:"try,omitempty"`    // a command to paste
}

type listener struct {
	Name  string   `json:"name"`
	Kind  string   `json:"kind"`
	Addrs []string `json:"addrs"`
	To    string   `json:"to,omitempty"` // of a forward

	speaks string
}

// speaks names the protocols of a kind of proxy.
func speaks(k config.Kind) string {
	switch k {
	case config.Mixed:
		return "SOCKS4, SOCKS5 and HTTP CONNECT"
	case config.SOCKS:
		return "SOCKS4 and SOCKS5"
	case config.HTTP:
		return "HTTP CONNECT"
	}
	return ""
}

// newBanner takes the addresses as configured, with the real ports where the kernel
// chose them.
func newBanner(cfg *config.Config, addrs []net.Addr) *banner {
	b := &banner{Version: versionName(), Config: cfg.Path, Default: cfg.Default.String()}
	if b.Config == "" {
		b.Config = "built-in configuration"
	}
	for i := range cfg.Listen {
		l := &cfg.Listen[i]
		out := listener{Name: l.Name, Kind: l.Kind.String(), speaks: speaks(l.Kind)}
		if l.Kind.IsForward() {
			out.To = l.To.String()
		}
		for _, a := range l.Addrs {
			a = bound(a, l.Kind == config.UDP, addrs)
			out.Addrs = append(out.Addrs, addrText(l, a))
			if b.Try == "" {
				b.Try = curl(l, a)
			}
		}
		b.Listen = append(b.Listen, out)
	}
	for i := range cfg.Attach {
		b.Attach = append(b.Attach, cfg.Attach[i].Name())
	}
	return b
}

// addrText is the address a of l with all its ports.
func addrText(l *config.Listener, a netip.AddrPort) string {
	if l.Ports.IsZero() {
		return a.String()
	}
	return fmt.Sprintf("%v-%d", a, l.Ports.Hi)
}

// bound returns the address that a configured one became.
func bound(a netip.AddrPort, udp bool, addrs []net.Addr) netip.AddrPort {
	if a.Port() != 0 {
		return a
	}
	for _, x := range addrs {
		got, err := netip.ParseAddrPort(x.String())
		if err == nil && strings.HasPrefix(x.Network(), "udp") == udp && got.Addr() == a.Addr() {
			return got
		}
	}
	return a
}

// curl returns a command that goes through a proxy, or nothing for a forward.
func curl(l *config.Listener, a netip.AddrPort) string {
	if l.Kind.IsForward() {
		return ""
	}
	here := a.Addr()
	if here.IsUnspecified() {
		here = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	login := ""
	if l.UsersFile != "" {
		login = "-U USER " // curl asks for the password
	}
	proxy := "-x socks5h://"
	if l.Kind == config.HTTP {
		proxy = "-p -x http://"
	}
	return fmt.Sprintf("curl %s%s%v https://example.com/", login, proxy, netip.AddrPortFrom(here, a.Port()))
}

func (b *banner) text() string {
	var t strings.Builder
	fmt.Fprintf(&t, "srcproxy %s is ready (%s, default %s)\n", b.Version, b.Config, b.Default)
	for _, l := range b.Listen {
		fmt.Fprintf(&t, "  %s\n", l.text())
	}
	for _, name := range b.Attach {
		fmt.Fprintf(&t, "  in the kernel, for %s\n", name)
	}
	if b.Try != "" {
		fmt.Fprintf(&t, "Try it:\n  %s\n", b.Try)
	}
	return t.String()
}

func (l *listener) text() string {
	where := l.Kind + " " + strings.Join(l.Addrs, ", ")
	if l.Name != where {
		where = l.Name + ": " + where
	}
	if l.To != "" {
		return where + " to " + l.To
	}
	return where + " (" + l.speaks + ")"
}
