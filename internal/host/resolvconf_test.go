package host

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParseResolvConf(t *testing.T) {
	addrs := func(texts ...string) (out []netip.Addr) {
		for _, s := range texts {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	for _, tt := range []struct {
		name, text string
		want       ResolvConf
	}{
		{"empty", "", ResolvConf{}},
		{
			"servers", "# a comment\nsearch example\nnameserver 127.0.0.53\n  nameserver\t2001:db8::53 # why\nnameserver fe80::1%eth0\nnameserver\nnameserver x\n;nameserver 192.0.2.1\noptions edns0\n",
			ResolvConf{Servers: addrs("127.0.0.53", "2001:db8::53", "fe80::1%eth0")},
		},
		{
			"three servers count", "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver ::ffff:192.0.2.3\nnameserver 192.0.2.4",
			ResolvConf{Servers: addrs("192.0.2.1", "192.0.2.2", "192.0.2.3")},
		},
		{"options", "options edns0 timeout:2 rotate\noptions attempts:3", ResolvConf{Timeout: 2 * time.Second, Attempts: 3, Rotate: true}},
		{"bounds", "options timeout:9000000000 attempts:100", ResolvConf{Timeout: 30 * time.Second, Attempts: 5}},
		{"nonsense", "options timeout:-1 attempts:x timeout attempts: rotating", ResolvConf{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, ParseResolvConf([]byte(tt.text)), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
