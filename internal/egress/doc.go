// Package egress knows the sources while the program runs: whether an address can be
// used now and reaches what it is probed by, how many flows leave from each source, and
// how names are resolved from the address that the rules choose for the name server. It
// outlives reloads.
//
// [Sources] keeps for each source and family one of four conditions: up; down, with the
// reason (the address has gone, a probe fails); waiting for an address that has not been
// here yet; broken, since packets would take a wrong way. [State] puts that beside the
// addresses of the moment, which cost a look into a map, and answers the dialer.
//
//   - Ends are found by looking, not by listening. After each change every live flow's
//     address is looked up. Who opens a flow looks once more when it can be ended, so
//     that none falls between. A hold is that look again, later.
//   - An interface is a source without an address: State.LinkAddr has the one of the
//     moment.
//   - Ways are asked of the kernel when addresses come and when routes change, for a
//     destination behind the default route. Only where that way is wrong is each
//     destination asked for, since routes of their own may lead to some.
package egress
