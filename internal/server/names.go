package server

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/config"
)

// How the names in rules are kept for the kernel plane, which sees addresses only. The
// resolver remembers answers for as long as they hold; so asking it often costs
// nothing.
const (
	namesEvery = 5 * time.Second // between two looks
	namesFirst = 2 * time.Second // what the first answers may take, before the rules are put in place
	namesHold  = 5 * time.Minute // that an address stays after the last answer with it: programs remember answers, too
	namesMost  = 256             // addresses of one name
)

// resolved is the addresses of the names that rules have, kept up to date from start to
// stop. Nil is no names.
type resolved struct {
	config   *config.Config
	resolver dialer.Resolver
	names    []string

	cancel context.CancelFunc // of what start started
	kept   sync.WaitGroup

	mu    sync.Mutex
	addrs map[string]map[netip.Addr]time.Time // when an answer last had them
}

// newResolved returns the names for which an [[attach]] of cfg wants addresses, or nil
// where none does. What old knows of them is taken over; old may be nil.
func newResolved(cfg *config.Config, r dialer.Resolver, old *resolved) *resolved {
	if !slices.ContainsFunc(cfg.Attach, func(a config.Attach) bool { return a.Resolve }) {
		return nil
	}
	n := &resolved{config: cfg, resolver: r, names: exactNames(cfg.Rules), addrs: make(map[string]map[netip.Addr]time.Time)}
	if old != nil {
		old.mu.Lock()
		defer old.mu.Unlock()
		for _, name := range n.names {
			n.addrs[name] = maps.Clone(old.addrs[name])
		}
	}
	return n
}

// first looks for the first time, for as long as may be waited for.
func (n *resolved) first(ctx context.Context) {
	if n == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, namesFirst)
	defer cancel()
	n.look(ctx)
}

// start keeps the addresses up to date until stop or the end of ctx, and calls changed
// when they are others.
func (n *resolved) start(ctx context.Context, changed func(*resolved)) {
	if n == nil {
		return
	}
	ctx, n.cancel = context.WithCancel(ctx)
	n.kept.Go(func() {
		tick := time.NewTicker(namesEvery)
		defer tick.Stop()
		for {
			if n.look(ctx) {
				changed(n)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
}

// stop ends what start started, if it was, and waits for it.
func (n *resolved) stop() {
	if n == nil {
		return
	}
	if n.cancel != nil {
		n.cancel()
	}
	n.kept.Wait()
}

// exactNames returns the names in rules; patterns have no addresses to ask for.
func exactNames(rules []dialer.Rule) []string {
	seen := make(map[string]bool)
	note := func(m dialer.Match) {
		if s := m.String(); !m.Prefix().IsValid() && !strings.HasPrefix(s, "*") && !strings.HasPrefix(s, ".") {
			seen[s] = true
		}
	}
	for i := range rules {
		for _, m := range rules[i].To {
			note(m)
		}
		for m := range rules[i].Map {
			note(m)
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// look asks for all names at once, and reports whether an address came or went.
func (n *resolved) look(ctx context.Context) bool {
	var all sync.WaitGroup
	changed := make(chan bool, 2*len(n.names))
	slots := make(chan struct{}, 16) // questions at a time
	for _, name := range n.names {
		for _, network := range []string{"ip4", "ip6"} {
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				addrs, err := n.resolver.LookupNetIP(ctx, network, name)
				changed <- n.learn(name, network == "ip4", addrs, err)
			})
		}
	}
	all.Wait()
	close(changed)
	any := false
	for c := range changed {
		any = any || c
	}
	return any
}

// learn takes an answer. That there is no such name or address is one; that nobody
// answered is none, and then what is known stays.
func (n *resolved) learn(name string, is4 bool, addrs []netip.Addr, err error) bool {
	dns := (*net.DNSError)(nil)
	if err != nil && !(errors.As(err, &dns) && dns.IsNotFound) {
		return false
	}
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	known := n.addrs[name]
	if known == nil {
		known = make(map[netip.Addr]time.Time)
		n.addrs[name] = known
	}
	changed := false
	for a, last := range known {
		if a.Is4() == is4 && now.Sub(last) > namesHold {
			delete(known, a)
			changed = true
		}
	}
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		if _, there := known[a]; !there {
			if len(known) == namesMost {
				continue
			}
			changed = true
		}
		known[a] = now
	}
	return changed
}

// of returns the addresses of a name, sorted.
func (n *resolved) of(name string) []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.SortedFunc(maps.Keys(n.addrs[name]), netip.Addr.Compare)
}

// rules returns rules in which addresses stand beside the names that have them. An
// address that a rule denies by a prefix stays denied, as it is in a proxy: a name
// could be pointed there. So do loopback, link-local and multicast addresses, which no
// rule is for that does not name them.
func (n *resolved) rules(cfg *config.Config, table *dialer.Table) []dialer.Rule {
	addrs := make(map[string][]dialer.Match, len(n.names))
	for _, name := range n.names {
		for _, a := range n.of(name) {
			if local(a) || denied(table, a) {
				continue
			}
			addrs[name] = append(addrs[name], dialer.MatchPrefix(netip.PrefixFrom(a, a.BitLen())))
		}
	}
	out := slices.Clone(cfg.Rules)
	for i := range out {
		r := &out[i]
		r.To = slices.Clone(r.To)
		for _, m := range cfg.Rules[i].To {
			r.To = append(r.To, addrs[m.String()]...)
		}
		r.Map = withAddresses(r.Map, addrs)
	}
	return out
}

// withAddresses returns m with the addresses of its names, but for those that are keys
// themselves. Where two names share one, the first of them by the alphabet has it.
func withAddresses(m map[dialer.Match]dialer.Use, addrs map[string][]dialer.Match) map[dialer.Match]dialer.Use {
	if m == nil {
		return nil
	}
	out := maps.Clone(m)
	names := slices.SortedFunc(maps.Keys(m), func(a, b dialer.Match) int { return strings.Compare(b.String(), a.String()) })
	for _, name := range names {
		for _, a := range addrs[name.String()] {
			if _, key := m[a]; !key {
				out[a] = m[name]
			}
		}
	}
	return out
}

func local(a netip.Addr) bool {
	return a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsMulticast()
}

// denied reports whether the first rule that a prefix of matches a denies it.
func denied(t *dialer.Table, a netip.Addr) bool {
	d := t.Lookup(dialer.Flow{Network: "tcp", Dst: netip.AddrPortFrom(a, 0)})
	return errors.Is(d.Err, dialer.ErrDenied) && d.Prefix.IsValid()
}
