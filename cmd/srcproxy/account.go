package main

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"syscall"
)

// account is who a command runs as.
type account struct {
	name, home string
	uid, gid   uint32
	groups     []uint32
}

// accountFor returns who CMD is to run as: the user with that name or number, or where
// no name is given and sudo(8) made this root, the one who called it. Nil is who runs
// this.
func (a *app) accountFor(name string, euid int) (*account, error) {
	if name != "" {
		return lookupAccount(name)
	}
	uid := a.getenv("SUDO_UID")
	if euid != 0 || uid == "" {
		return nil, nil
	}
	u, err := user.LookupId(uid)
	if err == nil {
		return newAccount(u)
	}
	// One without an entry in the user database has no groups but its own.
	return newAccount(&user.User{Username: a.getenv("SUDO_USER"), Uid: uid, Gid: a.getenv("SUDO_GID")})
}

func lookupAccount(name string) (*account, error) {
	u, err := user.Lookup(name)
	if errors.As(err, new(user.UnknownUserError)) {
		if byID, idErr := user.LookupId(name); idErr == nil {
			u, err = byID, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("--user: %w", err)
	}
	return newAccount(u)
}

func newAccount(u *user.User) (*account, error) {
	out := &account{name: u.Username, home: u.HomeDir}
	var err error
	if out.uid, err = id(u.Uid); err != nil {
		return nil, err
	}
	if out.gid, err = id(u.Gid); err != nil {
		return nil, err
	}
	groups, err := u.GroupIds()
	if err != nil {
		groups = []string{u.Gid} // no entry, no groups
	}
	for _, g := range groups {
		n, err := id(g)
		if err != nil {
			return nil, err
		}
		out.groups = append(out.groups, n)
	}
	return out, nil
}

// id reads the number of a user or group.
func id(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is no number of a user or group: %w", s, err)
	}
	return uint32(n), nil
}

func (a *account) credential() *syscall.Credential {
	return &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: a.groups}
}

// environ returns the variables that say who one is.
func (a *account) environ() []string {
	env := []string{"USER=" + a.name, "LOGNAME=" + a.name}
	if a.home != "" {
		env = append(env, "HOME="+a.home)
	}
	return env
}
