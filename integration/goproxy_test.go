//go:build linux

package integration

import (
	"bufio"
	"testing"

	"golang.org/x/net/proxy"
)

// TestGoProxy uses golang.org/x/net/proxy.
func TestGoProxy(t *testing.T) {
	r := foreignRig(t)
	for _, test := range []struct {
		name, listener string
		auth           *proxy.Auth
		fails          bool
	}{
		{"no login", "127.0.0.1:1080", nil, false},
		{"login", "127.0.0.1:1081", &proxy.Auth{User: "ann", Password: "secret"}, false},
		{"login not asked for", "127.0.0.1:1080", &proxy.Auth{User: "ann", Password: "secret"}, false},
		{"bad login", "127.0.0.1:1081", &proxy.Auth{User: "ann", Password: "Secret"}, true},
		{"no login where one is asked for", "127.0.0.1:1081", nil, true},
	} {
		for to, want := range destinations {
			t.Run(test.name+" "+to, func(t *testing.T) {
				d, err := proxy.SOCKS5("tcp", test.listener, test.auth, inNamespace{r})
				if err != nil {
					t.Fatal(err)
				}
				c, err := d.Dial("tcp", to+":4000")
				if test.fails {
					if err == nil {
						c.Close()
						t.Error("connected, want an error")
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if line, err := bufio.NewReader(c).ReadString('\n'); line != want.String()+"\n" {
					t.Errorf("got %q, %v, want %v", line, err, want)
				}
			})
		}
	}
}
