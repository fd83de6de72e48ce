package main

import (
	"github.com/spf13/cobra"

	"github.com/srcproxy/srcproxy/internal/admin"
)

func (a *app) statusCommand() *cobra.Command {
	return asking(a, &cobra.Command{
		Use:   "status",
		Short: "say how the running service is",
		Long: `status asks the running service for its listeners, reloads and limits. The lines
that begin with # Health say what is wrong; where something is, it ends with 1.`,
		Example: "  srcproxy status",
	}, (*admin.Client).Status)
}

func (a *app) sourcesCommand() *cobra.Command {
	return asking(a, &cobra.Command{
		Use:   "sources",
		Short: "list the sources of the running service, and what leaves from them",
		Long: `sources asks the running service which sources are up, and how many flows leave from
each. Rates are those of the last minute; IN is what comes from the destinations. The
lines that begin with # Health say what is wrong; where something is, it ends with 1.`,
		Example: "  srcproxy sources",
	}, (*admin.Client).Sources)
}
