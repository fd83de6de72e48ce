// Package udprelay relays UDP conversations so that each leaves from the source
// that the rules choose.
//
// An [Engine] owns the sockets from which datagrams leave: one unconnected socket,
// an owner, for each (source address, port) in the process, shared by all
// forwards. Answers are told apart by the peer from which they come, so that many
// clients share a port as long as their peers differ, and no two flows ever have
// the same 4-tuple. Every datagram carries its source in the control message: the
// kernel refuses to send from an address that is no longer on this host.
//
// A [Forward] is a listening socket with a fixed target. A flow is one client's
// address and port together with the local address that it asked; answers go back
// from that very address.
//
// # A datagram's way
//
// There: ReadBatch, the flow by client and address asked; for its first datagram the
// decision and the owner of S:port; WriteBatch, with S in the control message. Back:
// ReadBatch on the owner, the flow by peer, WriteBatch from the address asked.
//
// Flows are found in flat tables: slots of eight bytes, a hash and the number of a
// flow, which the garbage collector does not look into. Owners with free ports may be
// a thousand for one target; an epoll of their own, inside Go's, reads them all, and
// their answers leave by one sendmmsg. Datagrams that the kernel brings as one
// (UDP_GRO) stay one until the other side, but for SIP, which is looked at one by one.
//
// # SIP trunks
//
// With share = "sip" the owner has a trunk: flows that may have one peer. What clients
// send teaches its table; a datagram from the provider goes to a client by STUN
// transaction, Via branch, dialog or registration, else to inbound or to the only
// client, else it is dropped and counted. The owner of a fixed port is open from the
// start, and calls return to where they came from.
//
// # SOCKS associations
//
// An [Association] has one wildcard socket of both families for all its destinations,
// each with its own decision; only sources with ports or freebind get one beside it,
// and a fixed port is that of its owner, with all others who leave from there. Its
// filter lets in answers from where the client has sent, until it has been silent for
// timeouts.udp; from a fixed port, from the very address and port. Where a forward
// wants as its source port what the kernel gave to an association, the association
// gives it up.
package udprelay
