package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/srcproxy/srcproxy/internal/config"
)

// oneLine is a configuration given by flags.
type oneLine struct {
	sources, listen, allow []string
	users                  string
	open                   bool
}

// given reports whether one of the flags is set.
func (o *oneLine) given() bool {
	return len(o.sources)+len(o.listen)+len(o.allow) > 0 || o.users != "" || o.open
}

// check returns what is wrong with the flags, in words that name them.
func (o *oneLine) check() error {
	for _, l := range o.listen {
		if public(l) && o.users == "" && len(o.allow) == 0 && !o.open {
			return usagef("--listen %s lets everybody use the proxy who can reach it: add --users FILE, --allow PREFIX or --open", l)
		}
	}
	_, err := o.load()
	e := (*config.Error)(nil)
	if !errors.As(err, &e) {
		return err
	}
	// Its place is in a text that nobody has seen.
	err = errors.New(strings.TrimSuffix(flagFor(e.Message)+"; "+e.Hint, "; "))
	if e.Err != nil {
		return err // a file that cannot be read, and not a command line that cannot be meant
	}
	return usageError{err}
}

// flagFor puts the flag in the place of the key with which a message begins.
func flagFor(message string) string {
	key, rest, _ := strings.Cut(message, ": ")
	flags := map[string]string{"ip": "--source", "mixed": "--listen", "users": "--users", "allow": "--allow"}
	if flag, ok := flags[key]; ok {
		return flag + ": " + rest
	}
	return message
}

// public reports whether a listening address is reached from other hosts. What is no
// address is told by load.
func public(listen string) bool {
	if strings.HasPrefix(listen, ":") {
		return true
	}
	a, err := netip.ParseAddrPort(listen)
	return err == nil && !a.Addr().Unmap().IsLoopback()
}

func (o *oneLine) load() (*config.Config, error) {
	text, err := o.toml()
	if err != nil {
		return nil, err
	}
	return config.Parse(config.CommandLine, []byte(text))
}

// toml writes the flags as a configuration file.
func (o *oneLine) toml() (string, error) {
	var b strings.Builder
	otherwise, tables := o.otherwise()
	fmt.Fprintf(&b, "default = %s\n%s[[listen]]\n", quote(otherwise), tables)
	listen := o.listen
	if len(listen) == 0 {
		listen = []string{"127.0.0.1:1080"}
	}
	fmt.Fprintf(&b, "mixed = %s\n", list(listen))
	if len(o.allow) > 0 {
		fmt.Fprintf(&b, "allow = %s\n", list(o.allow))
	}
	if o.users != "" {
		path, err := filepath.Abs(o.users) // a configuration's paths are relative to its file
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "users = %s\n", quote(path))
	}
	if o.open {
		b.WriteString("open = true\n")
	}
	return b.String(), nil
}

// otherwise returns the default, and the tables that define it. One source is itself,
// one of each family are one source, and others take turns.
func (o *oneLine) otherwise() (name, tables string) {
	switch len(o.sources) {
	case 0:
		return "kernel", ""
	case 1:
		return "source", fmt.Sprintf("[sources]\nsource = { ip = %s }\n", quote(o.sources[0]))
	case 2:
		a, err1 := netip.ParseAddr(o.sources[0])
		b, err2 := netip.ParseAddr(o.sources[1])
		if err1 == nil && err2 == nil && a.Unmap().Is4() != b.Unmap().Is4() {
			return "source", fmt.Sprintf("[sources]\nsource = { ip = %s }\n", list(o.sources))
		}
	}
	var t strings.Builder
	var names []string
	t.WriteString("[sources]\n")
	for i, s := range o.sources {
		names = append(names, fmt.Sprintf("source-%d", i+1))
		fmt.Fprintf(&t, "%s = { ip = %s }\n", names[i], quote(s))
	}
	fmt.Fprintf(&t, "[pools]\nsources = { of = %s, pick = \"round-robin\" }\n", list(names))
	return "sources", t.String()
}

func list(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// quote writes s as a basic string of TOML v1.0.0.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
