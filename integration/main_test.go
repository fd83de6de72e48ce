//go:build linux

package integration

import (
	"testing"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestMain builds the program where the network of the host is still there,
// and runs the tests in namespaces of their own.
func TestMain(m *testing.M) {
	nstest.Main(m, nstest.Setup{
		Hosts: hosts(),
		Prepare: func(dir string) error {
			_, err := nstest.Binary{}.BuildIn(dir)
			return err
		},
	})
}

// hosts are the names that all tests share. Those of evil.example point where
// rules must not let them.
func hosts() []string {
	return append(leakHosts(),
		"203.0.113.9 server.example",
		"127.0.0.1 echo.example",
		"203.0.113.25 smtp.mail.example",
		"2001:db8:2::9 six.example",
		"203.0.113.9 both.example",
		"2001:db8:2::9 both.example",
		"127.0.0.9 v4.evil.example",
		"::ffff:127.0.0.9 mapped.evil.example",
		"64:ff9b::127.0.0.9 nat64.evil.example",
		"::1 v6.evil.example",
		"0.0.0.0 zero.evil.example",
		":: zero6.evil.example",
	)
}
