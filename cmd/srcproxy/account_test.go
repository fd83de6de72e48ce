package main

import (
	"os/user"
	"slices"
	"strconv"
	"testing"
)

func TestAccounts(t *testing.T) {
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	sudo := func(name string) string {
		return map[string]string{"SUDO_UID": nobody.Uid, "SUDO_GID": nobody.Gid, "SUDO_USER": "nobody"}[name]
	}
	stranger := func(name string) string {
		return map[string]string{"SUDO_UID": "54321", "SUDO_GID": "54322", "SUDO_USER": "stranger"}[name]
	}
	none := func(string) string { return "" }
	for _, tt := range []struct {
		name, user string
		euid       int
		getenv     func(string) string
		want       string // name, uid and gid; empty: who runs it
	}{
		{"root", "", 0, none, ""},
		{"a user", "", 1000, none, ""},
		{"a user with a variable", "", 1000, sudo, ""},
		{"sudo", "", 0, sudo, "nobody " + nobody.Uid + " " + nobody.Gid},
		{"sudo by somebody unknown", "", 0, stranger, "stranger 54321 54322"},
		{"sudo and a user", "root", 0, sudo, "root 0 0"},
		{"by number", nobody.Uid, 0, none, "nobody " + nobody.Uid + " " + nobody.Gid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := app{env: env{getenv: tt.getenv}}
			got, err := a.accountFor(tt.user, tt.euid)
			if err != nil {
				t.Fatal(err)
			}
			text := ""
			if got != nil {
				text = got.name + " " + strconv.Itoa(int(got.uid)) + " " + strconv.Itoa(int(got.gid))
				if !slices.Contains(got.groups, got.gid) {
					t.Errorf("the groups %v lack %d", got.groups, got.gid)
				}
			}
			if text != tt.want {
				t.Errorf("got %q, want %q", text, tt.want)
			}
		})
	}
	a := app{env: env{getenv: func(name string) string { return map[string]string{"SUDO_UID": "-1"}[name] }}}
	if got, err := a.accountFor("", 0); err == nil {
		t.Errorf("a user number that is none: got %+v", got)
	}
}
