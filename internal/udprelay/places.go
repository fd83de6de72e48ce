package udprelay

import (
	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/flows"
)

// takePlaces takes what the flow counts for under the limits of its client and source.
func (e *Engine) takePlaces(o *opening) error {
	client := o.key.from.Addr()
	if err := e.Limits.EnterClient(client); err != nil {
		return &clientError{err}
	}
	_, err := e.enterSource(&o.decision)
	if err != nil {
		e.Limits.LeaveClient(client)
	}
	return err
}

// clientError is a limit that the client has reached, whatever source it would get.
type clientError struct{ error }

func (e *clientError) Unwrap() error { return e.error }

// leavePlaces gives back what takePlaces took for the flow of that info.
func (e *Engine) leavePlaces(i *flows.Info) {
	e.Limits.LeaveClient(i.Client.Addr())
	e.Limits.LeaveSource(i.Source)
}

// enterSource takes a place under the limit of the source of dec. It returns the name by
// which LeaveSource gives it back, none when there is no source.
func (e *Engine) enterSource(dec *dialer.Decision) (string, error) {
	if dec.Source == nil {
		return "", nil
	}
	return dec.Source.Name, e.Limits.Enter(dec.Source)
}
