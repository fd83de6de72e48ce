package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/srcproxy/srcproxy/internal/admin"
)

func (a *app) rulesCommand() *cobra.Command {
	var reset bool
	cmd := asking(a, &cobra.Command{
		Use:   "rules",
		Short: "list the rules of the running service, and how often each decided",
		Long: `rules lists the rules in their order, and after them the default and the forwards
that have a use of their own. Each flow is a hit of the rule that decided it, also
when it then failed; a reload keeps the counts of the rules that are still there. What
the rules decide for attached programs (srcproxy attach) is counted by calls, beside it.`,
		Example: "  srcproxy rules\n  srcproxy rules --reset",
	}, func(c *admin.Client, ctx context.Context) (*admin.Rules, error) {
		if reset {
			return c.ResetRules(ctx)
		}
		return c.Rules(ctx)
	})
	cmd.Flags().BoolVar(&reset, "reset", false, "set all counts to zero")
	return cmd
}
