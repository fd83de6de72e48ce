package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/srcproxy/srcproxy/internal/admin"
	"github.com/srcproxy/srcproxy/internal/config"
)

// asked is a running server with a client of its socket.
type asked struct {
	*program
	*admin.Client
}

// runAsked serves a text that names no socket.
func runAsked(t *testing.T, text string) *asked {
	t.Helper()
	path := filepath.Join(t.TempDir(), "admin.sock")
	return &asked{run(t, text, func(o *Options) { o.Sockets = []string{path} }), &admin.Client{Paths: []string{path}}}
}

// set exchanges the text without a reload.
func (p *program) set(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = text
}

func withSocket(text, path string) string { return fmt.Sprintf("%s[admin]\nsocket = %q\n", text, path) }

func TestReloadBySocket(t *testing.T) {
	addr := freeAddr(t)
	p := runAsked(t, mixed(addr))
	p.set(strings.Replace(mixed(addr), "127.0.0.2", "127.0.0.3", 1) + "[limits]\nconnections = 7\n")
	done, err := p.Reload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range done.Changes {
		got = append(got, fmt.Sprintf("%s %s %s", c.What, c.Kind, c.Position))
	}
	if want := "changed default srcproxy.toml:1, added limits srcproxy.toml:7"; strings.Join(got, ", ") != want || done.Reloads != 1 {
		t.Errorf("got %d, %q, want %s", done.Reloads, got, want)
	}
	p.set("default = \"127.0.0.2\"\n[[listen]]\nmixed = \"127.0.0.1\"\n")
	_, err = p.Reload(t.Context())
	if e := (*admin.APIError)(nil); !errors.As(err, &e) || !e.Refused() || !strings.Contains(e.Text, "srcproxy.toml:3:9: ") || !strings.Contains(e.Text, "\n            ^") {
		t.Errorf("got %v, want the error with its place and a caret", err)
	}
	st, err := p.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.Reloads != 2 || st.LastReload == nil || !strings.Contains(st.LastReload.Error, "srcproxy.toml:3:9: ") || st.Connections.Max != 7 || st.Fine() {
		t.Errorf("after the failure: %+v, %+v", st, st.LastReload)
	}
	p.change(mixed(addr), "reloaded")
	if st, err = p.Status(t.Context()); err != nil || st.Reloads != 3 || st.LastReload.Error != "" || !st.Fine() {
		t.Errorf("after SIGHUP: %+v, %v", st, err)
	}
}

