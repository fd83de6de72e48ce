package sip

import (
	"encoding/binary"
	"hash/maphash"
)

// key stands for the strings that identify something: 128 bits of a keyed hash, so that no strings
// are kept and nobody outside can choose two that meet. The zero key stands for nothing.
type key [2]uint64

// What a key is made of, so that no two kinds meet.
const (
	keyBranch byte = iota + 1
	keyOldBranch
	keySTUN
	keyDialog
	keyAddress
	keyExact
	keyHost
	keyUser
	keyBinding
)

// seeds are the secret of a table.
type seeds [2]maphash.Seed

func newSeeds() seeds { return seeds{maphash.MakeSeed(), maphash.MakeSeed()} }

// digest builds a key out of parts.
type digest struct {
	a, b maphash.Hash
}

// start begins a key of that kind.
func (d *digest) start(s *seeds, kind byte) {
	d.a.SetSeed(s[0])
	d.b.SetSeed(s[1])
	_ = d.a.WriteByte(kind) // never fails
	_ = d.b.WriteByte(kind)
}

// part adds a part with its length before it, so that the borders between parts count.
func (d *digest) part(p []byte) {
	d.number(uint32(len(p)))
	_, _ = d.a.Write(p) // never fails
	_, _ = d.b.Write(p)
}

func (d *digest) number(n uint32) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], n)
	_, _ = d.a.Write(b[:])
	_, _ = d.b.Write(b[:])
}

// folded adds a part whose case does not matter. One that is longer than any host name
// counts as written.
func (d *digest) folded(p []byte) {
	var low [272]byte
	if len(p) > len(low) {
		d.part(p)
		return
	}
	for i, c := range p {
		low[i] = lower(c)
	}
	d.part(low[:len(p)])
}

func (d *digest) sum() key { return key{d.a.Sum64(), d.b.Sum64()} }

// magic begins the branches that are unique (RFC 3261 section 8.1.1.7).
const magic = "z9hg4bk"

// transactionKey identifies the transaction of a message: by branch and Call-ID, which
// responses, CANCEL and the ACK of a failure repeat; without the magic cookie also by the
// number of CSeq (RFC 3261 section 17.2.3). RFC 3261 asks for the branch alone, but programs
// that count their branches from 1 exist, and run on two hosts.
func (s *seeds) transactionKey(m *Message) key {
	var d digest
	unique := len(m.Branch) > len(magic) && fold(m.Branch[:len(magic)], magic)
	if unique {
		d.start(s, keyBranch)
	} else {
		d.start(s, keyOldBranch)
		d.number(m.CSeq)
	}
	d.part(m.Branch)
	d.part(m.CallID)
	return d.sum()
}

func (s *seeds) stunKey(id ID) key {
	var d digest
	d.start(s, keySTUN)
	d.part(id[:])
	return d.sum()
}

// dialogKey identifies one party of a dialog: Call-ID alone is not enough, since a
// provider that proxies a call between two of our clients keeps it.
func (s *seeds) dialogKey(callID, tag []byte) key {
	var d digest
	d.start(s, keyDialog)
	d.part(callID)
	d.part(tag)
	return d.sum()
}

// remote returns a short hash of a tag, never 0.
func (s *seeds) remote(tag []byte) uint32 { return uint32(maphash.Bytes(s[0], tag)) | 1 }

// addressKey identifies an address of record: user and host.
func (s *seeds) addressKey(uri []byte) key {
	u := ParseURI(uri)
	var d digest
	d.start(s, keyAddress)
	if len(u.Host) == 0 {
		d.part(u.Raw)
		return d.sum()
	}
	d.part(u.User)
	d.folded(u.Host)
	return d.sum()
}

// The names that a Contact goes by, from the strictest on.
const (
	nameExact = iota // user, host, port and parameters
	nameHost         // user, host and port: some registrars drop the parameters
	nameUser         // the user: many registrars rewrite the host to where the REGISTER came from
	nameCount
)

// names are the keys of a Contact or a Request-URI. Those that it does not have are zero.
type names [nameCount]key

func (s *seeds) names(uri []byte) (n names) {
	u := ParseURI(uri)
	if len(u.Host) > 0 {
		var d digest
		d.start(s, keyExact)
		d.part(u.User)
		d.folded(u.Host)
		d.part(u.Params)
		n[nameExact] = d.sum()
		d.start(s, keyHost)
		d.part(u.User)
		d.folded(u.Host)
		n[nameHost] = d.sum()
	}
	if len(u.User) > 0 {
		var d digest
		d.start(s, keyUser)
		d.part(u.User)
		n[nameUser] = d.sum()
	}
	return n
}

// bindingKey identifies a binding of a registrar: an address of record and a Contact.
func (s *seeds) bindingKey(address, exact key) key {
	var b [32]byte
	for i, v := range [...]uint64{address[0], address[1], exact[0], exact[1]} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	var d digest
	d.start(s, keyBinding)
	d.part(b[:])
	return d.sum()
}
