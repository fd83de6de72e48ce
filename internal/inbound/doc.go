// Package inbound serves the TCP listeners: SOCKS and HTTP CONNECT proxies, and plain
// forwards. It accepts, checks who may come, reads the handshake, asks the dialer for
// the connection, and hands both to the relay.
//
// The handshakes are pure functions over the bytes received so far, in packages socks
// and httpconnect: they say more, send this, check this login, here is the request, or
// close. What is here owns the socket, the deadline and the login.
package inbound
