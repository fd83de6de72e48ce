package host

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Holder is the process that has a port.
type Holder struct {
	PID     int    // 0 when it may not be seen: it belongs to another user
	Command string // its name, proc_pid_comm(5)
	UID     int    // the user of the socket

	inode string // of the socket
}

// Is reports whether the process with that number has the socket, too: a service that
// is exchanged shares its sockets with the next one, and whoever opened a socket for it
// may still have it. It is false where this process may not look.
func (h Holder) Is(pid int) bool {
	if h.PID == pid {
		return pid != 0
	}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	return err == nil && h.inode != "" && slices.ContainsFunc(fds, func(fd string) bool { return leadsTo(fd, h.inode) })
}

// leadsTo reports whether a descriptor, as a path in /proc, is a socket. Who is gone, or not
// ours to see, has none.
func leadsTo(fd, inode string) bool {
	target, err := os.Readlink(fd)
	return err == nil && target == "socket:["+inode+"]"
}

// String returns "pid 812 (nginx)", or the user where the process is not known.
func (h Holder) String() string {
	if h.PID == 0 {
		return fmt.Sprintf("a process of user %d", h.UID)
	}
	return fmt.Sprintf("pid %d (%s)", h.PID, h.Command)
}

// PortHolder returns who has a socket that keeps others from listening on a; the
// network is "tcp" or "udp". It reads /proc and takes its time.
func PortHolder(network string, a netip.AddrPort) (Holder, bool) {
	for _, version := range []string{"", "6"} {
		text, err := os.ReadFile("/proc/net/" + network + version)
		if err != nil {
			continue // without IPv6 there is no such file
		}
		if s, ok := findSocket(text, network == "tcp", a); ok {
			h := Holder{UID: s.uid, inode: s.inode}
			h.PID, h.Command = process(s.inode)
			return h, true
		}
	}
	return Holder{}, false
}

// socket is what a line of /proc/net/tcp tells of one.
type socket struct {
	local     netip.AddrPort
	listening bool // TCP_LISTEN
	uid       int
	inode     string
}

// findSocket looks for the socket that is in the way of a.
func findSocket(text []byte, tcp bool, a netip.AddrPort) (socket, bool) {
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		s, ok := parseSocket(lines.Text())
		if ok && (s.listening || !tcp) && s.local.Port() == a.Port() && overlap(s.local.Addr(), a.Addr()) {
			return s, true
		}
	}
	return socket{}, false
}

// overlap reports whether two sockets with these addresses cannot have the same port.
// The IPv6 wildcard may take IPv4 as well.
func overlap(a, b netip.Addr) bool {
	a, b = a.Unmap(), b.Unmap()
	switch {
	case a == b, a == netip.IPv6Unspecified(), b == netip.IPv6Unspecified():
		return true
	}
	return a.Is4() == b.Is4() && (a.IsUnspecified() || b.IsUnspecified())
}

// parseSocket reads a line of proc_net(5):
//
//	sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...
func parseSocket(line string) (socket, bool) {
	const listen = "0A"
	w := strings.Fields(line)
	if len(w) < 10 {
		return socket{}, false
	}
	local, ok := parseAddrPort(w[1])
	uid, err := strconv.Atoi(w[7])
	return socket{local: local, listening: w[3] == listen, uid: uid, inode: w[9]}, ok && err == nil
}

// parseAddrPort reads "0100007F:1F90": an address as 32-bit words in the byte order of
// the machine, and a port, in hexadecimal.
func parseAddrPort(s string) (netip.AddrPort, bool) {
	addr, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(addr)
	if err != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, ok := netip.AddrFromSlice(b)
	p, err := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(a, uint16(p)), ok && err == nil
}

// process returns the first process that has the socket open, as far as this one may
// look.
func process(inode string) (int, string) {
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0, ""
	}
	for _, fd := range fds {
		if !leadsTo(fd, inode) {
			continue
		}
		proc := filepath.Dir(filepath.Dir(fd))
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil {
			continue
		}
		comm, err := os.ReadFile(filepath.Join(proc, "comm"))
		if err != nil {
			continue
		}
		return pid, strings.TrimSpace(string(comm))
	}
	return 0, ""
}
