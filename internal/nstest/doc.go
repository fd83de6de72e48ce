// Package nstest is for tests only: it runs a test binary in network
// namespaces of its own, joins them by veth pairs, starts servers that record
// who called them, and counts at the far end every packet by its source.
//
// A package that uses it hands its TestMain to Main, which starts the test
// binary again in new network and mount namespaces (and, without root, in a new
// user namespace). Everything made inside, namespaces, links, addresses,
// processes and mounts, ends with that child: there is nothing to clean up
// on the host and no name that two runs could both want.
//
// The addresses are those of the documentation ranges (RFC 5737, RFC 3849) and
// the same in every Topology, so that one hosts file serves all tests.
package nstest
