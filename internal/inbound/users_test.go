package inbound

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// hashed returns the line of a user in a users file.
func hashed(t testing.TB, name, password string, cost int) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		t.Fatal(err)
	}
	return name + ":" + string(h) + "\n"
}

func mustParse(t testing.TB, text string) *Users {
	t.Helper()
	u, err := ParseUsers([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestParseUsersErrors(t *testing.T) {
	alice := hashed(t, "alice", "secret", bcrypt.MinCost)
	hash := strings.TrimSpace(strings.TrimPrefix(alice, "alice:"))
	tests := []struct {
		name, text string
		line       int
		want       string
	}{
		{"empty", "", 1, "no user in the file"},
		{"only comments", "# a\n\n# b\n", 3, "no user in the file"},
		{"no colon", alice + "bob\n", 2, `want "name:hash"`},
		{"no name", ":" + hash, 1, `want "name:hash"`},
		{"long name", strings.Repeat("a", 256) + ":" + hash, 1, `want "name:hash"`},
		{"twice", alice + "# c\n\n" + alice, 4, `user "alice" is there twice`},
		{"plain password", "bob:secret", 1, `the hash of user "bob" is not bcrypt`},
		{"no hash", "bob:", 1, "not bcrypt"},
		{"apr1", "bob:$apr1$1234$abcdefghijklmnopqrstuvw", 1, "not bcrypt"},
		{"sha512 crypt", "bob:$6$saltsalt$" + strings.Repeat("a", 86), 1, "not bcrypt"},
		{"cut", "bob:" + hash[:59], 1, "not bcrypt"},
		{"another field", "bob:" + hash + ":x", 1, "not bcrypt"},
		{"twice on a line", "bob:" + hash + hash, 1, "not bcrypt"},
		{"not base64", "bob:" + hash[:40] + "!" + hash[41:], 1, "not bcrypt"},
		{"cost out of range", "bob:$2a$99$" + hash[7:], 1, "not bcrypt"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseUsers([]byte(tt.text))
			var le *LineError
			if !errors.As(err, &le) || le.Line != tt.line || !strings.Contains(le.Text, tt.want) {
				t.Fatalf("got %v, want line %d: %s", err, tt.line, tt.want)
			}
			if want := fmt.Sprintf("line %d: ", tt.line); !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got %q, want it to begin with %q", err, want)
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), hash) {
				t.Errorf("the error shows what is secret: %v", err)
			}
		})
	}
}

func TestParseUsersForms(t *testing.T) {
	alice, bob := hashed(t, "alice", "secret", bcrypt.MinCost), hashed(t, "bob", "geheim", bcrypt.MinCost)
	for name, text := range map[string]string{
		"plain":          alice + bob,
		"comments":       "# users\n" + alice + "\n  # more\n" + bob,
		"CRLF":           strings.ReplaceAll("# users\n\n"+alice+bob, "\n", "\r\n"),
		"no end of line": alice + strings.TrimSpace(bob),
		"indented":       "\t" + alice + "  " + strings.TrimSpace(bob) + " \n",
		"htpasswd -B":    strings.ReplaceAll(alice+bob, "$2a$", "$2y$"),
		"mark of UTF-8":  "\ufeff" + alice + bob,
	} {
		t.Run(name, func(t *testing.T) {
			u := mustParse(t, text)
			for user, password := range map[string]string{"alice": "secret", "bob": "geheim"} {
				if got, _, err := u.Verify(t.Context(), peerAddr, user, password); got != user || err != nil {
					t.Errorf("%s: got %q, %v", user, got, err)
				}
			}
		})
	}
}

// TestParseUsersIsQuick keeps a reload from paying for hashes: nothing but a login
// needs one.
func TestParseUsersIsQuick(t *testing.T) {
	text := hashed(t, "alice", "secret", 8)
	began := time.Now()
	if err := bcrypt.CompareHashAndPassword([]byte(strings.TrimSpace(text[len("alice:"):])), []byte("secret")); err != nil {
		t.Fatal(err)
	}
	one := time.Since(began)
	began = time.Now()
	mustParse(t, text)
	if took := time.Since(began); took > one/4 {
		t.Errorf("parsing took %v, one hash takes %v", took, one)
	}
}

