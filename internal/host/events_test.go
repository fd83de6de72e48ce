package host

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// message returns a netlink message with its header.
func message(kind uint16, body ...byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(b, uint32(unix.SizeofNlMsghdr+len(body)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	return append(b, body...)
}

func route(table byte) []byte {
	return message(unix.RTM_NEWROUTE, unix.AF_INET, 24, 0, 0, table, 0, 0, unix.RTN_UNICAST, 0, 0, 0, 0)
}

func TestTells(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    []byte
		want change
	}{
		{"nothing", nil, nothing},
		{"an address", message(unix.RTM_NEWADDR, make([]byte, 8)...), addressing},
		{"an address goes", message(unix.RTM_DELADDR, make([]byte, 8)...), addressing},
		{"a link", message(unix.RTM_NEWLINK, make([]byte, 16)...), addressing},
		{"a route of the main table", route(unix.RT_TABLE_MAIN), routing},
		{"a route of the local table", route(unix.RT_TABLE_LOCAL), addressing},
		{"the second message", append(route(unix.RT_TABLE_MAIN), route(unix.RT_TABLE_LOCAL)...), addressing},
		{"two of the main table", append(route(unix.RT_TABLE_MAIN), route(unix.RT_TABLE_MAIN)...), routing},
		{"odd length, then a link", append(append(message(unix.RTM_NEWNEIGH, 1), 0, 0, 0), message(unix.RTM_NEWLINK)...), addressing},
		{"a rule", message(unix.RTM_NEWRULE, make([]byte, 12)...), routing},
		{"a rule goes, behind a neighbour", append(message(unix.RTM_NEWNEIGH), message(unix.RTM_DELRULE, make([]byte, 12)...)...), routing},
		{"a neighbour", message(unix.RTM_NEWNEIGH, make([]byte, 12)...), nothing},
		{"a route cut short", message(unix.RTM_NEWROUTE, 1, 2), addressing},
		{"a size below the header", make([]byte, unix.SizeofNlMsghdr), addressing},
		{"a size above the buffer", message(unix.RTM_NEWNEIGH, make([]byte, 12)...)[:20], addressing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tells(tt.b); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// FuzzTells looks for bytes on which the parser panics or does not end, and
// for an address event that it overlooks behind other messages.
func FuzzTells(f *testing.F) {
	f.Add(message(unix.RTM_NEWADDR, make([]byte, 8)...))
	f.Add(append(route(unix.RT_TABLE_MAIN), route(unix.RT_TABLE_LOCAL)...))
	f.Add(message(unix.RTM_NEWNEIGH, 1, 2, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		tells(b)
		body := message(unix.RTM_NEWNEIGH, b...)
		for len(body)%unix.NLMSG_ALIGNTO != 0 {
			body = append(body, 0)
		}
		if tells(append(body, message(unix.RTM_DELADDR)...)) != addressing {
			t.Error("overlooked an address event")
		}
	})
}
