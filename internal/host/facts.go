package host

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"

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

	// Mark says that this process may set SO_MARK (CAP_NET_ADMIN, or since Linux 5.17
	// CAP_NET_RAW).
	Mark bool

	// BindService says that this process may bind the ports below (CAP_NET_BIND_SERVICE).
	BindService bool

	// NoPing says that this process cannot send ICMP echo requests: it has no CAP_NET_RAW,
	// and none of its groups is in net.ipv4.ping_group_range (Linux 3.0).
	NoPing bool

	// Nameservers are the servers in resolv.conf, without their zones.
	Nameservers []netip.Addr

	// Upstreams are the servers that systemd-resolved asks, where it is the stub that
	// resolv.conf names.
	Upstreams []netip.Addr
}

// Where the facts stand, proc(5).
const (
	portRangeFile    = "/proc/sys/net/ipv4/ip_local_port_range"
	unprivilegedFile = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
	pingFile         = "/proc/sys/net/ipv4/ping_group_range"
)

// ReadFacts returns the facts of this process. Those that cannot be read are left
// zero, and the error joins the reasons.
func ReadFacts() (Facts, error) {
	var f Facts
	var limitErr, capErr error
	f.Files, limitErr = MaxOpenFiles()
	f.BindService, capErr = capable(unix.CAP_NET_BIND_SERVICE)
	var pingErr, resolvErr, upstreamErr error
	f.NoPing, pingErr = noPing()
	admin, adminErr := capable(unix.CAP_NET_ADMIN)
	raw, rawErr := capable(unix.CAP_NET_RAW)
	f.Mark = admin || raw
	f.Nameservers, resolvErr = readNameservers(ResolvFile)
	f.Upstreams, upstreamErr = readNameservers(ResolvedFile)
	return f, errors.Join(
		limitErr,
		capErr,
		pingErr,
		adminErr,
		rawErr,
		resolvErr,
		upstreamErr,
		scanFile(portRangeFile, &f.PortLo, &f.PortHi),
		scanFile(unprivilegedFile, &f.Unprivileged),
	)
}

func noPing() (bool, error) {
	raw, err := capable(unix.CAP_NET_RAW)
	if raw || err != nil {
		return false, err
	}
	var lo, hi uint32
	if err := scanFile(pingFile, &lo, &hi); err != nil {
		return false, err
	}
	groups, err := os.Getgroups()
	if err != nil {
		return false, os.NewSyscallError("getgroups", err)
	}
	within := func(g int) bool { return int64(g) >= int64(lo) && int64(g) <= int64(hi) }
	return !slices.ContainsFunc(append(groups, os.Getegid()), within), nil
}

// readNameservers returns the servers that a resolv.conf names. No file is no error.
func readNameservers(path string) ([]netip.Addr, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var servers []netip.Addr
	for _, a := range ParseResolvConf(text).Servers {
		servers = append(servers, a.WithZone(""))
	}
	return servers, err
}

// LocalPorts returns how many ports the kernel gives to the sockets of one address.
func LocalPorts() (int, error) {
	var lo, hi int
	if err := scanFile(portRangeFile, &lo, &hi); err != nil {
		return 0, err
	}
	return hi - lo + 1, nil
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

// Setting returns a variable of the kernel by the name that sysctl(8) has for it:
// "net.ipv4.ip_forward", or with slashes where a link with dots in its name is in it.
func Setting(name string) (string, error) {
	path := name
	if !strings.Contains(name, "/") {
		path = strings.ReplaceAll(name, ".", "/")
	}
	text, err := os.ReadFile("/proc/sys/" + path)
	return strings.TrimSpace(string(text)), err
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
