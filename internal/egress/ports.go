package egress

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
)

// An End is the two ends of a live flow, and the source that it leaves from.
type End struct {
	Source   string
	Network  string         // "tcp" or "udp"
	Src, Dst netip.AddrPort // here and there
}

// PortUse is how a source uses local ports. An address can use each of its ports once
// for each destination and protocol: with as many flows there as it has ports it has no
// more for that one, and all of them for others.
type PortUse struct {
	Source string `json:"source"`
	Used   int    `json:"used"` // pairs of address and port in use, of TCP and of UDP

	// The address and destination with the most flows between them.
	Network string         `json:"network"`
	Addr    netip.Addr     `json:"address"`
	Dst     netip.AddrPort `json:"destination"`
	Flows   int            `json:"flows"`
	Budget  int            `json:"budget"` // the ports that Addr has for Dst; 0: not known
}

// CountPorts returns how the sources of flows use their ports, by name. Budget returns
// how many ports an address of a source has. Its cost grows with the flows.
func CountPorts(flows iter.Seq[End], budget func(source string) int) []PortUse {
	used := make(map[End]struct{}) // without Dst
	pairs := make(map[End]int)     // without the port of Src
	uses := make(map[string]*PortUse)
	for f := range flows {
		u := uses[f.Source]
		if u == nil {
			u = &PortUse{Source: f.Source, Budget: budget(f.Source)}
			uses[f.Source] = u
		}
		local, pair := f, f
		local.Dst = netip.AddrPort{}
		pair.Src = netip.AddrPortFrom(f.Src.Addr(), 0)
		if _, ok := used[local]; !ok {
			used[local] = struct{}{}
			u.Used++
		}
		pairs[pair]++
		if n := pairs[pair]; n > u.Flows {
			u.Network, u.Addr, u.Dst, u.Flows = f.Network, f.Src.Addr(), f.Dst, n
		}
	}
	out := make([]PortUse, 0, len(uses))
	for _, u := range uses {
		out = append(out, *u)
	}
	slices.SortFunc(out, func(a, b PortUse) int { return cmp.Compare(a.Source, b.Source) })
	return out
}
