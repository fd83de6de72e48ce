// Package dialer opens connections whose source address is chosen by rules.
//
// A host often has many addresses. When it starts a connection the kernel picks
// one of them, by the route and not by what the operator wants. A [Dialer] makes
// that choice instead: a [Table] of rules says for each [Flow] from which [Source]
// it leaves, and the Dialer binds exactly that address before it connects. It
// never falls back to the kernel's choice: a flow leaves from the address the
// rule names, or the dial fails with an error that names the rule.
//
// The zero Dialer dials as net.Dialer does. Everything here is safe for concurrent
// use once built; a Table never changes, and is exchanged by building a new one.
//
// Linux is the platform. Elsewhere the package compiles, and a dial that needs a
// source is refused with errors.ErrUnsupported.
package dialer
