package inbound

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"syscall"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/socks"
)

// Why a client gets nothing, besides what the dialer says.
var (
	errNotAllowed  = errors.New("the listener does not allow this client")
	errLimit       = errors.New("the limit of connections is reached")
	errDescriptors = errors.New("no file descriptor is left; raise LimitNOFILE")
	errGone        = errors.New("the client left before it was answered")
	errHandshake   = errors.New("handshake")
)

// outcomes says what a client is told. The order counts: where several addresses of a
// name failed, each in its way, the first row that is among the reasons is the answer,
// and what came from the far end says more than what was refused here.
var outcomes = []struct {
	is    func(error) bool
	reply socks.Reply
	http  int
}{
	{isErr(errLimit), socks.ReplyNotAllowed, http.StatusTooManyRequests},
	{isErr(syscall.ECONNREFUSED), socks.ReplyRefused, http.StatusBadGateway},
	{isTimeout, socks.ReplyTTLExpired, http.StatusGatewayTimeout},
	{isErr(syscall.EHOSTUNREACH), socks.ReplyHostUnreachable, http.StatusBadGateway},
	{isDNS, socks.ReplyHostUnreachable, http.StatusBadGateway},
	{isErr(dialer.ErrLimit), socks.ReplyNotAllowed, http.StatusTooManyRequests},
	{isErr(dialer.ErrPorts), socks.ReplyGeneralFailure, http.StatusBadGateway},
	{isErr(dialer.ErrNoSource), socks.ReplyNetworkUnreachable, http.StatusBadGateway},
	{isErr(dialer.ErrSourceDown), socks.ReplyNetworkUnreachable, http.StatusBadGateway},
	{isErr(syscall.ENETUNREACH), socks.ReplyNetworkUnreachable, http.StatusBadGateway},
	{isErr(dialer.ErrDenied), socks.ReplyNotAllowed, http.StatusForbidden},
	{exhausted, socks.ReplyGeneralFailure, http.StatusServiceUnavailable},
	{isErr(errDescriptors), socks.ReplyGeneralFailure, http.StatusServiceUnavailable},
}

// replyTo returns what SOCKS and HTTP clients are told of err.
func replyTo(err error) (socks.Reply, int) {
	if err == nil {
		return socks.ReplySucceeded, http.StatusOK
	}
	for _, o := range outcomes {
		if o.is(err) {
			return o.reply, o.http
		}
	}
	return socks.ReplyGeneralFailure, http.StatusBadGateway
}

func isErr(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func isTimeout(err error) bool {
	return errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

func isDNS(err error) bool {
	var d *net.DNSError
	return errors.As(err, &d)
}
