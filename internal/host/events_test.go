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

func TestTellsOfChange(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"nothing", nil, false},
		{"an address", message(unix.RTM_NEWADDR, make([]byte, 8)...), true},
		{"an address goes", message(unix.RTM_DELADDR, make([]byte, 8)...), true},
		{"a link", message(unix.RTM_NEWLINK, make([]byte, 16)...), true},
		{"a route of the main table", route(unix.RT_TABLE_MAIN), false},
		{"a route of the local table", route(unix.RT_TABLE_LOCAL), true},
		{"the second message", append(route(unix.RT_TABLE_MAIN), route(unix.RT_TABLE_LOCAL)...), true},
		{"two of the main table", append(route(unix.RT_TABLE_MAIN), route(unix.RT_TABLE_MAIN)...), false},
		{"odd length, then a link", append(append(message(unix.RTM_NEWNEIGH, 1), 0, 0, 0), message(unix.RTM_NEWLINK)...), true},
		{"a neighbour", message(unix.RTM_NEWNEIGH, make([]byte, 12)...), false},
		{"a route cut short", message(unix.RTM_NEWROUTE, 1, 2), true},
		{"a size below the header", make([]byte, unix.SizeofNlMsghdr), true},
		{"a size above the buffer", message(unix.RTM_NEWNEIGH, make([]byte, 12)...)[:20], true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tellsOfChange(tt.b); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// FuzzTellsOfChange looks for bytes on which the parser panics or does not end, and
// for an address event that it overlooks behind other messages.
func FuzzTellsOfChange(f *testing.F) {
	f.Add(message(unix.RTM_NEWADDR, make([]byte, 8)...))
	f.Add(append(route(unix.RT_TABLE_MAIN), route(unix.RT_TABLE_LOCAL)...))
	f.Add(message(unix.RTM_NEWNEIGH, 1, 2, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		tellsOfChange(b)
		body := message(unix.RTM_NEWNEIGH, b...)
		for len(body)%unix.NLMSG_ALIGNTO != 0 {
			body = append(body, 0)
		}
		if !tellsOfChange(append(body, message(unix.RTM_DELADDR)...)) {
			t.Error("overlooked an address event")
		}
	})
}
