package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/explain"
)

// fixedFile remembers what --fix did. Routes, rules and settings end with the boot, and so
// does /run. It is not in the directory of the service, which systemd removes when that
// stops.
const fixedFile = "/run/srcproxy-doctor.json"

// errNoRoot is what only root can do anything about.
var errNoRoot = errors.New("only root can change the network of this host")

// fix cures what d found, as far as the user agrees, and returns what is left. A cure can
// bring to light what the next one is for: an address that is here now may have no way.
func (a *app) fix(ctx context.Context, cfg *config.Config, d *explain.Diagnosis, yes bool) (*explain.Diagnosis, error) {
	answers := bufio.NewReader(a.stdin)
	asked := make(map[string]bool)
	for {
		done := false
		for _, t := range d.Tests {
			cure := slices.DeleteFunc(slices.Clone(t.Cure), func(c explain.Command) bool { return c.Undo == "" })
			if len(cure) == 0 || asked[cure[0].Run] {
				continue
			}
			asked[cure[0].Run] = true
			ran, err := a.cure(t, cure, answers, yes)
			if err != nil {
				return nil, err
			}
			done = done || ran
		}
		if !done {
			return d, nil
		}
		var err error
		if d, err = a.examine(ctx, cfg); err != nil {
			return nil, err
		}
	}
}

// cure runs the commands of one cure, unless the user says no or is not root.
func (a *app) cure(t explain.Test, cure []explain.Command, answers *bufio.Reader, yes bool) (ran bool, err error) {
	fmt.Fprintf(a.stderr, "%s: %s\n", t.Subject, t.Text)
	root := os.Geteuid() == 0
	if !root {
		fmt.Fprintln(a.stderr, "  as root this would be run:")
	}
	for _, c := range cure {
		fmt.Fprintf(a.stderr, "    %s\n", c.Run)
	}
	if !root || !yes && !a.agreed(answers) {
		return false, nil
	}
	for _, c := range cure {
		if err := shell(c.Run); err != nil {
			return false, err // what was run before it is remembered
		}
		if err := remember(c); err != nil {
			return false, errors.Join(err, shell(c.Undo))
		}
	}
	return true, nil
}

// agreed asks whether to go on.
func (a *app) agreed(answers *bufio.Reader) bool {
	fmt.Fprint(a.stderr, "  run it? [y/N] ")
	line, err := answers.ReadString('\n')
	if err != nil {
		fmt.Fprintln(a.stderr)
	}
	return slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(line)))
}

// shell runs a command as somebody who copied it.
func shell(command string) error {
	out, err := exec.Command("/bin/sh", "-c", command).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// recall returns what --fix did, in order.
func recall() ([]explain.Command, error) {
	text, err := os.ReadFile(fixedFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []explain.Command
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", fixedFile, err)
	}
	return list, nil
}

// remember adds what was just done.
func remember(c explain.Command) error {
	list, err := recall()
	if err != nil {
		return err
	}
	return store(append(list, c))
}

// store writes list, whole or not at all.
func store(list []explain.Command) error {
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	fresh := fixedFile + ".new"
	if err := os.WriteFile(fresh, append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(fresh, fixedFile)
}

// undo takes back what --fix did, the last first. What cannot be taken back, as a route of
// a link that is gone, is told and forgotten.
func (a *app) undo() error {
	list, err := recall()
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return a.print("doctor --fix has changed nothing since the boot\n")
	}
	if os.Geteuid() != 0 {
		return errNoRoot
	}
	var failed []error
	for len(list) > 0 {
		c := list[len(list)-1]
		list = list[:len(list)-1]
		if err := shell(c.Undo); err != nil {
			failed = append(failed, err)
		} else if err := a.print(c.Undo + "\n"); err != nil {
			failed = append(failed, err)
		}
		if err := store(list); err != nil {
			return errors.Join(append(failed, err)...)
		}
	}
	return errors.Join(append(failed, os.Remove(fixedFile))...)
}
