package config

import (
	"fmt"
	"os"
)

// Admin says where the running program is asked and told things.
type Admin struct {
	Socket string // the path of the unix socket; empty: where the program looks for a place itself
}

// maxSocket is the longest path of a unix socket in bytes, unix(7): sun_path without
// its NUL.
const maxSocket = 107

func (d *decoder) admin(n *node) {
	k := d.keys(n, adminTable)
	name, ok := d.text(k["socket"])
	if !ok {
		return
	}
	path := d.path(name)
	if len(path) > maxSocket {
		d.fault(k["socket"], "choose a shorter one: \"/run/srcproxy/admin.sock\"",
			"socket: the path has %d bytes, and a unix socket's has at most %d", len(path), maxSocket)
		return
	}
	d.config.Admin.Socket = path
}

// Socket returns the admin.socket of the file path, empty where there is none. The file
// may have mistakes, as long as it is TOML: whoever corrects them wants to ask the
// program that runs.
func Socket(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("configuration: %w", err)
	}
	f := newFile(path, text)
	root, err := f.tree()
	if err != nil {
		return "", err
	}
	d := decoder{file: f, config: Default()}
	if n := root.child("admin"); n != nil {
		n.spec = topTable.key("admin")
		d.admin(n)
	}
	return d.config.Admin.Socket, nil
}
