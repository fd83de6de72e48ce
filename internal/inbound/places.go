package inbound

import "fmt"

// arrive takes a place of the client's address, for as long as its connection is open:
// what has said nothing yet costs a descriptor, too, and no client is to have them all.
// One that has as many as it may have is let in all the same, to be told so in its
// protocol; only when a few wait for that already is there an error. The caller calls
// leave at the end.
func (c *client) arrive() (leave func(), err error) {
	limits, a := &c.settings.Shared.Limits, c.addr.Addr()
	err = limits.EnterClient(a)
	if err == nil {
		return func() { limits.LeaveClient(a) }, nil
	}
	if !limits.EnterExcess(a) {
		return nil, err
	}
	c.excess = err
	return func() { limits.LeaveExcess(a) }, nil
}

// enter takes a place under the limits of the program, of the listener and of the user.
func (c *client) enter() error {
	shared := c.settings.Shared
	if c.excess != nil {
		return c.excess
	}
	if !shared.Connections.Enter(shared.Max.Load()) {
		return fmt.Errorf("%w: limits.connections", errLimit)
	}
	if !c.listener.gate.Enter(int64(c.settings.Limit)) {
		shared.Connections.Leave()
		return fmt.Errorf("%w: limit of listener %q", errLimit, c.settings.Name)
	}
	if c.user == "" {
		return nil
	}
	err := shared.Limits.EnterUser(c.user)
	if err != nil {
		c.listener.gate.Leave()
		shared.Connections.Leave()
	}
	return err
}

// leave gives back what enter took.
func (c *client) leave() {
	shared := c.settings.Shared
	if c.user != "" {
		shared.Limits.LeaveUser(c.user)
	}
	c.listener.gate.Leave()
	shared.Connections.Leave()
}
