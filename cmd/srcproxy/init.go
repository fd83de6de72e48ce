package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/srcproxy/srcproxy/internal/explain"
	"github.com/srcproxy/srcproxy/internal/host"
)

func (a *app) initCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "write a first configuration, from the addresses of this host",
		Long: `init writes a configuration with the addresses that it finds here, where no file is
yet. With it flows leave as they do without srcproxy: from the addresses that the
kernel chooses now. The other addresses, a rule and what else is often needed stand
there, off.`,
		Example: "  srcproxy init -c config.toml",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return a.init() },
	}
}

func (a *app) init() error {
	path := a.configPath()
	if path == "" {
		path = configFile
	}
	initial, err := initialConfig()
	if err != nil {
		return err
	}
	if err := create(path, initial.Text); err != nil {
		return fmt.Errorf("%w (another place: srcproxy init -c FILE)", err)
	}
	if a.json {
		return a.printJSON(struct {
			Path string `json:"path"`
			explain.Initial
		}{path, initial})
	}
	return a.print(fmt.Sprintf("%s: written; flows leave from %q%s\nnow run:\n  srcproxy check -c %s\n  srcproxy serve -c %s\n",
		path, initial.Default, others(len(initial.Sources)), path, path))
}

// others tells how many sources the file names whose lines are off.
func others(n int) string {
	switch n {
	case 0:
		return ""
	case 1:
		return ", and 1 other source is off"
	}
	return fmt.Sprintf(", and %d other sources are off", n)
}

// initialConfig reads this host.
func initialConfig() (explain.Initial, error) {
	snapshot, err := host.Read()
	if err != nil {
		return explain.Initial{}, fmt.Errorf("read the addresses of this host: %w", err)
	}
	facts, err := host.ReadFacts()
	if err != nil {
		facts = host.Facts{} // only a hint about name servers is left out
	}
	var preferred []netip.Addr
	for _, far := range []string{"203.0.113.1", "2001:db8::1"} { // anybody out there
		if c, err := host.KernelChoice(host.RouteQuery{Dst: netip.MustParseAddr(far)}); err == nil {
			preferred = append(preferred, c.Addr)
		}
	}
	return explain.InitialConfig(snapshot, facts, preferred), nil
}

// create writes a file that was not there, or nothing.
func create(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already, and stays as it is", path)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
