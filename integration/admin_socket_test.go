//go:build linux

package integration

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/srcproxy/srcproxy/internal/admin"
	"github.com/srcproxy/srcproxy/internal/nstest"
)

// TestReloadsBySocket reloads 100 times by the command, every other time with a broken
// file: it prints the error of the service, and each new flow follows the file that was
// good last. Others ask at the same time.
func TestReloadsBySocket(t *testing.T) {
	r := newRig(t)
	who := r.Server.GreetTCP(t, "0.0.0.0:4000")
	dst := at(nstest.ServerV4(1), who.Addr.Port())
	r.serve(reloadConfig(0))
	stop := make(chan struct{})
	var asking sync.WaitGroup
	c := &admin.Client{Paths: []string{defaultSocket}}
	for range 2 {
		asking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := c.Status(t.Context()); err != nil {
					t.Error(err)
					return
				}
				if _, err := c.Sources(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer asking.Wait()
	defer close(stop)
	busy, err := r.Proxy.Listen("tcp4", "127.0.0.1:1999")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	want := reloadSource(0)
	for i := 1; i <= reloads; i++ {
		if i%2 == 0 {
			broken := brokenFiles[i/2%len(brokenFiles)]
			r.write("config.toml", broken.text)
			got, code := r.admin("reload")
			if code != 1 || got.Stdout != "" || !strings.HasPrefix(got.Stderr, "srcproxy: the reload failed, and nothing has changed:\n") ||
				!regexp.MustCompile(`(?s)`+broken.err).MatchString(got.Stderr) {
				t.Fatalf("reload %d ends with %d, want 1 and %s: %v", i, code, broken.err, got)
			}
		} else {
			r.write("config.toml", reloadConfig(i))
			done := asked[admin.Reloaded](t, r, "reload")
			if done.Reloads != i || len(done.Changes) != 3 { // the source, and a rule with another name
				t.Fatalf("reload %d: %+v", i, done)
			}
			want = reloadSource(i)
		}
		wantNewSource(t, r, dst, want)
	}
}

// TestSocketOwner: the socket is for its owner and root; somebody else has one of his
// own.
func TestSocketOwner(t *testing.T) {
	nstest.Need(t, "setpriv")
	if os.Getuid() != 0 {
		nstest.Skip(t, "only root can be somebody else")
	}
	r := newRig(t)
	r.readable()
	r.serve(reloadConfig(0))
	for path, mode := range map[string]fs.FileMode{
		filepath.Dir(defaultSocket): fs.ModeDir | 0o700, defaultSocket: fs.ModeSocket | 0o600,
	} {
		if info, err := os.Lstat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: got %v, %v, want %v", path, info, err, mode)
		}
	}
	runtime := r.path("runtime")
	if err := os.Mkdir(runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(runtime, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	nobody := func(args ...string) *exec.Cmd {
		args = append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", r.binary.Build(t)}, args...)
		cmd := exec.Command("setpriv", args...)
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+runtime)
		return cmd
	}
	got := r.Proxy.Run(t, nobody("status"))
	if got.Err == nil || !strings.Contains(got.Stderr, defaultSocket+": permission denied\n") || !strings.Contains(got.Stderr, "try sudo") {
		t.Errorf("nobody asks root's service: %v", got)
	}
	log := newJournal()
	cmd := nobody("serve", "--listen", "127.0.0.1:1081")
	cmd.Stderr = log
	p := r.Proxy.Start(t, cmd)
	path := log.wait(t, 1, "admin socket")[0].text("path")
	if want := filepath.Join(runtime, "srcproxy", "admin.sock"); path != want {
		t.Errorf("nobody's socket is %s, want %s", path, want)
	}
	got = r.Proxy.Run(t, nobody("status"))
	if got.Err != nil || !strings.Contains(got.Stdout, fmt.Sprintf("pid %d, ", p.Pid())) {
		t.Errorf("nobody asks nobody's service: %v", got)
	}
	if st := asked[admin.Status](t, r, "status"); st.PID != r.proc.Pid() {
		t.Errorf("root is answered by %d, want %d", st.PID, r.proc.Pid())
	}
}

// TestSecondServe starts a service beside another one of the same user, and one after a
// kill.
func TestSecondServe(t *testing.T) {
	r := newRig(t)
	who := r.Server.GreetTCP(t, "0.0.0.0:4000")
	r.serve(reloadConfig(0))
	log := newJournal()
	cmd := exec.Command(r.binary.Build(t), "serve", "--source", reloadSource(3).String(), "--listen", "127.0.0.1:1081")
	cmd.Stderr = log
	r.Proxy.Start(t, cmd)
	log.wait(t, 1, "ready")
	warned := log.wait(t, 1, "no admin socket: status, reload and the like cannot ask this service; [admin] socket names a place for one")[0]
	if want := fmt.Sprintf("another srcproxy (pid %d) has it", r.proc.Pid()); !strings.Contains(warned.text("err"), want) {
		t.Errorf("got %v, want %q", warned, want)
	}
	if st := asked[admin.Status](t, r, "status"); st.PID != r.proc.Pid() {
		t.Errorf("status is of %d, want %d", st.PID, r.proc.Pid())
	}
	c, err := r.through("127.0.0.1:1081", at(nstest.ServerV4(1), who.Addr.Port()))
	if err != nil {
		t.Fatal(err)
	}
	if got := firstReply(c); got != reloadSource(3).String()+"\n" {
		t.Errorf("the second one's flow leaves from %q", got)
	}
	named := r.write("named.toml", strings.Replace(reloadConfig(0), ":1080", ":1082", 1)+"[admin]\nsocket = \""+defaultSocket+"\"\n")
	if got, code := r.admin("serve", "-c", named); code != 1 || !strings.Contains(got.Stderr, "has it: stop that one, or give this one its own: [admin] socket = ") {
		t.Errorf("a third with the socket of the first ends with %d: %v", code, got)
	}

	r.proc.Kill()
	got, code := r.admin("status")
	if code != 1 || !strings.Contains(got.Stderr, defaultSocket+": connection refused\n") {
		t.Errorf("status after the kill ends with %d: %v", code, got)
	}
	r.serve(r.last)
	if st := asked[admin.Status](t, r, "status"); st.PID != r.proc.Pid() {
		t.Errorf("after the kill: status is of %d, want %d", st.PID, r.proc.Pid())
	}
	if err := r.proc.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := r.proc.Wait(patience); err != nil {
		t.Error(err)
	}
	for _, path := range []string{defaultSocket, defaultSocket + ".lock"} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

// TestSlowAsker: who sends half a request is hung up on, and holds nobody up.
func TestSlowAsker(t *testing.T) {
	r := newRig(t)
	r.serve(reloadConfig(0))
	var slow []net.Conn
	for range 100 {
		c, err := net.Dial("unix", defaultSocket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET /api/v1/status HTTP/1.1\r\nHost: srcproxy\r\n"); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, c)
	}
	if st := asked[admin.Status](t, r, "status"); st.Descriptors.Used < len(slow) {
		t.Errorf("beside them: %+v", st.Descriptors)
	}
	for _, c := range slow {
		_ = c.SetReadDeadline(time.Now().Add(2 * patience)) // of an open connection
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Fatalf("a connection stays: %v", err)
		}
	}
}
