// Package server starts what a configuration describes, exchanges it on reload, and
// ends it by a drain. It holds no logic of its own about flows.
//
// A reload checks all, opens what is new, swaps, and closes what is old; anything that
// fails before the swap leaves everything as it was. One that the admin socket asks for
// and one by SIGHUP are done by the same goroutine. Whoever asks for anything else reads
// a view of the configuration that is served, one pointer that each reload exchanges,
// and the registry of flows.
//
// A [Ward] is what run has instead of a service: a cgroup below its own, with the hooks
// on it before the command is started in it. A lock on the directory tells which of them
// have no owner any more; the next NewWard removes those.
//
// Where an [[attach]] gives marks to sockets (wildcard_port), the routing is followed, and
// the kernel plane told where each mark leads to its source; elsewhere it gives none. That
// has to be told again and again, so that it ends with this process.
package server
