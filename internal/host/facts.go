package host

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Facts are limits and rights of this process and of its host. Zero fields are not
// known.
type Facts struct {
	// Files is MaxOpenFiles.
	Files int

	// PortLo and PortHi bound the ports that the kernel gives to sockets, both
	// inclusive (net.ipv4.ip_local_port_range, for both families).
	PortLo, PortHi uint16

	// Unprivileged is the lowest port that needs no right
	// (net.ipv4.ip_unprivileged_port_start, Linux 4.11).
	Unprivileged int

	// BindService says that this process may bind the ports below (CAP_NET_BIND_SERVICE).
	BindService bool

	// Nameservers are the servers in resolv.conf, without their zones.
	Nameservers []netip.Addr
}

// Where the facts stand, proc(5).
const (
	portRangeFile    = "/proc/sys/net/ipv4/ip_local_port_range"
	unprivilegedFile = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
)

// ReadFacts returns the facts of this process. Those that cannot be read are left
// zero, and the error joins the reasons.
func ReadFacts() (Facts, error) {
	var f Facts
	var limitErr, capErr error
	f.Files, limitErr = MaxOpenFiles()
	f.BindService, capErr = capable(unix.CAP_NET_BIND_SERVICE)
	resolv, resolvErr := os.ReadFile(ResolvFile)
	if errors.Is(resolvErr, fs.ErrNotExist) {
		resolvErr = nil
	}
	for _, a := range ParseResolvConf(resolv).Servers {
		f.Nameservers = append(f.Nameservers, a.WithZone(""))
	}
	return f, errors.Join(
		limitErr,
		capErr,
		resolvErr,
		scanFile(portRangeFile, &f.PortLo, &f.PortHi),
		scanFile(unprivilegedFile, &f.Unprivileged),
	)
}

// MaxOpenFiles returns the number of descriptors that this process may hold: the soft
// limit of RLIMIT_NOFILE, which Go raises to the hard one at the start.
func MaxOpenFiles() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("getrlimit(RLIMIT_NOFILE)", err)
	}
	return int(min(limit.Cur, math.MaxInt32)), nil
}

// scanFile reads the numbers that a file of /proc/sys holds.
func scanFile(name string, numbers ...any) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if _, err := fmt.Sscan(string(text), numbers...); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// capable reports whether this process has the capability now (capabilities(7)).
func capable(capability uint) (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, os.NewSyscallError("capget", err)
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0, nil
}
