package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/srcproxy/srcproxy/dialer"
	"github.com/srcproxy/srcproxy/internal/admin"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/explain"
)

// question is the command line of explain.
type question struct {
	udp, dial               bool
	client                  netip.Addr
	user, session, listener string
	attach                  string
	localPort               uint16
}

func (a *app) explainCommand() *cobra.Command {
	var q question
	cmd := &cobra.Command{
		Use:   "explain DEST[:PORT]",
		Short: "say which rule decides about a destination, and from where flows to it leave",
		Long: `explain walks through the rules as the service does, with what the flags tell of the
flow, and prints why each rule matches or does not. For each address of the destination
it prints the source, the link, gateway and routing table by which packets from there
leave, and what the kernel alone would take, and why. It warns where packets leave by
another link than the one that has their source, and prints the commands that cure it.

It asks the running service when that serves this very file. It sends nothing but
queries for the name, unless --dial is given. It ends with 1 when no address may be
dialled, or packets to all of them are lost. At a forward, DEST can be left out.`,
		Example: "  srcproxy explain smtp.mail.example:25 --client 10.0.8.4",
		Args:    cobra.ArbitraryArgs,
		RunE:    func(cmd *cobra.Command, args []string) error { return a.explain(cmd, &q, args) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&q.udp, "udp", false, "a UDP flow instead of a TCP connection")
	flags.TextVar(&q.client, "client", netip.Addr{}, "the client's address `IP`")
	flags.StringVar(&q.user, "user", "", "the user `NAME` given at the login")
	flags.StringVar(&q.session, "session", "", "the session `NAME` that follows the user's at the login")
	flags.StringVar(&q.listener, "listener", "", "the listener `NAME` that is asked")
	flags.StringVar(&q.attach, "attach", "", "a program of this `SERVICE` or control group of an [[attach]], which knows no proxy")
	flags.Uint16Var(&q.localPort, "local-port", 0, "the `PORT` that the program itself sends from")
	flags.BoolVar(&q.dial, "dial", false, "connect to each address that may be dialled")
	return cmd
}

func (a *app) explain(cmd *cobra.Command, q *question, args []string) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	l, err := q.at(cfg)
	if err != nil {
		return err
	}
	f, err := q.flow(l, args)
	if err != nil {
		return err
	}
	answer, err := a.answerFor(cmd.Context(), cfg, l, q, f)
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(answer)
	} else {
		err = a.print(answer.Text(a.style()))
	}
	if err == nil && !answer.Reachable() {
		return errFound
	}
	return err
}

// answerFor answers for a listener, or for an [[attach]].
func (a *app) answerFor(ctx context.Context, cfg *config.Config, l *config.Listener, q *question, f dialer.Flow) (*explain.Answer, error) {
	asked := explain.Question{Flow: f, Dial: q.dial}
	if q.attach == "" {
		return a.answer(ctx, cfg, l, asked)
	}
	if l != nil || q.dial {
		return nil, usagef("--attach is of programs that ask no listener, and whose flows explain cannot open")
	}
	var names []string
	for i := range cfg.Attach {
		if cfg.Attach[i].Name() != q.attach {
			names = append(names, strconv.Quote(cfg.Attach[i].Name()))
			continue
		}
		e, err := attachExplainer(ctx, cfg, &cfg.Attach[i])
		if err != nil {
			return nil, err
		}
		return e.Explain(ctx, asked), nil
	}
	if names == nil {
		return nil, usagef("the configuration has no [[attach]]")
	}
	return nil, usagef("there is no [[attach]] of %q; there are %s", q.attach, strings.Join(names, ", "))
}

// answer is that of the running service when it serves this very file, else what can be
// said without it.
func (a *app) answer(ctx context.Context, cfg *config.Config, l *config.Listener, q explain.Question) (*explain.Answer, error) {
	answer, why := a.askService(ctx, cfg, q)
	if answer != nil {
		return answer, nil
	}
	e, err := explainer(cfg, l)
	if err != nil {
		return nil, err
	}
	answer = e.Explain(ctx, q)
	answer.Offline = why
	return answer, nil
}

// askService returns the answer of the service, or why it has none.
func (a *app) askService(ctx context.Context, cfg *config.Config, q explain.Question) (*explain.Answer, string) {
	const none = "no running service serves this file"
	c, err := a.client()
	if err != nil || cfg.Path == "" {
		return nil, none
	}
	if c.Config, err = filepath.Abs(cfg.Path); err != nil {
		return nil, none
	}
	c.Sum = cfg.Sum()
	mine := admin.Question(q)
	answer, err := c.Explain(ctx, &mine)
	switch {
	case err == nil:
		return answer, ""
	case errors.As(err, new(*admin.NoServiceError)):
		return nil, none
	}
	return nil, err.Error()
}

// at returns the listener that is asked, or nil.
func (q *question) at(cfg *config.Config) (*config.Listener, error) {
	if q.listener == "" {
		return nil, nil
	}
	var names []string
	for i := range cfg.Listen {
		if cfg.Listen[i].Name == q.listener {
			return &cfg.Listen[i], nil
		}
		names = append(names, strconv.Quote(cfg.Listen[i].Name))
	}
	return nil, usagef("there is no listener %q; there are %s", q.listener, strings.Join(names, ", "))
}

// flow returns what is asked about.
func (q *question) flow(l *config.Listener, args []string) (dialer.Flow, error) {
	f := dialer.Flow{
		Network:   "tcp",
		Client:    netip.AddrPortFrom(q.client.Unmap(), 0),
		User:      q.user,
		Session:   q.session,
		Listener:  q.listener,
		LocalPort: q.localPort,
	}
	if q.udp || l != nil && l.Kind == config.UDP {
		f.Network = "udp"
	}
	var err error
	switch {
	case len(args) > 1:
		return f, usagef("one destination, please; got %d", len(args))
	case len(args) == 1:
		f.Name, f.Dst, err = destination(args[0])
	case l != nil && l.Kind.IsForward():
		f.Name, f.Dst = l.To.Name, netip.AddrPortFrom(l.To.Addr, l.To.Port)
	default:
		return f, usagef("which destination?")
	}
	if err == nil && q.dial && f.Dst.Port() == 0 {
		err = usagef("--dial needs a port: %s", net.JoinHostPort(strings.Trim(args[0], "[]"), "443"))
	}
	return f, err
}

// destination reads a host with or without a port. The address is not valid when the
// host is a name.
func destination(s string) (string, netip.AddrPort, error) {
	noDestination := usagef("%q is no destination; write a name or an address, with a port: example.com:443", s)
	if strings.Contains(s, "://") {
		return "", netip.AddrPort{}, noDestination
	}
	host, port := s, uint16(0)
	if h, p, err := net.SplitHostPort(s); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return "", netip.AddrPort{}, usagef("%q: the port is a number from 1 to 65535", s)
		}
		host, port = h, uint16(n)
	} else if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		host = s[1 : len(s)-1]
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return "", netip.AddrPortFrom(a, port), nil
	}
	if host == "" || strings.ContainsAny(host, " /:[]@") {
		return "", netip.AddrPort{}, noDestination
	}
	return host, netip.AddrPortFrom(netip.Addr{}, port), nil
}
