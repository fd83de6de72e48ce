package cgroup

import (
	"testing"
)

func TestFindMount(t *testing.T) {
	for _, tt := range []struct {
		name, text, dir, top string
	}{
		{"alone", "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n", "/sys/fs/cgroup", "/"},
		{"beside version 1", "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n" +
			"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/unified", "/"},
		{"a part, with a blank", "41 31 0:38 /a\\040b /mnt/c\\134d rw - cgroup2 none rw\n", "/mnt/c\\d", "/a b"},
		{"none", "31 23 0:28 / /sys/fs/cgroup rw - tmpfs cgroup2 rw\n", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, top, ok := findMount([]byte(tt.text))
			if dir != tt.dir || top != tt.top || ok != (tt.dir != "") {
				t.Errorf("got %q, %q, %v, want %q, %q", dir, top, ok, tt.dir, tt.top)
			}
		})
	}
}

func TestOwn(t *testing.T) {
	for _, tt := range []struct {
		name, top, groups, want string
	}{
		{"the root", "/", "1:cpu:/\n0::/\n", "/mnt"},
		{"below it", "/", "0::/user.slice/a.scope\n", "/mnt/user.slice/a.scope"},
		{"a part is mounted", "/docker", "0::/docker/a\n", "/mnt/a"},
		{"another part is mounted", "/docker", "0::/user.slice\n", ""},
		{"outside of the namespace", "/", "0::/../a\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			own, ok := findOwn([]byte(tt.groups))
			if !ok {
				t.Fatal("no line")
			}
			tree := &Tree{Dir: "/mnt", top: tt.top, own: own}
			got, err := tree.Own()
			if got != tt.want || (err != nil) != (tt.want == "") {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestNames(t *testing.T) {
	tree := &Tree{Dir: "/sys/fs/cgroup"}
	for in, want := range map[string]string{
		"/":                           "/sys/fs/cgroup",
		"a/b":                         "/sys/fs/cgroup/a/b",
		"/a/../../b/":                 "/sys/fs/cgroup/b",
		"/sys/fs/cgroup":              "/sys/fs/cgroup",
		"/sys/fs/cgroup/a":            "/sys/fs/cgroup/a",
		"/sys/fs/cgroup/../../etc":    "/sys/fs/cgroup/sys/etc",
		"/sys/fs/cgroupfoo":           "/sys/fs/cgroup/sys/fs/cgroupfoo",
		`system.slice/a\x2db.service`: `/sys/fs/cgroup/system.slice/a\x2db.service`,
	} {
		if got := tree.Path(in); got != want {
			t.Errorf("Path(%q): got %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"/sys/fs/cgroup": "/", "/sys/fs/cgroup/a/b": "/a/b"} {
		if got := tree.Name(in); got != want {
			t.Errorf("Name(%q): got %q, want %q", in, got, want)
		}
	}
}

func TestSliceFor(t *testing.T) {
	for unit, want := range map[string]string{
		"asterisk.service":    "srcproxy.slice/srcproxy-asterisk.slice",
		"getty@tty-1.service": `srcproxy.slice/srcproxy-getty\x40tty\x2d1.slice`,
		`dev-a\x2db.service`:  `srcproxy.slice/srcproxy-dev\x2da\x5cx2db.slice`,
	} {
		if got := SlicePath(unit); got != want {
			t.Errorf("%s: got %s, want %s", unit, got, want)
		}
	}
}
