package server

import (
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/inbound"
)

// One user each. No password is known of these hashes.
const (
	aliceLine = "alice:$2y$04$abcdefghijklmnopqrstuuN1yTlLn6Tc4Zl6ZIZbW9Si0uE0M2g3S\n"
	bobLine   = "bob:$2y$04$abcdefghijklmnopqrstuuN1yTlLn6Tc4Zl6ZIZbW9Si0uE0M2g3S\n"
)

// TestUsersOutliveReloads while their file stays as it is.
func TestUsersOutliveReloads(t *testing.T) {
	s, err := newServer(t.Context(), slog.New(slog.DiscardHandler), new(slog.LevelVar))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "srcproxy.toml")
	reload := func(users string) *inbound.Users {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), "users"), []byte(users), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := config.Parse(path, []byte(mixed("127.0.0.1:0")+"users = \"users\"\n"))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.apply(cfg); err != nil {
			t.Fatal(err)
		}
		return slices.Collect(maps.Values(s.users))[0]
	}
	defer s.drain()
	first := reload(aliceLine)
	if again := reload(aliceLine); again != first {
		t.Error("the good logins are forgotten though the file is the same")
	}
	if changed := reload(aliceLine + bobLine); changed == first {
		t.Error("the users are the old ones though the file is another")
	}
	if n := len(s.users); n != 1 {
		t.Errorf("%d files are kept, want 1", n)
	}
}
