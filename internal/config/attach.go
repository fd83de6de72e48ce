package config

import (
	"strings"

	"github.com/srcproxy/srcproxy/dialer"
)

// An Attach is one [[attach]] entry: a control group whose programs the rules are for.
type Attach struct {
	// Exactly one of them is set.
	Service string // a unit of systemd: "asterisk.service"
	Cgroup  string // a path from the root of cgroup v2

	Use      *dialer.Use // nil: the rules choose
	Override bool        // also where a program has chosen its address itself
	Resolve  bool        // names in rules stand for their addresses
	Mark     bool        // sockets with a port of their own get the mark of the source
	Persist  bool        // the rules stay when srcproxy stops
	Log      bool        // each decision has a line in the log
}

// Name returns the service, or the path of the cgroup. No other entry has the same.
func (a *Attach) Name() string { return a.Service + a.Cgroup }

// ByRules reports whether the rules choose for the programs of a.
func (a *Attach) ByRules() bool { return a.Use == nil }

func (d *decoder) attachments(n *node) {
	for _, c := range d.tables(n, attachTable) {
		if a, ok := d.attach(c); ok {
			d.config.Attach = append(d.config.Attach, a)
		}
	}
}

func (d *decoder) attach(n *node) (Attach, bool) {
	k := d.keys(n, attachTable)
	var a Attach
	where, ok := d.attachTo(n, k, &a)
	if use := k["use"]; use != nil {
		switch u, known := d.use(use); {
		case u.Same:
			d.fault(use, "name a source", `use: no client connects to anything here, so "same" is no address`)
		case known:
			a.Use = &u
		}
	}
	a.Override = d.boolean(k["override"], false)
	_, a.Resolve = d.word(k["names"], "resolve")
	_, a.Mark = d.word(k["wildcard_port"], "mark")
	a.Persist = d.boolean(k["persist"], false)
	a.Log = d.boolean(k["log"], false)
	if !ok {
		return a, false
	}
	if a.Use != nil && a.Resolve {
		d.faultKey(k["names"], "remove one of the two", "names does nothing beside use: no rule is asked")
	}
	if taken, free := d.mark(where, "attach", a.Name()); !free {
		d.fault(where, "remove one of the two", "%s is attached in line %d already", a.Name(), taken.file.line(taken.keyAt))
	}
	return a, true
}

// attachTo reads what the rules are attached to.
func (d *decoder) attachTo(n *node, k map[string]*node, a *Attach) (*node, bool) {
	service, cgroup := k["service"], k["cgroup"]
	switch {
	case service != nil && cgroup != nil:
		d.faultKey(cgroup, "write an [[attach]] of its own for each", "an [[attach]] has a service or a cgroup; this one has both")
		return nil, false
	case service != nil:
		var ok bool
		a.Service, ok = d.service(service)
		return service, ok
	case cgroup == nil:
		d.faultKey(n, `write service = "asterisk.service", or cgroup = "/some.slice"`, "the [[attach]] does not say to what")
		return nil, false
	}
	s, ok := d.text(cgroup)
	switch {
	case !ok:
		return nil, false
	case !strings.HasPrefix(s, "/"):
		d.fault(cgroup, `write it from the root, as systemd-cgls shows it: "/`+s+`"`, "cgroup: %q is no path from the root", s)
		return nil, false
	}
	a.Cgroup = s
	return cgroup, true
}

const serviceSuffix = ".service"

// unitBytes is what the name of a unit is made of (systemd.unit(5)).
const unitBytes = nameBytes + `:.\@`

// IsService reports whether s is the name of one service of systemd.
func IsService(s string) bool {
	base, suffixed := strings.CutSuffix(s, serviceSuffix)
	return suffixed && base != "" && !strings.HasSuffix(base, "@") && strings.Trim(s, unitBytes) == ""
}

// service reads the name of a unit.
func (d *decoder) service(n *node) (string, bool) {
	s, ok := d.text(n)
	suffixed := strings.HasSuffix(s, serviceSuffix)
	switch {
	case !ok:
		return "", false
	case strings.Trim(s, unitBytes) != "":
		d.fault(n, `for a control group write cgroup = "PATH"`, "service: %q is not the name of a service", s)
	case !suffixed && strings.Contains(s, "."):
		d.fault(n, `for other units write cgroup = "PATH", as systemd-cgls shows it`, "service: %q is not the name of a service", s)
	case !suffixed:
		d.fault(n, "write \""+s+serviceSuffix+"\"", "service: %q lacks %q at its end", s, serviceSuffix)
	case !IsService(s):
		d.fault(n, "write the name of what runs: \"NAME@INSTANCE.service\"", "service: %q is not the name of one service", s)
	default:
		return s, true
	}
	return "", false
}
