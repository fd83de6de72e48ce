package inbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/socks"
)

// failed is an error as dials return it: with the address around the cause.
func failed(err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
}

func refused(err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: &dialer.RefusedError{Decision: dialer.Decision{Rule: "r", Err: err}}}
}

func TestReplyTo(t *testing.T) {
	dns := failed(&net.DNSError{Err: "no such host", Name: "a.example", IsNotFound: true})
	tests := []struct {
		name  string
		err   error
		reply socks.Reply
		http  int
	}{
		{"success", nil, socks.ReplySucceeded, http.StatusOK},
		{"limit of the listener", fmt.Errorf("%w: limit", errLimit), socks.ReplyNotAllowed, http.StatusTooManyRequests},
		{"denied", refused(dialer.ErrDenied), socks.ReplyNotAllowed, http.StatusForbidden},
		{"guard", refused(fmt.Errorf("%w: %w", dialer.ErrDenied, errProtected)), socks.ReplyNotAllowed, http.StatusForbidden},
		{"family", refused(dialer.ErrNoSource), socks.ReplyNetworkUnreachable, http.StatusBadGateway},
		{"source down", refused(fmt.Errorf("%w: gone", dialer.ErrSourceDown)), socks.ReplyNetworkUnreachable, http.StatusBadGateway},
		{"no route", failed(syscall.ENETUNREACH), socks.ReplyNetworkUnreachable, http.StatusBadGateway},
		{"host unreachable", failed(syscall.EHOSTUNREACH), socks.ReplyHostUnreachable, http.StatusBadGateway},
		{"unknown name", dns, socks.ReplyHostUnreachable, http.StatusBadGateway},
		{"name without answer", &net.DNSError{Err: "i/o timeout", IsTimeout: true, IsTemporary: true}, socks.ReplyHostUnreachable, http.StatusBadGateway},
		{"refused", failed(syscall.ECONNREFUSED), socks.ReplyRefused, http.StatusBadGateway},
		{"timeout of TCP", failed(syscall.ETIMEDOUT), socks.ReplyTTLExpired, http.StatusGatewayTimeout},
		{"timeout of the dial", failed(context.DeadlineExceeded), socks.ReplyTTLExpired, http.StatusGatewayTimeout},
		{"deadline", failed(os.ErrDeadlineExceeded), socks.ReplyTTLExpired, http.StatusGatewayTimeout},
		{"ports", refused(fmt.Errorf("%w: %w", dialer.ErrPorts, syscall.EADDRNOTAVAIL)), socks.ReplyGeneralFailure, http.StatusBadGateway},
		{"process out of files", failed(syscall.EMFILE), socks.ReplyGeneralFailure, http.StatusServiceUnavailable},
		{"system out of files", failed(syscall.ENFILE), socks.ReplyGeneralFailure, http.StatusServiceUnavailable},
		{"no memory", failed(syscall.ENOMEM), socks.ReplyGeneralFailure, http.StatusServiceUnavailable},
		{"budget", errDescriptors, socks.ReplyGeneralFailure, http.StatusServiceUnavailable},
		{"firewall", failed(syscall.EPERM), socks.ReplyGeneralFailure, http.StatusBadGateway},
		{"reset", failed(syscall.ECONNRESET), socks.ReplyGeneralFailure, http.StatusBadGateway},
		{"unknown", errors.New("x"), socks.ReplyGeneralFailure, http.StatusBadGateway},

		// Several addresses: what came from the far end comes first, in any order.
		{"refused and timeout", errors.Join(failed(syscall.ETIMEDOUT), failed(syscall.ECONNREFUSED)), socks.ReplyRefused, http.StatusBadGateway},
		{"denied and refused", errors.Join(refused(dialer.ErrDenied), failed(syscall.ECONNREFUSED)), socks.ReplyRefused, http.StatusBadGateway},
		{"family and timeout", errors.Join(refused(dialer.ErrNoSource), failed(syscall.ETIMEDOUT)), socks.ReplyTTLExpired, http.StatusGatewayTimeout},
		{"denied and family", errors.Join(refused(dialer.ErrDenied), refused(dialer.ErrNoSource)), socks.ReplyNetworkUnreachable, http.StatusBadGateway},
		{"network and host", errors.Join(failed(syscall.ENETUNREACH), failed(syscall.EHOSTUNREACH)), socks.ReplyHostUnreachable, http.StatusBadGateway},
		{"ports and denied", errors.Join(refused(dialer.ErrDenied), refused(dialer.ErrPorts)), socks.ReplyGeneralFailure, http.StatusBadGateway},

		// Texts do not count.
		{"text of a refusal", errors.New("connect: connection refused"), socks.ReplyGeneralFailure, http.StatusBadGateway},
		{"text of a denial", errors.New("denied"), socks.ReplyGeneralFailure, http.StatusBadGateway},
		{"text of a limit", errors.New(errLimit.Error()), socks.ReplyGeneralFailure, http.StatusBadGateway},
		{"text of a timeout", errors.New("i/o timeout"), socks.ReplyGeneralFailure, http.StatusBadGateway},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if reply, status := replyTo(tt.err); reply != tt.reply || status != tt.http {
				t.Errorf("got %v and %d, want %v and %d", reply, status, tt.reply, tt.http)
			}
		})
	}
}