func TestVerify(t *testing.T) {
	long := strings.Repeat("p", 72)
	u := mustParse(t, hashed(t, "alice", "secret", bcrypt.MinCost)+
		hashed(t, "alice-b", "other", bcrypt.MinCost)+
		hashed(t, "long", long, bcrypt.MinCost)+
		hashed(t, strings.Repeat("n", 255), "secret", bcrypt.MinCost))
	tests := []struct {
		name, user, password string
		wantUser, session    string // an empty user: refused
	}{
		{"right", "alice", "secret", "alice", ""},
		{"wrong", "alice", "Secret", "", ""},
		{"last byte missing", "alice", "secre", "", ""},
		{"one byte more", "alice", "secretx", "", ""},
		{"nothing", "alice", "", "", ""},
		{"no user", "", "secret", "", ""},
		{"unknown", "mallory", "secret", "", ""},
		{"case", "Alice", "secret", "", ""},
		{"of another user", "alice", "other", "", ""},
		{"NUL and more", "alice", "secret\x00secret", "", ""},
		{"NUL at the end", "alice", "secret\x00", "", ""},
		{"NUL in the name", "alice\x00x", "secret", "", ""},
		{"72 bytes", "long", long, "long", ""},
		{"73 bytes", "long", long + "p", "", ""},
		{"255 bytes", "long", strings.Repeat("p", 255), "", ""},
		{"long name", strings.Repeat("n", 255), "secret", strings.Repeat("n", 255), ""},
		{"session", "alice-42", "secret", "alice", "42"},
		{"session with dash", "alice-4-2", "secret", "alice", "4-2"},
		{"empty session", "alice-", "secret", "alice", ""},
		{"exact user wins", "alice-b", "other", "alice-b", ""},
		{"exact user, not the session", "alice-b", "secret", "", ""},
		{"longest user", "alice-b-7", "other", "alice-b", "7"},
		{"longest user, not the shorter", "alice-b-7", "secret", "", ""},
		{"no dash", "alice42", "secret", "", ""},
		{"session of nobody", "-alice", "secret", "", ""},
	}
	for _, tt := range tests {
		for _, turn := range []string{"first", "again"} {
			t.Run(tt.name+"/"+turn, func(t *testing.T) {
				user, session, err := u.Verify(t.Context(), peerAddr, tt.user, tt.password)
				if user != tt.wantUser || session != tt.session || (err == nil) != (tt.wantUser != "") {
					t.Errorf("got %q, %q, %v, want %q, %q", user, session, err, tt.wantUser, tt.session)
				}
				if err != nil && !errors.Is(err, errLogin) {
					t.Errorf("got %v, want errLogin", err)
				}
			})
		}
	}
}

// TestVerifyTime compares by the order of magnitude: the machine is not alone.
func TestVerifyTime(t *testing.T) {
	u := mustParse(t, hashed(t, "alice", "secret", 7))
	fastest := func(user string) time.Duration {
		best := limit
		for range 5 {
			began := time.Now()
			_, _, _ = u.Verify(t.Context(), peerAddr, user, "wrong") // only the time counts
			best = min(best, time.Since(began))
		}
		return best
	}
	wrong, unknown := fastest("alice"), fastest("mallory")
	if unknown < wrong/10 || wrong < unknown/10 {
		t.Errorf("a wrong password takes %v, an unknown user %v: they can be told apart", wrong, unknown)
	}
}

// TestVerifyRemembers good logins only, for all sessions of the user.
func TestVerifyRemembers(t *testing.T) {
	u := mustParse(t, hashed(t, "alice", "secret", bcrypt.MinCost))
	for _, login := range [][2]string{{"alice", "wrong"}, {"alice-1", "secret"}, {"mallory", "secret"}} {
		_, _, _ = u.Verify(t.Context(), peerAddr, login[0], login[1]) // what it left behind counts
	}
	for login, want := range map[[2]string]bool{
		{"alice", "wrong"}: false, {"alice", "secret"}: true, {"mallory", "secret"}: false,
	} {
		if got := u.remembers(u.sum(login[0], login[1])); got != want {
			t.Errorf("%v: remembered %v, want %v", login, got, want)
		}
	}
	u.hashes["alice"] = nil // a hash that nothing can match
	if _, _, err := u.Verify(t.Context(), peerAddr, "alice", "secret"); err == nil {
		t.Error("a login without a hash")
	}
}

func TestVerifyCacheIsBounded(t *testing.T) {
	u := mustParse(t, hashed(t, "alice", "secret", bcrypt.MinCost))
	for i := range 2 * maxCached {
		u.remember(u.sum("alice", fmt.Sprint(i)))
	}
	if n := len(u.good); n != maxCached {
		t.Errorf("got %d logins, want %d", n, maxCached)
	}
	if last := u.sum("alice", fmt.Sprint(2*maxCached-1)); !u.remembers(last) {
		t.Error("the last login is not among them")
	}
}

// TestVerifySum holds apart what a plain concatenation would not.
func TestVerifySum(t *testing.T) {
	u := mustParse(t, hashed(t, "alice", "secret", bcrypt.MinCost))
	if u.sum("alice", "secret") == u.sum("alices", "ecret") {
		t.Error("two logins share a sum")
	}
	if v := mustParse(t, hashed(t, "alice", "secret", bcrypt.MinCost)); v.sum("a", "b") == u.sum("a", "b") {
		t.Error("two files share a key")
	}
}

