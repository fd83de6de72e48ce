package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/host"
	"github.com/srcproxy/srcproxy/internal/inbound"
)

func (a *app) checkCommand() *cobra.Command {
	var strict bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "say what is wrong with the configuration, and what to do",
		Long: `check reads the configuration as serve does, opens and sends nothing, and prints
errors and warnings with their cures. Errors end it with 1, warnings only with
--strict.`,
		Example: "  srcproxy check -c config.toml",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return a.check(strict) },
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "end with 1 for warnings, too")
	return cmd
}

func (a *app) check(strict bool) error {
	report, err := a.report()
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(report)
	} else {
		err = a.print(report.Text(a.style()))
	}
	if err == nil && report.Failed(strict) {
		return errFound
	}
	return err
}

// report is what can be said of the configuration; an error is about this host.
func (a *app) report() (*explain.Report, error) {
	cfg, err := a.load()
	if err != nil {
		return &explain.Report{Path: a.configPath(), Findings: explain.FromError(err)}, nil
	}
	snapshot, err := host.Read()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of this host: %w", err)
	}
	facts, err := host.ReadFacts()
	if err != nil {
		fmt.Fprintf(a.stderr, "srcproxy: some checks are left out: %v\n", err)
	}
	report := explain.Check(cfg, snapshot, facts)
	report.Findings = append(userErrors(cfg), report.Findings...)
	report.Findings = append(report.Findings, attachFindings(cfg)...)
	return report, nil
}

// userErrors returns what is wrong with the users files.
func userErrors(cfg *config.Config) []explain.Finding {
	found := []explain.Finding{} // [] in JSON, also when it stays empty
	seen := make(map[string]bool)
	for i := range cfg.Listen {
		l := &cfg.Listen[i]
		if l.UsersFile == "" || seen[l.UsersFile] {
			continue
		}
		seen[l.UsersFile] = true
		_, err := inbound.ParseUsers(l.Users)
		if line := (*inbound.LineError)(nil); errors.As(err, &line) {
			position := fmt.Sprintf("%s:%d", l.UsersFile, line.Line)
			found = append(found, explain.Finding{Severity: explain.Error, Position: position, Text: line.Text})
		} else if err != nil {
			found = append(found, explain.Finding{Severity: explain.Error, Position: l.UsersFile, Text: err.Error()})
		}
	}
	return found
}
