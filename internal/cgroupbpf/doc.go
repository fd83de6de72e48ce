//go:build linux

// Package cgroupbpf puts the rules into the kernel: programs at the hooks of a cgroup choose the source of connections and
// datagrams of programs that know nothing of srcproxy, with no hop in between.
//
// Compile turns a dialer.Table into Rules, the form that the maps hold. Load loads the hooks, which refuse everything until
// Set has given them Rules. Attach puts them onto a cgroup, without a link: they then live as long as the cgroup does, and
// not as long as the process that attached them. Pin keeps them reachable for Open, so that a later process can exchange
// their rules. SetState withdraws sources that are not usable now, and End ends the sockets whose address has gone.
//
// # What the hooks do
//
// connect(2) is judged when it is called, a datagram that names its destination when it is sent. The flow leaves from the
// address that the rules name, or the call fails: with EPERM where the rules refuse the flow or ask for what the hook cannot
// do, with EADDRNOTAVAIL where no source is up. An address that the program bound, or gave in a control message, is
// respected, unless the rules were compiled with Override. A deny holds for those too. Loopback, link-local and multicast
// addresses and broadcasts are left to the kernel, unless a prefix of a rule lies inside of their range.
//
// # How the rules are held
//
// For each prefix the maps have the rules that may decide below it, in their order, as [dialer.Table.Prefixes] compiles them
// for the proxy as well. A hook looks the longest prefix up and walks that list: c/judge.h has the judgement, c/hooks.c what
// then becomes of the socket, which remembers (socket storage) what a hook bound, since that would else look like the
// program's own choice. A generation of rules is a set of inner maps in one of two slots, and one word says which is read.
// After it has moved, one more change of a map of maps lets all hooks end that read the old slot, so that it can be written
// again. States change in place, one byte of a member; an address that changes is a new generation, since a hook could read
// half of it.
//
// Pins come before hooks: what is attached can then be found by a later process, which loads its own hooks and exchanges
// them one by one. Nothing else is kept between processes.
//
// # What the hooks tell
//
// Counters has what each rule has decided. Under rules compiled with Log, OnDecision of the Plane is told of each decision:
// who called, for what, and what came of it. That goes by a ring buffer (c/event.h), which is there only while it is wanted.
// Hooks wake nobody and wait for nobody: the reader looks by the clock, and what finds no room is counted. In each event the
// value of active says what its indices mean, also when the rules were exchanged before it was read.
//
// # What the hooks miss
//
// Sockets that were made before their process came into the cgroup, datagram sockets that were connected before Attach,
// raw sockets, ping sockets that are not connected, and sockets of the kernel itself. docs/KERNEL.md has the whole list.
//
// Linux 5.18, with cgroup v2; CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.
package cgroupbpf

//go:generate go tool -modfile=../tools/go.mod bpf2go -cc clang-14 -strip llvm-strip-14 -go-package cgroupbpf -tags linux -type address -type prefix -type list -type candidate -type kind -type use -type member -type counter -type question -type way -type survey -type event hooks c/hooks.c -- -O2 -Wall -Werror -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go tool -modfile=../tools/go.mod bpf2go -cc clang-14 -strip llvm-strip-14 -go-package cgroupbpf -tags linux lost c/lost.c -- -O2 -Wall -Werror -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
