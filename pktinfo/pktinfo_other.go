//go:build !linux

package pktinfo

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// socket is empty where there is no support.
type socket struct{ features Features }

func (lc *ListenConfig) listen(_ context.Context, network, _ string) (*Conn, error) {
	return nil, &net.OpError{Op: "listen", Net: network, Err: errors.ErrUnsupported}
}

func (c *Conn) setUp(*ListenConfig) error { return errors.ErrUnsupported }

func (c *Conn) readBatch([]Message) (int, error) { return 0, c.readError(errors.ErrUnsupported) }
func (c *Conn) writeBatch([]Message) (int, error) {
	return 0, c.writeError(Addr{}, errors.ErrUnsupported)
}
func (c *Conn) readReady([]Message) (int, error) { return 0, c.readError(errors.ErrUnsupported) }
func (c *Conn) readMsg(*Message) error           { return c.readError(errors.ErrUnsupported) }
func (c *Conn) writeMsg(m *Message) error        { return c.writeError(m.Addr, errors.ErrUnsupported) }
func (c *Conn) waitRead() error                  { return c.readError(errors.ErrUnsupported) }
func (c *Conn) dropped() (uint64, error)         { return 0, c.readError(errors.ErrUnsupported) }
func (c *Conn) readBuffer() (int, error)         { return 0, c.readError(errors.ErrUnsupported) }
func (c *Conn) writeBuffer() (int, error)        { return 0, c.writeError(Addr{}, errors.ErrUnsupported) }

func (c *Conn) readOne([]byte) (int, Addr, error) {
	return 0, Addr{}, c.readError(errors.ErrUnsupported)
}

func (c *Conn) writeOne(_ []byte, a Addr) (int, error) {
	return 0, c.writeError(a, errors.ErrUnsupported)
}

// AppendControl returns b: control messages are Linux's.
func AppendControl(b []byte, _ netip.Addr, _, _ int) []byte { return b }

// ParseControl returns errors.ErrUnsupported: control messages are Linux's.
func ParseControl([]byte) (Message, error) { return Message{}, errors.ErrUnsupported }
