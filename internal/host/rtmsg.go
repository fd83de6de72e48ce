package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// linkTable holds the names of the links by their index.
type linkTable map[int]string

// linkNames returns the links of the calling thread's network namespace.
func linkNames() (linkTable, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	t := make(linkTable, len(list))
	for _, i := range list {
		t[i.Index] = i.Name
	}
	return t, nil
}

// index returns the index of a link by its name.
func (l linkTable) index(name string) (int, bool) {
	for i, n := range l {
		if n == name {
			return i, true
		}
	}
	return 0, false
}

// ask sends one RTM_GETROUTE. With RTM_F_FIB_MATCH among the flags the answer is the
// route itself; without it Src is the address that the kernel would choose.
func (l linkTable) ask(q RouteQuery, flags uint32) (TableRoute, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_REQUEST)
	m := &nl.RtMsg{RtMsg: unix.RtMsg{Family: family(q.Dst), Dst_len: uint8(q.Dst.BitLen()), Flags: unix.RTM_F_LOOKUP_TABLE | flags}}
	req.AddData(m)
	add := func(kind int, b []byte) { req.AddData(nl.NewRtAttr(kind, b)) }
	add(unix.RTA_DST, q.Dst.AsSlice())
	if q.Src.IsValid() {
		m.Src_len = uint8(q.Src.BitLen())
		add(unix.RTA_SRC, q.Src.AsSlice())
	}
	if q.Link != "" {
		i, ok := l.index(q.Link)
		if !ok {
			return TableRoute{}, fmt.Errorf("link %q: %w", q.Link, unix.ENODEV)
		}
		add(unix.RTA_OIF, native32(uint32(i)))
	}
	if q.in != "" {
		i, ok := l.index(q.in)
		if !ok {
			return TableRoute{}, fmt.Errorf("link %q: %w", q.in, unix.ENODEV)
		}
		add(unix.RTA_IIF, native32(uint32(i)))
	}
	if q.Mark != 0 {
		add(unix.RTA_MARK, native32(q.Mark))
	}
	if q.UID != nil {
		add(unix.RTA_UID, native32(*q.UID))
	}
	if q.Protocol != 0 {
		add(unix.RTA_IP_PROTO, []byte{q.Protocol})
	}
	if q.SrcPort != 0 {
		add(unix.RTA_SPORT, binary.BigEndian.AppendUint16(nil, q.SrcPort))
	}
	if q.DstPort != 0 {
		add(unix.RTA_DPORT, binary.BigEndian.AppendUint16(nil, q.DstPort))
	}
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE)
	if err != nil {
		return TableRoute{}, err
	}
	if len(answers) != 1 {
		return TableRoute{}, fmt.Errorf("netlink: %d answers to one question", len(answers))
	}
	r, ok := l.parseRoute(answers[0])
	if !ok {
		return TableRoute{}, errors.New("netlink: an answer that is no route")
	}
	return r, nil
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func native32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// dump returns the bodies of the messages of one kind, of one family. A family that
// the kernel does not have has none. What a change interrupted is asked for again;
// should that go on, the last reading is taken.
func dump(get, answer uint16, header nl.NetlinkRequestData) ([][]byte, error) {
	const tries = 5
	for try := 1; ; try++ {
		req := nl.NewNetlinkRequest(int(get), unix.NLM_F_DUMP)
		req.AddData(header)
		messages, err := req.Execute(unix.NETLINK_ROUTE, answer)
		switch {
		case errors.Is(err, netlink.ErrDumpInterrupted) && try < tries:
			continue
		case err == nil, errors.Is(err, netlink.ErrDumpInterrupted):
			return messages, nil
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT):
			return nil, nil
		}
		return nil, err
	}
}

// attributes returns the types and values in b:
//
//	struct rtattr { u16 len, type; } and the value, padded to 4 bytes
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	const typeMask = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtAttr || size > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&typeMask, b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min(len(b), (size+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1)):]
		}
	}
}

// uint32Of returns the number in an attribute, or 0 when it has another size.
func uint32Of(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

// addrOf returns the address in an attribute.
func addrOf(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b) // the zero Addr when it is none
	return a
}

// parseRoute reads the body of a route message:
//
//	struct rtmsg { u8 family, dst_len, src_len, tos, table, protocol, scope, type; u32 flags; };
func (l linkTable) parseRoute(b []byte) (TableRoute, bool) {
	if len(b) < unix.SizeofRtMsg {
		return TableRoute{}, false
	}
	r := TableRoute{Type: RouteType(b[7]), TOS: b[3], Table: Table(b[4]), Protocol: b[5], Scope: b[6]}
	dst := netip.IPv6Unspecified()
	if b[0] == unix.AF_INET {
		dst = netip.IPv4Unspecified()
	}
	for kind, v := range attributes(b[unix.SizeofRtMsg:]) {
		switch kind {
		case unix.RTA_DST:
			dst = addrOf(v)
		case unix.RTA_PREFSRC:
			r.Src = addrOf(v)
		case unix.RTA_TABLE:
			r.Table = Table(uint32Of(v))
		case unix.RTA_PRIORITY:
			r.Metric = uint32Of(v)
		case unix.RTA_MULTIPATH:
			l.parseHops(&r, v)
		default:
			l.parseHop(&r, kind, v)
		}
	}
	r.Dst = netip.PrefixFrom(dst, int(b[1])).Masked()
	return r, r.Dst.IsValid()
}

// parseHop reads what says where a next hop is.
func (l linkTable) parseHop(r *TableRoute, kind uint16, v []byte) {
	switch kind {
	case unix.RTA_OIF:
		r.Link = l[int(uint32Of(v))]
	case unix.RTA_GATEWAY:
		r.Gateway = addrOf(v)
	case unix.RTA_VIA: // an IPv4 route by an IPv6 gateway: struct rtvia { u16 family; u8 addr[]; }
		if len(v) > 2 {
			r.Gateway = addrOf(v[2:])
		}
	}
}

// parseHops reads several next hops, of which it keeps the first:
//
//	struct rtnexthop { u16 len; u8 flags, hops; int ifindex; } and its attributes
func (l linkTable) parseHops(r *TableRoute, b []byte) {
	for len(b) >= unix.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtNexthop || size > len(b) {
			return
		}
		if r.Hops++; r.Hops == 1 {
			r.Link = l[int(binary.NativeEndian.Uint32(b[4:]))]
			for kind, v := range attributes(b[unix.SizeofRtNexthop:size]) {
				l.parseHop(r, kind, v)
			}
		}
		b = b[min(len(b), (size+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1)):]
	}
}
