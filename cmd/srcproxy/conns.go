package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/srcproxy/srcproxy/internal/admin"
)

func (a *app) connsCommand() *cobra.Command {
	cmd := asking(a, &cobra.Command{
		Use:   "conns",
		Short: "list the live flows of the running service, or end one",
		Long: `conns lists the flows that are live, the oldest first. IN is what came from the
destination, OUT what was sent to it. --close ends a flow on both sides.`,
		Example: "  srcproxy conns\n  srcproxy conns --close 17",
	}, (*admin.Client).Conns)
	var id string
	cmd.Flags().StringVar(&id, "close", "", "end the flow with this `ID`")
	list := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("close") {
			return list(cmd, args)
		}
		n, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			return usagef("--close: %q is no number; srcproxy conns prints them", id)
		}
		return a.closeConn(cmd, n)
	}
	return cmd
}

func (a *app) closeConn(cmd *cobra.Command, id uint64) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	conn, err := c.CloseConn(cmd.Context(), id)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(conn)
	}
	return a.print(conn.Closed())
}
