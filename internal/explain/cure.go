package explain

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/srcproxy/srcproxy/internal/host"
)

// ip returns the beginning of an ip(8) command for the family.
func ip(is4 bool) string {
	if is4 {
		return "ip "
	}
	return "ip -6 "
}

func addLocalRoute(p netip.Prefix) string { return localRoute(p).Run }

// addAddress returns the command that brings a onto this host.
func (c *checker) addAddress(a netip.Addr) string { return c.bring(a).Run }

// bring is addAddress with the link. It is never run by doctor: another host may have a,
// now or later.
func (c *checker) bring(a netip.Addr) Command {
	bits, link := c.linkFor(a)
	return Command{Run: fmt.Sprintf("ip addr add %v dev %s", netip.PrefixFrom(a, bits), link), Link: link}
}

// linkFor returns the link on which a belongs, and the length of its prefix there: those
// of an address whose subnet it is in, else as a single address the link on which
// other addresses of this host are.
func (c *checker) linkFor(a netip.Addr) (int, string) {
	best := host.Address{}
	for _, x := range c.host.Addresses() {
		if x.Prefix.Contains(a) && (!best.Prefix.IsValid() || x.Prefix.Bits() > best.Prefix.Bits()) {
			best = x
		}
	}
	if best.Link != "" {
		return best.Prefix.Bits(), best.Link
	}
	for _, x := range c.host.Addresses() {
		if x.Addr.Is4() == a.Is4() && x.Addr.IsGlobalUnicast() {
			return a.BitLen(), x.Link
		}
	}
	for _, l := range c.host.Links() {
		if l.Up && !l.Loopback {
			return a.BitLen(), l.Name
		}
	}
	return a.BitLen(), "lo"
}

// maxCommands bounds the commands of one cure.
const maxCommands = 8

// addAddresses returns the commands for several addresses in ascending order: one for
// each, or a loop where they are many and follow one another.
func (c *checker) addAddresses(list []netip.Addr) []Command {
	if loop, ok := c.addByLoop(list); ok && len(list) > 2 {
		return []Command{loop}
	}
	var cure []Command
	for i, a := range list {
		if i == maxCommands {
			break
		}
		cure = append(cure, c.bring(a))
	}
	return cure
}

// addByLoop returns a shell loop over the last byte of IPv4 addresses, unless they have
// gaps or differ in other bytes.
func (c *checker) addByLoop(list []netip.Addr) (Command, bool) {
	first, last := list[0], list[len(list)-1]
	if !first.Is4() {
		return Command{}, false
	}
	a, b := first.As4(), last.As4()
	if [3]byte(a[:3]) != [3]byte(b[:3]) || int(b[3])-int(a[3]) != len(list)-1 {
		return Command{}, false
	}
	bits, link := c.linkFor(first)
	net := strings.TrimSuffix(first.String(), fmt.Sprint(a[3]))
	return Command{Run: fmt.Sprintf("for i in $(seq %d %d); do ip addr add %s$i/%d dev %s; done", a[3], b[3], net, bits, link), Link: link}, true
}
