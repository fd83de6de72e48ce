// Package integration tests the built program from outside: in namespaces of
// its own, with programs that other people wrote, and by what the far server
// saw.
package integration