// TestManyReloads: each of many at once gets its own answer, beside signals.
func TestManyReloads(t *testing.T) {
	addr := freeAddr(t)
	p := runAsked(t, mixed(addr))
	var asking sync.WaitGroup
	seen := make(chan int, 100)
	for range 4 {
		asking.Go(func() {
			for range 10 {
				done, err := p.Reload(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				seen <- done.Reloads
				select {
				case p.program.reload <- syscall.SIGHUP:
				default: // one waits already
				}
			}
		})
	}
	asking.Wait()
	close(seen)
	numbers := make(map[int]bool)
	for n := range seen {
		numbers[n] = true
	}
	if len(numbers) != 40 {
		t.Errorf("got %d numbers, want 40 that are distinct", len(numbers))
	}
}

func TestReloadWhileDraining(t *testing.T) {
	addr := freeAddr(t)
	p := runAsked(t, mixed(addr))
	c := mustThrough(t, addr, echoServer(t))
	p.stop()
	p.log.wait(t, "draining", 1)
	if _, err := p.Reload(t.Context()); err == nil || err.Error() != admin.ErrDraining.Error() {
		t.Errorf("got %v, want %v", err, admin.ErrDraining)
	}
	st, err := p.Status(t.Context())
	if err != nil || st.State != admin.Draining || st.Listeners[0].Flows != 1 {
		t.Errorf("got %+v, %v", st, err)
	}
	conns, err := p.Conns(t.Context())
	if err != nil || len(conns.Conns) != 1 {
		t.Fatalf("got %+v, %v, want one", conns, err)
	}
	if _, err := p.CloseConn(t.Context(), conns.Conns[0].ID); err != nil {
		t.Error(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("the client reads %d bytes from a flow that was closed", n)
	}
	p.end() // at once, as no flow is left
	if _, err := p.Status(t.Context()); !errors.As(err, new(*admin.NoServiceError)) {
		t.Errorf("after the end: got %v", err)
	}
	if _, err := os.Lstat(p.Paths[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// TestSocketMoves: the answer comes by the old socket, and after it that is gone.
func TestSocketMoves(t *testing.T) {
	addr := freeAddr(t)
	p := runAsked(t, mixed(addr))
	first, second := p.Paths[0], filepath.Join(t.TempDir(), "second.sock")
	for _, step := range []struct{ text, from, to string }{
		{withSocket(mixed(addr), second), first, second},
		{withSocket(mixed(addr), second), second, second},
		{mixed(addr), second, first},
	} {
		p.set(step.text)
		p.Paths = []string{step.from}
		if _, err := p.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(step.from); step.from != step.to && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", step.from, err)
		}
		p.Paths = []string{step.to}
		if _, err := p.Status(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestSocketTaken(t *testing.T) {
	taken := filepath.Join(t.TempDir(), "admin.sock")
	l, err := admin.Listen(taken)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	other := freeAddr(t)
	o := Options{Load: func() (*config.Config, error) {
		return config.Parse("srcproxy.toml", []byte(withSocket(mixed(other), taken)))
	}}
	if err := Run(t.Context(), o); !errors.As(err, new(*admin.InUseError)) {
		t.Errorf("start with a socket that is taken: got %v", err)
	}

	// Nobody has named the usual places: the program does its work without one.
	addr := freeAddr(t)
	p := run(t, mixed(addr), func(o *Options) { o.Sockets = []string{taken} })
	w := p.log.wait(t, "no admin socket: status, reload and the like cannot ask this service; [admin] socket names a place for one", 1)[0]
	if want := fmt.Sprintf("(pid %d) has it", os.Getpid()); !strings.Contains(w.text("err"), want) {
		t.Errorf("got %v, want %q", w, want)
	}
	mustEcho(t, mustThrough(t, addr, echoServer(t)))
	if e := p.change(withSocket(mixed(freeAddr(t)), taken), "reload failed"); !strings.Contains(e.text("err"), "has it") {
		t.Errorf("reload to a socket that is taken: %v", e)
	}
	mustEcho(t, mustThrough(t, addr, echoServer(t)))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p.change(mixed(addr), "reloaded")
	if _, err := (&admin.Client{Paths: []string{taken}}).Status(t.Context()); err != nil {
		t.Errorf("once it is free, and after a reload: %v", err)
	}
}

// rulesText is a listener with rules.
func rulesText(addr, rules string) string {
	return fmt.Sprintf("default = \"deny\"\n[[listen]]\nname = \"office\"\nmixed = %q\n%s", addr, rules)
}

const echoRule = "[[rules]]\nto = \"127.0.0.1\"\nuse = \"127.0.0.2\"\n"

func TestRuleHits(t *testing.T) {
	addr := freeAddr(t)
	p := runAsked(t, rulesText(addr, echoRule))
	target := echoServer(t)
	mustEcho(t, mustThrough(t, addr, target))
	if _, err := through(addr, mustAddr(t, "127.0.0.9:1")); err == nil {
		t.Error("a flow that is denied opens")
	}
	want := func(when, text string) {
		t.Helper()
		got, err := p.Rules(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var words []string
		for _, r := range got.Rules {
			words = append(words, fmt.Sprintf("%s %d %d", r.Name, r.Hits, r.Denied))
		}
		if got := strings.Join(words, ", "); got != text {
			t.Errorf("%s: got %s, want %s", when, got, text)
		}
	}
	want("at first", "rule 1 1 0, default 1 1")
	p.change(rulesText(addr, "[[rules]]\nname = \"new\"\nto = \"10.0.0.0/8\"\nuse = \"deny\"\n"+echoRule), "reloaded")
	want("with a rule above it", "new 0 0, rule 2 1 0, default 1 1")
	mustEcho(t, mustThrough(t, addr, target))
	want("after one more flow", "new 0 0, rule 2 2 0, default 1 1")
	p.change(rulesText(addr, strings.Replace(echoRule, "127.0.0.2", "127.0.0.3", 1)), "reloaded")
	want("with another rule in its place", "rule 1 0 0, default 1 1")
	if _, err := p.ResetRules(context.Background()); err != nil {
		t.Fatal(err)
	}
	want("after a reset", "rule 1 0 0, default 0 0")
}

func TestStatusOfListeners(t *testing.T) {
	p := runAsked(t, `default = "kernel"
[[listen]]
mixed = ["127.0.0.1:0", "127.0.0.2:0"]
[[listen]]
name = "trunk"
udp = "127.0.0.1:0"
to = "127.0.0.9:5060"
use = "127.0.0.3"
`)
	st, err := p.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	open := make(map[string]bool)
	for _, a := range p.addrs {
		open[a.String()] = true
	}
	for _, l := range st.Listeners {
		for _, a := range l.Addresses {
			if !open[a] {
				t.Errorf("listener %s is said to be on %s, and not one of %v", l.Name, a, p.addrs)
			}
			delete(open, a)
		}
	}
	if len(open) != 0 || st.Listeners[0].Kind != "mixed" || st.Listeners[1].Kind != "udp" || st.PID != os.Getpid() || st.Descriptors.Used == 0 || st.Config == "" {
		t.Errorf("got %+v", st)
	}
	rules, err := p.Rules(t.Context())
	if err != nil || len(rules.Rules) != 2 || rules.Rules[1].Name != "trunk" || rules.Rules[1].Use != "127.0.0.3" {
		t.Errorf("got %+v, %v, want the default and the forward", rules, err)
	}
}

// TestStatusOfCommandLine takes a configuration that flags have made for no file.
func TestStatusOfCommandLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	run(t, mixed("127.0.0.1:0"), func(o *Options) {
		o.Sockets = []string{path}
		o.Load = func() (*config.Config, error) { return config.Parse(config.CommandLine, []byte(mixed("127.0.0.1:0"))) }
	})
	st, err := (&admin.Client{Paths: []string{path}}).Status(t.Context())
	if err != nil || st.Config != "command line" {
		t.Errorf("status tells of the configuration %q, %v", st.Config, err)
	}
}

func TestExplainBySocket(t *testing.T) {
	addr := freeAddr(t)
	p := runAsked(t, rulesText(addr, echoRule))
	var q admin.Question
	q.Flow.Network, q.Flow.Dst, q.Flow.Listener = "tcp", mustAddr(t, "127.0.0.1:80").AddrPort(), "office"
	a, err := p.Explain(t.Context(), &q)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Walks) != 1 || len(a.Walks[0].Addresses) != 1 {
		t.Fatalf("got %+v", a)
	}
	if got := a.Walks[0].Addresses[0]; got.Rule != "rule 1" || got.From.String() != "127.0.0.2" || got.Way == nil || got.Way.Table.String() != "local" {
		t.Errorf("got %+v", got)
	}
	q.Flow.Listener = "offfice"
	if _, err := p.Explain(t.Context(), &q); err == nil || !strings.Contains(err.Error(), `no listener "offfice"`) {
		t.Errorf("got %v", err)
	}
}
