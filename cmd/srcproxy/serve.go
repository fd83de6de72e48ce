package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/srcproxy/srcproxy/internal/admin"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/server"
)

// errCut ends serve while it drains.
var errCut = errors.New("a second signal: the flows that were left are cut")

func (a *app) serveCommand() *cobra.Command {
	var o oneLine
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "run the proxy",
		Long: `serve runs the listeners of the configuration, and needs no root for it. Without a
file it is a SOCKS and HTTP CONNECT proxy on 127.0.0.1:1080. The flags below make a
configuration of their own, instead of a file.

SIGHUP reads the configuration again; one with errors changes nothing. SIGTERM and
SIGINT stop the listeners and wait for the flows that live (timeouts.drain); a second
one ends them.`,
		Example: `  srcproxy serve -c config.toml
  srcproxy serve --source 198.51.100.10 --listen 127.0.0.1:1080`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd, &o) },
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&o.sources, "source", nil, "flows leave from this `ADDRESS`, prefix or range; twice for both families, more of one take turns")
	flags.StringArrayVar(&o.listen, "listen", nil, "listen on this `ADDRESS:PORT` (127.0.0.1:1080)")
	flags.StringVar(&o.users, "users", "", "ask for a login out of this `FILE`; srcproxy passwd makes its lines")
	flags.StringArrayVar(&o.allow, "allow", nil, "let clients from this `PREFIX` in only; may be given again")
	flags.BoolVar(&o.open, "open", false, "let everybody in who can reach it")
	if err := cmd.RegisterFlagCompletionFunc("users", cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault)); err != nil {
		panic(err) // the flag stands a few lines above
	}
	return cmd
}

func (a *app) serve(cmd *cobra.Command, o *oneLine) error {
	load := a.load
	if o.given() {
		if a.file != "" {
			return usagef("-c FILE and flags that take its place: write --source and the like into the file")
		}
		if err := o.check(); err != nil {
			return err
		}
		load = o.load
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	return untilSignal(cmd.Context(), a, server.Options{
		Load:     load,
		Reload:   reload,
		Stderr:   a.stderr,
		Terminal: terminal(a.stderr) && !a.json,
		Sockets:  admin.Paths(a.getenv),
		Version:  versionName(),
		Ready:    a.ready,
	})
}

// untilSignal runs the server until SIGTERM or SIGINT and its drain are over. With a
// second signal it does not wait for the drain.
func untilSignal(ctx context.Context, a *app, o server.Options) error {
	ctx, drain := context.WithCancel(ctx)
	defer drain()
	end := make(chan os.Signal, 2)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(end)
	unread := make(chan os.Signal, 1)
	signal.Notify(unread, syscall.SIGPIPE) // or a log that nobody reads any more would end the program
	defer signal.Stop(unread)
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, o) }()
	for {
		select {
		case err := <-done:
			return err
		case s := <-end:
			if ctx.Err() != nil {
				return errCut
			}
			if terminal(a.stderr) {
				fmt.Fprintf(a.stderr, "%v: waiting for the flows that live; once more ends them\n", s)
			}
			drain()
		}
	}
}

// ready prints the banner.
func (a *app) ready(cfg *config.Config, addrs []net.Addr) {
	b := newBanner(cfg, addrs)
	var err error
	if a.json {
		err = a.printJSON(b)
	} else {
		err = a.print(b.text())
	}
	if err != nil {
		fmt.Fprintf(a.stderr, "srcproxy: the banner could not be printed: %v\n", err)
	}
}
