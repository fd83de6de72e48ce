package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/server"
)

// runOptions is the command line of run.
type runOptions struct {
	use   []string
	user  string
	proxy bool
	names bool
	log   bool
}

const runName = "run"

const useUsage = "leave from this `SOURCE`, whatever the rules say: a name in the file, or an address; twice for both families"

func (a *app) runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   runName + " [flags] -- CMD [ARGUMENT]...",
		Short: "run a command whose traffic goes by the rules",
		Long: `run starts a command and sees to it that its traffic, and that of all it starts,
leaves from where the rules say. Under sudo the command runs as the user who called
it. run ends with the exit code of the command, with 128 and its number when a signal
ended it, and for its own faults with 125, with 126 when the command cannot be
executed and 127 when there is none.

The kernel itself does it, without a hop, for programs that know nothing of srcproxy.
That needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, which the command is not given, and
the right to make a cgroup. What the hooks do not see, docs/KERNEL.md lists: they see
addresses, so that rules by name match only with --names, and patterns not even then.

With --log it writes a line to standard error for each decision: which program called,
what it wanted to reach, and from where it leaves by which rule, or why it was refused.

With --proxy it needs no privilege: the command is told a proxy, which runs as long
as the command does, by ALL_PROXY, HTTP_PROXY and HTTPS_PROXY. That is for programs
that heed them.`,
		Example: "  sudo srcproxy run --use 198.51.100.30 -- curl https://example.com/\n  srcproxy run --proxy -- curl https://example.com/",
		Args:    cobra.ArbitraryArgs,
		RunE:    func(cmd *cobra.Command, args []string) error { return a.run(cmd.Context(), &o, args) },

		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows the command is the command's
	flags.StringArrayVar(&o.use, "use", nil, useUsage)
	flags.StringVar(&o.user, "user", "", "run the command as this `USER`")
	flags.BoolVar(&o.names, "names", false, "let the names in rules stand for their addresses, which run asks for as long as it runs")
	flags.BoolVar(&o.log, "log", false, "write a line for each decision of the kernel plane")
	flags.BoolVar(&o.proxy, "proxy", false, "tell the command a proxy; needs no privilege")
	return cmd
}

// run runs CMD. What goes wrong before it starts has the exit code 125.
func (a *app) run(ctx context.Context, o *runOptions, args []string) error {
	switch {
	case len(args) == 0:
		return usagef("which command?")
	case o.names && o.proxy:
		return usagef("--names is for rules in the kernel; a proxy is told names")
	case o.names && len(o.use) > 0:
		return usagef("--names does nothing beside --use: no rule is asked")
	case o.log && o.proxy:
		return usagef("--log tells what the kernel decides; with --proxy it decides nothing: leave one of them out")
	}
	code, err := a.runAs(ctx, o, args)
	switch {
	case errors.As(err, new(codeError)), errors.As(err, new(usageError)):
		return err
	case err != nil:
		return codeError{exitRun, err}
	case code != exitFine:
		return codeError{code: code}
	}
	return nil
}

func (a *app) runAs(ctx context.Context, o *runOptions, args []string) (int, error) {
	cfg, err := a.configFor(o.use)
	if err != nil {
		return 0, err
	}
	who, err := a.accountFor(o.user, os.Geteuid())
	if err != nil {
		return 0, err
	}
	c := &child{cmd: a.command(args, who), account: who}
	if o.proxy {
		return a.runProxied(ctx, cfg, c)
	}
	return a.runRuled(ctx, cfg, o, c)
}

// command returns CMD with our standard streams, and the environment of who runs it.
func (a *app) command(args []string, who *account) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stdout, a.stderr
	cmd.Env = os.Environ()
	if who != nil {
		cmd.Env = append(cmd.Env, who.environ()...)
	}
	return cmd
}

// configFor returns the configuration, with all flows from what --use names where it is
// given. Addresses need no file.
func (a *app) configFor(use []string) (*config.Config, error) {
	if len(use) == 0 {
		return a.load()
	}
	if !slices.ContainsFunc(use, isName) {
		o := oneLine{sources: use}
		if err := o.check(); err != nil {
			return nil, usagef("--use: %s", strings.TrimPrefix(err.Error(), "--source: "))
		}
		return o.load()
	}
	if len(use) > 1 {
		return nil, usagef("--use is one name, or several addresses; got %s", strings.Join(use, " and "))
	}
	cfg, err := a.load()
	if err != nil {
		return nil, err
	}
	only := *cfg
	only.Rules = nil
	if only.Default, err = cfg.Use(use[0]); err != nil {
		return nil, usagef("--use: %w", err)
	}
	return &only, nil
}

// isName reports whether a source is given by its name in the configuration.
func isName(use string) bool { return !strings.ContainsAny(use, ".:") }

// runRuled runs CMD in a cgroup whose programs go by the rules.
func (a *app) runRuled(ctx context.Context, cfg *config.Config, o *runOptions, c *child) (int, error) {
	log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var decisions io.Writer
	if o.log {
		decisions = a.stderr
	}
	w, err := server.NewWard(ctx, cfg, o.names, log, decisions)
	if err != nil {
		return 0, err
	}
	c.group = w.FD()
	code, err := c.run()
	return code, errors.Join(err, w.Close())
}

// endDrain bounds how long what CMD sent last may take to arrive.
const endDrain = time.Second

// runProxied runs CMD beside a proxy, and tells it so.
func (a *app) runProxied(ctx context.Context, cfg *config.Config, c *child) (int, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ready := make(chan netip.AddrPort, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, server.Options{
			Load:     func() (*config.Config, error) { return proxyOnly(cfg), nil },
			Stderr:   a.stderr,
			Terminal: terminal(a.stderr),
			Ready: func(_ *config.Config, addrs []net.Addr) {
				ready <- netip.MustParseAddrPort(addrs[0].String())
			},
		})
	}()
	select {
	case err := <-ended:
		return 0, err
	case at := <-ready:
		c.cmd.Env = append(c.cmd.Env, proxyVariables(at)...)
	}
	code, err := c.run()
	stop()
	return code, errors.Join(err, <-ended)
}

// proxyOnly returns cfg with one listener, which the programs of this host reach.
func proxyOnly(cfg *config.Config) *config.Config {
	c := *cfg
	l := config.Default().Listen[0]
	l.Name = "run"
	l.Addrs = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)}
	c.Listen, c.Attach = []config.Listener{l}, nil
	c.Admin = config.Admin{} // that socket is the service's
	c.Timeouts.Drain = min(c.Timeouts.Drain, endDrain)
	c.Log.Level, c.Log.Flows = slog.LevelWarn, false // the command has the terminal
	return &c
}

// proxyVariables returns the variables by which programs know a proxy, in both of their
// spellings. For http:// it is SOCKS, too: as an HTTP proxy srcproxy knows CONNECT
// alone, which programs use for https://.
func proxyVariables(at netip.AddrPort) []string {
	var env []string
	for name, value := range map[string]string{
		"all_proxy":   "socks5h://" + at.String(),
		"http_proxy":  "socks5h://" + at.String(),
		"https_proxy": "http://" + at.String(),
		"no_proxy":    "localhost,127.0.0.1,::1",
	} {
		env = append(env, name+"="+value, strings.ToUpper(name)+"="+value)
	}
	slices.Sort(env)
	return env
}
