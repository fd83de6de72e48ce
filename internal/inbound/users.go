package inbound

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"
)

// errLogin is all that a client or the log learns of a login that failed: whether the
// user exists stays here.
var errLogin = errors.New("wrong user or password")

// maxCached bounds the good logins that are remembered.
const maxCached = 4096

// Users holds the logins of a listener: names and bcrypt hashes. It is safe for
// concurrent use.
//
// A hash takes some 70 ms of CPU to check. Good logins are therefore remembered, as
// an HMAC under a key that lives as long as the Users; only so many checks run at a time
// as there are spare CPUs, so that guessing does not slow down the traffic; and no client
// waits for them more than once at a time, so that it does not lock out the others.
type Users struct {
	hashes map[string][]byte
	decoy  []byte // the costliest of them, checked for a name that is not there: both take as long
	key    [32]byte
	slow   chan struct{}
	turns  turns

	mu   sync.Mutex
	good map[[32]byte]struct{}
}

// A LineError says which line of a users file is wrong, and in what.
type LineError struct {
	Line int
	Text string
}

// Error returns "line N: text".
func (e *LineError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Text) }

// ParseUsers reads the lines of a users file: "name:hash" as srcproxy passwd and
// htpasswd -B print them; empty lines and those that begin with # do not count.
func ParseUsers(text []byte) (*Users, error) {
	u := &Users{
		hashes: make(map[string][]byte),
		slow:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)),
		good:   make(map[[32]byte]struct{}),
	}
	most, line := 0, 0
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // editors elsewhere write it
	for l := range bytes.Lines(text) {
		line++
		l = bytes.TrimSpace(l)
		if len(l) == 0 || l[0] == '#' {
			continue
		}
		hash, cost, err := u.add(l)
		if err != "" {
			return nil, &LineError{line, err}
		}
		if cost > most {
			most, u.decoy = cost, hash
		}
	}
	if len(u.hashes) == 0 {
		return nil, &LineError{max(line, 1), "there is no user in the file; add one: srcproxy passwd NAME >> FILE"}
	}
	_, _ = rand.Read(u.key[:]) // never fails, says its documentation
	return u, nil
}

// add takes one line and returns its hash and what that costs, or what is wrong.
func (u *Users) add(line []byte) (hash []byte, cost int, fault string) {
	name, hash, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 || len(name) > 255 {
		return nil, 0, `want "name:hash"; print one: srcproxy passwd NAME`
	}
	if _, twice := u.hashes[string(name)]; twice {
		return nil, 0, fmt.Sprintf("user %q is there twice", name)
	}
	cost, err := bcrypt.Cost(hash)
	if err != nil || !wellFormed(hash) {
		return nil, 0, fmt.Sprintf("the hash of user %q is not bcrypt; make one: srcproxy passwd %s", name, name)
	}
	hash = bytes.Clone(hash)
	u.hashes[string(name)] = hash
	return hash, cost, ""
}

// wellFormed looks at what bcrypt.Cost does not: whether the hash is whole and ends
// where it has to. No password would match another one.
func wellFormed(hash []byte) bool {
	const prefix = len("$2a$10$")
	if len(hash) != prefix+22+31 {
		return false
	}
	for _, b := range hash[prefix:] {
		if b != '.' && b != '/' && !('0' <= b && b <= '9' || 'A' <= b && b <= 'Z' || 'a' <= b && b <= 'z') {
			return false
		}
	}
	return true
}

// Verify checks a login and returns the user, and the session when the name was given
// as "user-SESSION": a user of exactly that name comes first, else the longest user
// that a "-" follows. Where a hash has to be checked it waits for the client's turn, and
// gives up with the error of ctx; all other errors mean that the login is wrong.
func (u *Users) Verify(ctx context.Context, client netip.Addr, name, password string) (user, session string, err error) {
	user, session, hash := u.find(name)
	if len(password) == 0 || len(password) > 72 || strings.IndexByte(password, 0) >= 0 {
		return "", "", errLogin // bcrypt stops at 72 bytes and at NUL: more would count for nothing
	}
	sum := u.sum(user, password)
	if hash != nil && u.remembers(sum) {
		return user, session, nil
	}
	end, err := u.wait(ctx, client)
	if err != nil {
		return "", "", err
	}
	defer end()
	if hash != nil && u.remembers(sum) {
		return user, session, nil // by another connection that came at the same time
	}
	if hash == nil {
		_ = bcrypt.CompareHashAndPassword(u.decoy, []byte(password)) // for the time it takes
		return "", "", errLogin
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil {
		return "", "", errLogin
	}
	u.remember(sum)
	return user, session, nil
}

// wait waits until a hash may be checked; the function returned lets the next one go on.
func (u *Users) wait(ctx context.Context, client netip.Addr) (end func(), err error) {
	endTurn, err := u.turns.take(ctx, client)
	if err != nil {
		return nil, err
	}
	select {
	case u.slow <- struct{}{}:
		return func() {
			<-u.slow
			endTurn()
		}, nil
	case <-ctx.Done():
		endTurn()
		return nil, ctx.Err()
	}
}

func (u *Users) find(name string) (user, session string, hash []byte) {
	if h, ok := u.hashes[name]; ok {
		return name, "", h
	}
	for i := len(name) - 1; i > 0; i-- {
		if name[i] != '-' {
			continue
		}
		if h, ok := u.hashes[name[:i]]; ok {
			return name[:i], name[i+1:], h
		}
	}
	return name, "", nil
}

func (u *Users) sum(user, password string) (out [32]byte) {
	m := hmac.New(sha256.New, u.key[:])
	_ = binary.Write(m, binary.BigEndian, uint32(len(user))) // a hash takes every write
	m.Write([]byte(user))
	m.Write([]byte(password))
	m.Sum(out[:0])
	return out
}

func (u *Users) remembers(sum [32]byte) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, ok := u.good[sum]
	return ok
}

func (u *Users) remember(sum [32]byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for old := range u.good {
		if len(u.good) < maxCached {
			break
		}
		delete(u.good, old)
	}
	u.good[sum] = struct{}{}
}
