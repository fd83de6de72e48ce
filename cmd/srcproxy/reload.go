package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/srcproxy/srcproxy/internal/admin"
)

func (a *app) reloadCommand() *cobra.Command {
	var diff bool
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "make the running service take its configuration anew",
		Long: `reload makes the running service read its configuration again, as SIGHUP does, and
waits for the outcome. A configuration that cannot be used changes nothing; its errors
are printed, and reload ends with 1.`,
		Example: "  srcproxy reload --diff",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.reload(cmd, diff) },
	}
	cmd.Flags().BoolVar(&diff, "diff", false, "list what is not as before")
	return cmd
}

func (a *app) reload(cmd *cobra.Command, diff bool) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	done, err := c.Reload(cmd.Context())
	if e := (*admin.APIError)(nil); errors.As(err, &e) && e.Refused() {
		return fmt.Errorf("the reload failed, and nothing has changed:\n%w", e)
	}
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(done)
	}
	return a.print(done.Text(a.style(), diff))
}
