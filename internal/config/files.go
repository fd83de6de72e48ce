package config

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"
)

// filePrefix marks an element that stands for the elements of a list in a file.
const filePrefix = "file:"

// listFile returns the elements of the list that n names: one a line, where blank
// lines and what follows a # do not count.
func (d *decoder) listFile(n *node) []*node {
	name := strings.TrimPrefix(n.text, filePrefix)
	text, ok := d.read(n, name, "")
	if !ok {
		return nil
	}
	f := newFile(d.path(name), text)
	var out []*node
	offset := 0
	for line := range bytes.Lines(text) {
		element, _, _ := bytes.Cut(line, []byte("#"))
		at := offset + len(element) - len(bytes.TrimLeft(element, " \t"))
		if s := string(bytes.TrimSpace(element)); s != "" {
			kind := textKind
			if n.spec.want == wantPorts && strings.Trim(s, "0123456789") == "" {
				kind = integerKind
			}
			out = append(out, &node{kind: kind, text: s, key: s, spec: n.spec, file: f, keyAt: at, at: at, order: n.order})
		}
		offset += len(line)
	}
	if len(out) == 0 {
		d.fault(n, "write an element a line, or leave the key out", "%s: %s holds no element", n.spec.name, f.path)
	}
	return out
}

// read returns what stands in a file that n names.
func (d *decoder) read(n *node, name, hint string) ([]byte, bool) {
	if name == "" {
		d.fault(n, "", "%s: the name of the file is missing", n.spec.name)
		return nil, false
	}
	text, err := os.ReadFile(d.path(name))
	if err == nil {
		d.sum.Write(text)
		return text, true
	}
	reason := err
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		reason = pe.Err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		hint = ""
	}
	d.report(n, n.at, err, hint, "%s: cannot read %s: %v", n.spec.name, d.path(name), reason)
	return nil, false
}