func TestVerifyGivesUpWaiting(t *testing.T) {
	u := mustParse(t, hashed(t, "alice", "secret", bcrypt.MinCost))
	if _, _, err := u.Verify(t.Context(), peerAddr, "alice", "secret"); err != nil {
		t.Fatal(err)
	}
	for range cap(u.slow) {
		u.slow <- struct{}{} // others check
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, login := range [][2]string{{"alice", "wrong"}, {"mallory", "wrong"}} {
		if _, _, err := u.Verify(ctx, peerAddr, login[0], login[1]); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", login[0], err)
		}
	}
	if _, _, err := u.Verify(ctx, peerAddr, "alice", "secret"); err != nil {
		t.Errorf("a remembered login waits for others: %v", err)
	}
}

// TestVerifyTakesTurns lets one client guess at fifty connections, and another one log
// in behind them.
func TestVerifyTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := mustParse(t, hashed(t, "alice", "secret", bcrypt.MinCost))
		for range cap(u.slow) {
			u.slow <- struct{}{}
		}
		ended := make(chan string, 100)
		for i := range 50 {
			go func() {
				_, _, _ = u.Verify(t.Context(), strangerAddr, "mallory", fmt.Sprint(i)) // it is wrong
				ended <- "mallory"
			}()
		}
		synctest.Wait()
		go func() {
			user, _, _ := u.Verify(t.Context(), peerAddr, "alice", "secret")
			ended <- user
		}()
		synctest.Wait()
		<-u.slow
		synctest.Wait()
		const most = 5
		var first []string
		for range most {
			first = append(first, <-ended)
		}
		if !slices.Contains(first, "alice") {
			t.Errorf("the first to end are %q, want alice among them", first)
		}
		if n := len(u.turns.of); n != 0 {
			t.Errorf("%d clients are remembered", n)
		}
	})
}

// TestVerifyChecksOnce when a client opens many connections at a time.
func TestVerifyChecksOnce(t *testing.T) {
	u := mustParse(t, hashed(t, "alice", "secret", 10))
	began := time.Now()
	if _, _, err := u.Verify(t.Context(), strangerAddr, "alice", "wrong"); !errors.Is(err, errLogin) {
		t.Fatal(err)
	}
	one := time.Since(began)
	began = time.Now()
	var running sync.WaitGroup
	for range 100 {
		running.Go(func() {
			if _, _, err := u.Verify(t.Context(), peerAddr, "alice", "secret"); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	if all := time.Since(began); all > 20*one {
		t.Errorf("100 logins take %v, one check %v: the hash was checked again and again", all, one)
	}
}

func TestNetworkOf(t *testing.T) {
	for a, want := range map[string]string{
		"192.0.2.1":        "192.0.2.1/32",
		"::ffff:192.0.2.1": "192.0.2.1/32",
		"2001:db8:1:2:3::": "2001:db8:1:2::/64",
		"fe80::1%eth0":     "fe80::/64",
	} {
		if got := networkOf(netip.MustParseAddr(a)).String(); got != want {
			t.Errorf("%s: got %s, want %s", a, got, want)
		}
	}
	if got := networkOf(netip.Addr{}); got.IsValid() {
		t.Errorf("no address: got %v, want none", got)
	}
}

func TestVerifyConcurrently(t *testing.T) {
	u := mustParse(t, hashed(t, "alice", "secret", bcrypt.MinCost)+hashed(t, "bob", "geheim", bcrypt.MinCost))
	logins := []struct {
		user, password string
		ok             bool
	}{{"alice", "secret", true}, {"bob-1", "geheim", true}, {"alice", "geheim", false}, {"eve", "secret", false}}
	var running sync.WaitGroup
	for i := range 32 {
		running.Go(func() {
			l := logins[i%len(logins)]
			if _, _, err := u.Verify(t.Context(), peerAddr, l.user, l.password); (err == nil) != l.ok {
				t.Errorf("%s: got %v", l.user, err)
			}
		})
	}
	running.Wait()
	if len(u.slow) != 0 || len(u.good) != 2 {
		t.Errorf("got %d slots taken and %d logins, want 0 and 2", len(u.slow), len(u.good))
	}
}

// TestLoginUnchecked is about a login whose turn does not come: it is not said to be wrong.
func TestLoginUnchecked(t *testing.T) {
	r := start(t, func(s *Settings) {
		s.Users = mustParse(t, hashed(t, "alice", "secret", bcrypt.MinCost))
		s.Handshake = 200 * time.Millisecond
	})
	for range cap(r.s.Users.slow) {
		r.s.Users.slow <- struct{}{}
	}
	c := r.dial(t)
	mustSend(t, c, "CONNECT a.example:1 HTTP/1.1\r\nProxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n")
	if got, err := rest(c); !strings.HasPrefix(got, "HTTP/1.1 503 ") {
		t.Errorf("got %q, %v, want 503", got, err)
	}
	if l := r.log.wait(t, "flow", 1)[0]; !l.has("user", "alice") {
		t.Errorf("log line %v, want the user in it", l)
	}
	if n := len(r.log.all("login failed")); n != 0 {
		t.Errorf("%d lines say that the login failed", n)
	}
}
