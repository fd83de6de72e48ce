package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/srcproxy/srcproxy/internal/explain"
)

// A Client asks the service behind one of several sockets. It is safe for concurrent use
// as long as its fields are not changed.
type Client struct {
	// Paths are the sockets that are tried, in this order.
	Paths []string

	// Config is the absolute path of the file that is meant. A service that serves
	// another one refuses. Empty takes any.
	Config string

	// Doubt is why the service may be behind another socket than these, for the error
	// when none answers. Nil: it is not.
	Doubt error

	// Sum is the config.Config.Sum that is meant, likewise.
	Sum string
}

// A NoServiceError says that behind no socket a service answers.
type NoServiceError struct {
	Tried []error // for each socket
	Doubt error   // that of the Client
}

// Error says what was tried, and what to do.
func (e *NoServiceError) Error() string {
	var b strings.Builder
	b.WriteString("no service answers:")
	denied := false
	for _, err := range e.Tried {
		b.WriteString("\n    " + err.Error())
		denied = denied || errors.Is(err, syscall.EACCES)
	}
	if e.Doubt != nil {
		b.WriteString("\n    The file may name another socket, but it cannot be read:\n" + e.Doubt.Error())
		return b.String()
	}
	if denied {
		b.WriteString("\n    One that you may not ask may run there: try sudo.")
	}
	b.WriteString("\n    Start one: srcproxy serve -c FILE. Of one that runs, the log names the socket, and -c FILE finds it.")
	return b.String()
}

// An APIError is what the service answers when something goes wrong.
type APIError struct {
	Code int // the HTTP status
	Text string
}

// Error returns the text of the service.
func (e *APIError) Error() string { return e.Text }

// Refused reports whether e is what is wrong with a configuration that was to be used.
func (e *APIError) Refused() bool { return e.Code == http.StatusConflict }

// Status asks how the service is.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return ask[Status](ctx, c, http.MethodGet, "/api/v1/status", nil)
}

// Sources asks for the sources.
func (c *Client) Sources(ctx context.Context) (*Sources, error) {
	return ask[Sources](ctx, c, http.MethodGet, "/api/v1/sources", nil)
}

// Rules asks for the rules.
func (c *Client) Rules(ctx context.Context) (*Rules, error) {
	return ask[Rules](ctx, c, http.MethodGet, "/api/v1/rules", nil)
}

// ResetRules sets the counts of the rules to zero.
func (c *Client) ResetRules(ctx context.Context) (*Rules, error) {
	return ask[Rules](ctx, c, http.MethodPost, "/api/v1/rules/reset", nil)
}

// Conns asks for the live flows.
func (c *Client) Conns(ctx context.Context) (*Conns, error) {
	return ask[Conns](ctx, c, http.MethodGet, "/api/v1/conns", nil)
}

// CloseConn ends the flow with that number.
func (c *Client) CloseConn(ctx context.Context, id uint64) (*Conn, error) {
	return ask[Conn](ctx, c, http.MethodDelete, fmt.Sprintf("/api/v1/conns/%d", id), nil)
}

// Reload makes the service take its configuration anew, and waits for it.
func (c *Client) Reload(ctx context.Context) (*Reloaded, error) {
	return ask[Reloaded](ctx, c, http.MethodPost, "/api/v1/reload", nil)
}

// Explain asks what becomes of a flow.
func (c *Client) Explain(ctx context.Context, q *Question) (*explain.Answer, error) {
	return ask[explain.Answer](ctx, c, http.MethodGet, "/api/v1/explain", q.query())
}

// ask sends one request, on a connection of its own.
func ask[T any](ctx context.Context, c *Client, method, path string, query url.Values) (*T, error) {
	u := url.URL{Scheme: "http", Host: Host, Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	for key, value := range map[string]string{configHeader: c.Config, sumHeader: c.Sum} {
		if value != "" {
			req.Header.Set(key, value)
		}
	}
	transport := http.Transport{DialContext: c.dial, DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if none := (*NoServiceError)(nil); errors.As(err, &none) {
		return nil, none
	}
	if err != nil {
		return nil, fmt.Errorf("ask the service: %w", err)
	}
	v := new(T)
	err = decode(resp, v)
	return v, errors.Join(err, resp.Body.Close())
}

// decode reads an answer, or the error that it is, into v.
func decode(resp *http.Response, v any) error {
	if resp.StatusCode == http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
			return fmt.Errorf("the answer of the service: %w", err)
		}
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("the answer of the service: %w", err)
	}
	var f failure
	if json.Unmarshal(text, &f) != nil || f.Error == "" {
		f.Error = fmt.Sprintf("the service answers %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return &APIError{resp.StatusCode, f.Error}
}

// dial connects to the first socket behind which somebody answers.
func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	none := &NoServiceError{Doubt: c.Doubt}
	for _, path := range c.Paths {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			return conn, nil
		}
		none.Tried = append(none.Tried, &tryError{path, err})
	}
	return nil, none
}

// tryError says why one socket is of no use.
type tryError struct {
	path string
	err  error
}

func (e *tryError) Error() string {
	var errno syscall.Errno
	if errors.As(e.err, &errno) {
		return e.path + ": " + errno.Error()
	}
	return e.path + ": " + e.err.Error()
}

func (e *tryError) Unwrap() error { return e.err }
