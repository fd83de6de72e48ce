package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// parentSlice holds the slices for services. The dash in the names of those below says
// so to systemd (systemd.slice(5)).
const parentSlice = "srcproxy"

// SliceName returns the name of the slice that is for one service alone, and that
// stays when the service stops.
func SliceName(unit string) string {
	var b strings.Builder
	for _, c := range []byte(strings.TrimSuffix(unit, ".service")) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == ':', c == '.':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c) // as systemd-escape(1) does; a dash would be one more level
		}
	}
	return parentSlice + "-" + b.String() + sliceSuffix
}

// SlicePath returns where systemd makes that slice, from the root of the tree.
func SlicePath(unit string) string {
	return filepath.Join(parentSlice+sliceSuffix, SliceName(unit))
}

// DropIn returns the file that puts a service into its slice, and what to write into
// it; systemd reads it at "systemctl daemon-reload", and the service moves when it is
// started again.
func DropIn(unit string) (path, text string) {
	path = filepath.Join("/etc/systemd/system", unit+".d", "srcproxy.conf")
	return path, "[Service]\nSlice=" + SliceName(unit) + "\n"
}

// DropInCommands returns the shell commands that install the drop-in and move the service.
func DropInCommands(unit string) []string {
	path, text := DropIn(unit)
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	return []string{
		"mkdir -p '" + filepath.Dir(path) + "'",
		"printf '%s\\n' '" + strings.Join(lines, "' '") + "' >'" + path + "'",
		"systemctl daemon-reload && systemctl restart '" + unit + "'",
	}
}

// MakeSlice makes the slice of a service where it is not there yet, and returns its
// directory. Systemd takes it over when it starts the service.
func (t *Tree) MakeSlice(unit string) (string, error) {
	path := filepath.Join(t.Dir, SlicePath(unit))
	return path, os.MkdirAll(path, 0o755)
}
