package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/srcproxy/srcproxy/internal/config"
	"github.com/srcproxy/srcproxy/internal/explain"
)

// The exit codes.
const (
	exitFine  = 0
	exitFound = 1 // something was found, or failed
	exitUsage = 2
)

// env is what the program knows of its surroundings.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
}

// app is one run of the program.
type app struct {
	env
	file  string // -c
	json  bool
	began bool // the command line was understood
}

// usageError is a command line that cannot be meant.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errFound ends a command with 1 after it has said itself what it found.
var errFound = errors.New("something was found")

// run runs a command line and returns the exit code.
func run(ctx context.Context, e env, args []string) int {
	a := &app{env: e}
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitFine
	}
	if own := (codeError{}); errors.As(err, &own) {
		if own.err != nil {
			a.say(own)
		}
		return own.code
	}
	if usage := (usageError{}); errors.As(err, &usage) || !a.began {
		a.sayUsage(cmd, err)
		if cmd.Name() == runName {
			return exitRun // 2 may be the command's own
		}
		return exitUsage
	}
	if !errors.Is(err, errFound) {
		a.say(err)
	}
	return exitFound
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "srcproxy",
		Short: "decides by rules from which of this host's addresses traffic leaves",
		Long: `srcproxy decides by rules from which of this host's addresses traffic leaves.

Programs reach it as a SOCKS or HTTP CONNECT proxy, or through TCP and UDP forwards;
those that know no proxy go by the same rules in the kernel (run, attach).
The configuration is -c FILE, else $` + configVariable + `, else ` + configFile + ` if it exists.
The exit code is 0 when all is fine, 1 when something was found or failed, 2 for a
command line that is not understood.`,
		Example:          "  srcproxy serve\n  srcproxy check -c config.toml",
		Args:             unknownCommand,
		RunE:             func(*cobra.Command, []string) error { return usagef("which command?") },
		PersistentPreRun: func(*cobra.Command, []string) { a.began = true },
		SilenceErrors:    true,
		SilenceUsage:     true,

		SuggestionsMinimumDistance: 2,
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	flags := root.PersistentFlags()
	flags.StringVarP(&a.file, "config", "c", "", "configuration `FILE`")
	flags.BoolVar(&a.json, "json", false, "print JSON")
	if err := root.MarkPersistentFlagFilename("config", "toml"); err != nil {
		panic(err) // the flag stands one line above
	}
	root.AddCommand(a.serveCommand(), a.checkCommand(), a.doctorCommand(), a.explainCommand(), a.planCommand(), a.passwdCommand(), a.initCommand(), a.runCommand(), a.versionCommand(),
		a.attachCommand(), a.detachCommand(), a.reloadCommand(), a.statusCommand(), a.sourcesCommand(), a.connsCommand(), a.rulesCommand())
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp) // few arguments are files
	ownWords(root)
	return root
}

// ownWords makes the commands that cobra adds speak as ours do. Completion for a shell
// that it does not know is a mistake there, too.
func ownWords(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Short = "explain a command"
		case "completion":
			cmd.Short = "print the script that completes command lines in a shell"
			cmd.Args = nil
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return usagef("which shell? There are %s", names(cmd)) }
		}
	}
}

// names lists the commands below cmd.
func names(cmd *cobra.Command) string {
	var words []string
	for _, c := range cmd.Commands() {
		words = append(words, c.Name())
	}
	return strings.Join(words, ", ")
}

// unknownCommand is called with what is no command.
func unknownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if near := root.SuggestionsFor(args[0]); len(near) > 0 {
		return usagef("there is no command %q; did you mean %s?", args[0], strings.Join(near, " or "))
	}
	return usagef("there is no command %q; there are %s", args[0], names(root))
}

// sayUsage prints what is wrong with a command line, and how one looks.
func (a *app) sayUsage(cmd *cobra.Command, err error) {
	fmt.Fprintf(a.stderr, "%s: %v\n", cmd.CommandPath(), err)
	if cmd.Example != "" {
		fmt.Fprintf(a.stderr, "For example:\n%s\n", cmd.Example)
	}
	fmt.Fprintf(a.stderr, "Run '%s --help' for all of it.\n", cmd.CommandPath())
}

// say prints an error. What is wrong with the configuration begins with its place, as
// editors want it.
func (a *app) say(err error) {
	prefix := "srcproxy: "
	if e := (*config.Error)(nil); errors.As(err, &e) {
		prefix = ""
	}
	fmt.Fprintf(a.stderr, "%s%v\n", prefix, err)
}

// terminal reports whether w is a terminal.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// style says how text on the standard output looks (https://no-color.org).
func (a *app) style() explain.Style {
	return explain.Style{Color: terminal(a.stdout) && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"}
}

// printJSON prints v as one indented JSON value.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// print prints text.
func (a *app) print(text string) error {
	_, err := io.WriteString(a.stdout, text)
	return err
}
