package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/srcproxy/srcproxy/internal/admin"
	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/explain"
)

// texter is an answer of the service that prints itself.
type texter interface {
	Text(explain.Style) string
}

// asking makes a command that prints what the service answers. Where what it tells is
// not fine, the command ends with 1.
func asking[T texter](a *app, cmd *cobra.Command, ask func(*admin.Client, context.Context) (T, error)) *cobra.Command {
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		v, err := ask(c, cmd.Context())
		if err != nil {
			return err
		}
		if err := a.show(v); err != nil {
			return err
		}
		if h, ok := any(v).(interface{ Fine() bool }); ok && !h.Fine() {
			return errFound
		}
		return nil
	}
	return cmd
}

// show prints an answer as text or JSON.
func (a *app) show(v texter) error {
	if a.json {
		return a.printJSON(v)
	}
	return a.print(v.Text(a.style()))
}

// client returns what asks the running service. The socket is that of the configuration,
// else one of the usual places. A service that serves another file than -c says is not
// meant.
func (a *app) client() (*admin.Client, error) {
	c := &admin.Client{Paths: admin.Paths(a.getenv)}
	path := a.configPath()
	if path == "" {
		return c, nil
	}
	socket, err := config.Socket(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && a.file != "":
		return nil, err
	case err != nil:
		c.Doubt = err // a service may be asked about the very mistake
	case socket != "":
		c.Paths = []string{socket}
	}
	if a.file == "" {
		return c, nil
	}
	if c.Config, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return c, nil
}
