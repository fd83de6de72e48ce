//go:build linux

package nstest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace that lives as long as its test. Its methods
// are safe for concurrent use.
type Namespace struct {
	name string
	fd   int // of the namespace: it lives while this is open
	work chan func()
	done chan struct{}
}

// NewNamespace makes a network namespace with its loopback up and duplicate
// address detection off. The name appears in messages only.
func NewNamespace(t testing.TB, name string) *Namespace {
	t.Helper()
	Dir(t)
	n := &Namespace{name: name, work: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	go n.thread(ready)
	if err := <-ready; err != nil {
		t.Fatalf("namespace %s: %v", name, err)
	}
	t.Cleanup(func() {
		close(n.work)
		<-n.done
		if err := unix.Close(n.fd); err != nil {
			t.Errorf("namespace %s: close: %v", name, err)
		}
	})
	return n
}

// thread creates the namespace and then forks the processes that run in it. All
// are forked by this one thread, since Pdeathsig fires when the thread that
// forked ends: with the namespace, or with this process.
func (n *Namespace) thread(ready chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	defer close(n.done)
	if err := n.create(); err != nil {
		ready <- err
		return
	}
	close(ready)
	for f := range n.work {
		f()
	}
}

func (n *Namespace) create() (err error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	for _, which := range []string{"all", "default"} {
		if err := writeSysctl("net.ipv6.conf."+which+".accept_dad", "0"); err != nil {
			return err
		}
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	n.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return err
}

// Name is the name given to NewNamespace.
func (n *Namespace) Name() string { return n.name }

// Do calls f on a thread inside the namespace and returns its error. Sockets
// that f makes stay in the namespace. Goroutines that f starts do not run in it,
// so f may dial literal addresses, but not names.
func (n *Namespace) Do(f func() error) error {
	errc := make(chan error, 1)
	go func() {
		err := errors.New("the function ended its goroutine")
		defer func() { errc <- err }()
		runtime.LockOSThread() // never unlocked: nobody else gets this thread
		if err = unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("setns %s: %w", n.name, err)
			return
		}
		err = errors.New("the function ended its goroutine")
		err = f()
	}()
	return <-errc
}

// Listen is net.Listen inside the namespace. The caller closes the listener.
func (n *Namespace) Listen(network, address string) (l net.Listener, err error) {
	err = n.Do(func() error {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// ListenPacket is net.ListenPacket inside the namespace. The caller closes the
// socket.
func (n *Namespace) ListenPacket(network, address string) (c net.PacketConn, err error) {
	err = n.Do(func() error {
		c, err = net.ListenPacket(network, address)
		return err
	})
	return c, err
}

// Dial connects to a literal address from inside the namespace, with the
// timeout and local address of d. The caller closes the connection.
func (n *Namespace) Dial(d net.Dialer, network, address string) (c net.Conn, err error) {
	err = n.Do(func() error {
		c, err = d.Dial(network, address)
		return err
	})
	return c, err
}

// Sysctl sets a variable of the namespace, such as
// net.ipv4.ip_local_port_range.
func (n *Namespace) Sysctl(t testing.TB, name, value string) {
	t.Helper()
	if err := n.Do(func() error { return writeSysctl(name, value) }); err != nil {
		t.Fatal(err)
	}
}

// writeSysctl writes in the namespace of the calling thread.
func writeSysctl(name, value string) error {
	path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("sysctl %s: %w", name, err)
	}
	return nil
}
