//go:build linux

package integration

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/cgi"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// sshServer is a server that runs no program: it answers each exec request with
// the address that the client came from. It asks for a public key.
func sshServer(t *testing.T, n *nstest.Namespace, address string, authorized ssh.PublicKey) (*nstest.Server, ssh.PublicKey) {
	t.Helper()
	host, _ := newKey(t)
	config := &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if string(key.Marshal()) != string(authorized.Marshal()) {
				return nil, ssh.ErrNoAuth
			}
			return nil, nil
		},
	}
	config.AddHostKey(host)
	return n.ServeTCP(t, address, func(c *net.TCPConn) { serveSSH(c, config) }), host.PublicKey()
}

func serveSSH(c *net.TCPConn, config *ssh.ServerConfig) {
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	defer conn.Close()
	go ssh.DiscardRequests(requests)
	for offered := range channels {
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		for request := range requests {
			exec := request.Type == "exec"
			_ = request.Reply(exec, nil) // the client tells what it missed
			if !exec {
				continue
			}
			_, _ = channel.Write([]byte(netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().String()))
			_, _ = channel.SendRequest("exit-status", false, []byte{0, 0, 0, 0})
			_ = channel.Close()
		}
	}
}

func newKey(t *testing.T) (ssh.Signer, ed25519.PrivateKey) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer, private
}

// sshArguments are those of an ssh that knows the host's key and its own, and
// goes through a ProxyCommand.
func sshArguments(t *testing.T, r *rig, private ed25519.PrivateKey, host ssh.PublicKey, proxy string) []string {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	key := r.write("id", string(pem.EncodeToMemory(block)))
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	known := r.write("known_hosts", "* "+string(ssh.MarshalAuthorizedKey(host)))
	return []string{
		"-F", "none", "-o", "UserKnownHostsFile=" + known, "-o", "IdentityFile=" + key,
		"-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ProxyCommand=" + proxy,
	}
}

// TestSSH goes through nc, with each protocol that it knows.
func TestSSH(t *testing.T) {
	nstest.Need(t, "ssh", "nc")
	r := newRig(t)
	own, private := newKey(t)
	s, host := sshServer(t, r.Server, "0.0.0.0:22", own.PublicKey())
	r.serve(mainConfig)
	for _, way := range []string{"5", "4", "connect"} {
		for to, want := range map[string]netip.Addr{"server.example": wan4, "smtp.mail.example": mail4} {
			t.Run(way+" "+to, func(t *testing.T) {
				s.Forget()
				args := sshArguments(t, r, private, host, "nc -X "+way+" -x 127.0.0.1:1080 %h %p")
				got := r.run("ssh", append(args, "git@"+to, "who")...)
				if got.Err != nil || got.Stdout != want.String() {
					t.Errorf("got %v\nwant %v", got, want)
				}
				wantSources(t, s, want, 1)
			})
		}
	}
}

// TestGitClone clones over HTTP. An HTTP proxy is not among the ways: for http
// URLs git does not ask it to CONNECT; TestSSH and TestCurl do.
func TestGitClone(t *testing.T) {
	nstest.Need(t, "git")
	r := newRig(t)
	s := r.Server.ServeHTTP(t, "0.0.0.0:80", gitBackend(t, r))
	r.serve(mainConfig)
	for _, proxy := range []string{"socks5h://127.0.0.1:1080", "socks5://127.0.0.1:1080", "socks4a://127.0.0.1:1080"} {
		for to, want := range map[string]netip.Addr{"server.example": wan4, "smtp.mail.example": mail4} {
			t.Run(proxy+" "+to, func(t *testing.T) {
				s.Forget()
				into := filepath.Join(t.TempDir(), "clone")
				got := r.run("git", "-c", "http.proxy="+proxy, "clone", "-q", "http://"+to+"/origin", into)
				if got.Err != nil {
					t.Fatalf("clone: %v", got)
				}
				if b, err := os.ReadFile(filepath.Join(into, "file")); err != nil || string(b) != "content\n" {
					t.Errorf("file is %q, %v", b, err)
				}
				if sources := s.Sources(); len(sources) != 1 || sources[want] == 0 {
					t.Errorf("the server was called from %v, want %v alone", sources, want)
				}
			})
		}
	}
}

// gitBackend serves a repository with one commit.
func gitBackend(t *testing.T, r *rig) http.Handler {
	t.Helper()
	root := r.path("repositories")
	origin := filepath.Join(root, "origin")
	if err := os.MkdirAll(origin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(origin, "file"), []byte("content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"init", "-q", "-b", "main", origin},
		{"-C", origin, "add", "file"},
		{"-C", origin, "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "-m", "one"},
	} {
		if got := r.run("git", args...); got.Err != nil {
			t.Fatalf("git %v: %v", args, got)
		}
	}
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	return &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + r.dir},
	}
}
