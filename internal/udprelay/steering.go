package udprelay

import (
	"errors"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/pktinfo"
)

// steering is by which way the datagrams of a source leave, besides their address. The
// zero value leaves that to the routing table.
type steering struct {
	device string
	mark   uint32
}

// steer makes c send by the way s, which is that of the source of that name, and closes
// it where that cannot be. It comes after the bind: the kernel gives one port to several
// sockets when each is bound to a device of its own, and here a port tells sockets apart.
func steer(c *pktinfo.Conn, s steering, source string) error {
	if s == (steering{}) {
		return nil
	}
	raw, err := c.SyscallConn()
	if err == nil {
		err = (&dialer.Source{Name: source, Device: s.device, Mark: s.mark}).Control("", "", raw)
	}
	if err != nil {
		return errors.Join(err, c.Close())
	}
	return nil
}
