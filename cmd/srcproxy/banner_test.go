package main

import (
	"slices"
	"testing"

	"github.com/srcproxy/srcproxy/internal/config"
)

// TestBannerRange shows a range of ports as a whole.
func TestBannerRange(t *testing.T) {
	cfg, err := config.Parse("config.toml", []byte(`default = "kernel"
[[listen]]
udp = ["127.0.0.1:10000-10099", "[::1]:10000-10099"]
to = "localhost"
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"127.0.0.1:10000-10099", "[::1]:10000-10099"}
	if got := newBanner(cfg, nil).Listen[0].Addrs; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
