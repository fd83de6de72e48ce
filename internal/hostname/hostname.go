// Package hostname reads the host that a client asks for: in a SOCKS request,
// in the authority of HTTP CONNECT, or in a datagram's header.
//
// A host has one spelling behind this package. Whatever a resolver or
// inet_aton(3) could take for an address is an address here or is refused, so
// that no odd spelling reaches a destination past the rule that names it. The
// package is pure: it resolves nothing.
package hostname

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// MaxName is the longest name in octets, without a trailing dot, that DNS can
// carry (RFC 1035 section 2.3.4).
const MaxName = 253

// maxLabel is the longest label in octets (RFC 1035 section 2.3.4).
const maxLabel = 63

// maxQuoted bounds how much of a refused host an error repeats.
const maxQuoted = 255

// ErrInvalid is what errors.Is finds in every error of Parse.
var ErrInvalid = errors.New("neither a host name nor an address")

// Parse reads host and returns either its address or its name.
//
// An address is an IPv4 dotted quad, with or without a trailing dot, or an
// IPv6 literal without brackets and zone; an IPv4-mapped one is unmapped. A
// name is returned in lower case and without its trailing dot, since neither
// matters to a rule.
//
// Refused are empty names and labels, labels over 63 and names over 253
// octets, and each byte but letters, digits, hyphen and underscore (which is
// no host name's, but stands in many names that resolve). That includes raw
// UTF-8: an internationalized name is asked for by its A-label (xn--), because
// mapping it here would give an address a second spelling. A name that ends in
// a number without being a dotted quad (2130706441, 0x7f000009, 127.9,
// 0177.0.0.011) is refused as the URL standard says ("ends in a number").
//
// Parse is safe for concurrent use. It allocates only for a name with capital
// letters and for an error, which quotes the host in printable ASCII.
func Parse(host string) (netip.Addr, string, error) {
	name := strings.TrimSuffix(host, ".")
	if strings.Contains(host, ":") {
		return parseIPv6(host)
	}
	if fault := nameFault(name); fault != "" {
		return netip.Addr{}, "", invalid(host, fault)
	}
	if !endsInNumber(name) {
		return netip.Addr{}, strings.ToLower(name), nil
	}
	addr, err := netip.ParseAddr(name)
	if err != nil {
		return netip.Addr{}, "", invalid(host, "it ends in a number but is not a dotted quad")
	}
	return addr, "", nil
}

func parseIPv6(host string) (netip.Addr, string, error) {
	if strings.Contains(host, "%") {
		return netip.Addr{}, "", invalid(host, "a zone means nothing on another host")
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}, "", invalid(host, "no name has a colon, and it is not an IPv6 address")
	}
	return addr.Unmap(), "", nil
}

func invalid(host, fault string) error {
	if len(host) > maxQuoted {
		return fmt.Errorf("host of %d octets: %w: %s", len(host), ErrInvalid, fault)
	}
	return fmt.Errorf("host %+q: %w: %s", host, ErrInvalid, fault)
}

// nameFault says what is wrong with name, or nothing.
func nameFault(name string) string {
	switch {
	case name == "":
		return "it is empty"
	case len(name) > MaxName:
		return "it is longer than 253 octets"
	}
	for rest, more := name, true; more; {
		var label string
		label, rest, more = strings.Cut(rest, ".")
		if fault := labelFault(label); fault != "" {
			return fault
		}
	}
	return ""
}

func labelFault(label string) string {
	switch {
	case label == "":
		return "it has an empty label"
	case len(label) > maxLabel:
		return "it has a label longer than 63 octets"
	}
	for i := range len(label) {
		if c := label[i]; !isNameByte(c) {
			return fmt.Sprintf("byte %#02x stands in no name", c)
		}
	}
	return ""
}

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || isDigit(c) || c == '-' || c == '_'
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHexDigit(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// endsInNumber tells whether the last label of name is a number to an IPv4
// parser: decimal or octal digits, or 0x with hexadecimal ones
// (https://url.spec.whatwg.org/#ends-in-a-number-checker).
func endsInNumber(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if len(last) >= 2 && last[0] == '0' && last[1]|0x20 == 'x' {
		return all(last[2:], isHexDigit)
	}
	return all(last, isDigit)
}

func all(s string, is func(byte) bool) bool {
	for i := range len(s) {
		if !is(s[i]) {
			return false
		}
	}
	return true
}
