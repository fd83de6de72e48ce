package admin

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/srcproxy/srcproxy/internal/flows"
)

// pipes is a listener whose connections are in memory, so that their deadlines are those
// of synctest.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { return nil } // the test closes it
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// TestHeld has clients that never come to an end: each is let go when its time is over.
func TestHeld(t *testing.T) {
	for _, tt := range []struct {
		name, request string
		after         time.Duration
	}{
		{"silent", "", headerTime},
		{"half a header", "GET /healthz HTTP/1.1\r\nHost: src", headerTime},
		{"half a body", "POST /api/v1/reload HTTP/1.1\r\nHost: srcproxy\r\nContent-Length: 100\r\n\r\nx", headerTime},
		{"idle", "GET /healthz HTTP/1.1\r\nHost: srcproxy\r\n\r\n", idleTime},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := Server{Service: &fake{}, Flows: new(flows.Registry), Log: slog.New(slog.DiscardHandler)}
				l := make(pipes)
				s.Serve(l)
				client, server := net.Pipe()
				l <- server
				start := time.Now()
				go func() { _, _ = io.Copy(client, strings.NewReader(tt.request)) }() // ends with the connection
				if _, err := io.Copy(io.Discard, client); err != nil {
					t.Error(err)
				}
				if d := time.Since(start); d != tt.after {
					t.Errorf("the connection ended after %v, want %v", d, tt.after)
				}
				close(l)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				client.Close()
			})
		})
	}
}
