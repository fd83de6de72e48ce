package config

// badAttach is files with a mistake in an [[attach]], and what they are told.
func badAttach() []badFile {
	const head = "default = \"kernel\"\n[[attach]]\n"
	return []badFile{
		{"attach to nothing", head + "override = true\n", `testdata/config.toml:2:3: the [[attach]] does not say to what
    [[attach]]
      ^
    write service = "asterisk.service", or cgroup = "/some.slice"`},
		{"attach to both", head + "service = \"a.service\"\ncgroup = \"/a\"\n", `testdata/config.toml:4:1: an [[attach]] has a service or a cgroup; this one has both
    cgroup = "/a"
    ^
    write an [[attach]] of its own for each`},
		{"attach twice", head + "service = \"a.service\"\n[[attach]]\nservice = \"a.service\"\n", `testdata/config.toml:5:11: a.service is attached in line 3 already
    service = "a.service"
              ^
    remove one of the two`},
		{"service without its suffix", head + "service = \"asterisk\"\n", `testdata/config.toml:3:11: service: "asterisk" lacks ".service" at its end
    service = "asterisk"
              ^
    write "asterisk.service"`},
		{"service that is a slice", head + "service = \"user.slice\"\n", `testdata/config.toml:3:11: service: "user.slice" is not the name of a service
    service = "user.slice"
              ^
    for other units write cgroup = "PATH", as systemd-cgls shows it`},
		{"service that is a path", head + "service = \"/system.slice/a.service\"\n", `testdata/config.toml:3:11: service: "/system.slice/a.service" is not the name of a service
    service = "/system.slice/a.service"
              ^
    for a control group write cgroup = "PATH"`},
		{"service that is a template", head + "service = \"getty@.service\"\n", `testdata/config.toml:3:11: service: "getty@.service" is not the name of one service
    service = "getty@.service"
              ^
    write the name of what runs: "NAME@INSTANCE.service"`},
		{"cgroup that is no path", head + "cgroup = \"user.slice\"\n", `testdata/config.toml:3:10: cgroup: "user.slice" is no path from the root
    cgroup = "user.slice"
             ^
    write it from the root, as systemd-cgls shows it: "/user.slice"`},
		{"attach with an unknown use", head + "cgroup = \"/\"\nuse = \"voip\"\n", `testdata/config.toml:4:7: use: no source or pool is named "voip"
    use = "voip"
          ^
    known names: kernel, same, deny`},
		{"names that nobody asks for", head + "cgroup = \"/\"\nuse = \"198.51.100.30\"\nnames = \"resolve\"\n", `testdata/config.toml:5:1: names does nothing beside use: no rule is asked
    names = "resolve"
    ^
    remove one of the two`},
		{"names with another word", head + "cgroup = \"/\"\nnames = \"lookup\"\nwildcard_port = \"bind\"\n", `testdata/config.toml:4:9: names: "lookup" is not known
    names = "lookup"
            ^
    one of: resolve
testdata/config.toml:5:17: wildcard_port: "bind" is not known
    wildcard_port = "bind"
                    ^
    one of: mark`},
		{"attach that is a table", "default = \"kernel\"\n[attach]\ncgroup = \"/\"\n", `testdata/config.toml:2:2: attach: want a list of tables: [[attach]], got a table
    [attach]
     ^
    double the brackets: [[attach]]`},
		{"unknown key of an attach", head + "cgroup = \"/\"\npersists = true\noverride = \"true\"\n", `testdata/config.toml:4:1: [[attach]] has no key "persists"
    persists = true
    ^
    did you mean "persist"?
testdata/config.toml:5:12: override: want true or false, without quotes, got text
    override = "true"
               ^
    write it without quotes: true`},
	}
}
