// Package cgroup is version 2 of control groups as the kernel has it: directories of one
// file system, found by mountinfo and by the names of directories, without asking
// systemd (Documentation/admin-guide/cgroup-v2.rst).
package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrNotMounted says that no cgroup v2 file system is to be seen.
var ErrNotMounted = errors.New("no cgroup v2 file system is mounted: mount -t cgroup2 none /sys/fs/cgroup")

// A Tree is the cgroup v2 hierarchy as this process sees it. It is not changed once
// made.
type Tree struct {
	Dir string // where it is mounted

	top string // what of the hierarchy is mounted there: "/", but in containers
	own string // the cgroup of this process, from the same root as top
}

// Mounted returns the tree that is mounted here.
func Mounted() (*Tree, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	dir, top, ok := findMount(mounts)
	if !ok {
		return nil, ErrNotMounted
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	own, ok := findOwn(groups)
	if !ok {
		return nil, errors.New("/proc/self/cgroup: no line of cgroup v2")
	}
	return &Tree{Dir: dir, top: top, own: own}, nil
}

// findMount looks for cgroup2 among the lines of proc_pid_mountinfo(5):
//
//	ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [OPTIONAL...] - TYPE SOURCE SUPEROPTIONS
func findMount(mountinfo []byte) (dir, top string, ok bool) {
	for lines := bufio.NewScanner(bytes.NewReader(mountinfo)); lines.Scan(); {
		mount, fs, found := strings.Cut(lines.Text(), " - ")
		w := strings.Fields(mount)
		if found && len(w) >= 6 && strings.HasPrefix(fs, "cgroup2 ") {
			return unescape(w[4]), unescape(w[3]), true
		}
	}
	return "", "", false
}

// unescape reads the octal escapes of mountinfo: "\040" is a blank.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// findOwn reads the path in the line of cgroup v2 of cgroups(7): "0::/user.slice".
func findOwn(groups []byte) (string, bool) {
	for lines := bufio.NewScanner(bytes.NewReader(groups)); lines.Scan(); {
		if path, ok := strings.CutPrefix(lines.Text(), "0::"); ok {
			return path, true
		}
	}
	return "", false
}

// Own returns the directory of the cgroup that this process was in when the tree was
// looked for.
func (t *Tree) Own() (string, error) {
	below, err := filepath.Rel(t.top, t.own)
	if err != nil || !filepath.IsLocal(below) || strings.HasPrefix(t.own, "/..") { // the last: outside of the namespace
		return "", fmt.Errorf("this process's cgroup %s is not below what is mounted at %s", t.own, t.Dir)
	}
	return filepath.Join(t.Dir, below), nil
}

// Path returns the directory of a cgroup as people write it: from the root of the tree,
// as systemd-cgls(1) shows it, or with the mount point before it.
func (t *Tree) Path(name string) string {
	clean := filepath.Clean("/" + name)
	if clean == t.Dir || strings.HasPrefix(clean, t.Dir+"/") {
		return clean
	}
	return filepath.Join(t.Dir, clean)
}

// Name returns how people write the cgroup at a path: "/" is the root.
func (t *Tree) Name(path string) string {
	return filepath.Clean("/" + strings.TrimPrefix(path, t.Dir))
}
