//go:build linux

package pktinfo_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"sync"

	"github.com/srcproxy/srcproxy/pktinfo"
)

// An echo server that knows net.PacketConn only. With net.ListenPacket a
// client that asks 127.0.0.3 would hear from 127.0.0.1.
func Example() {
	c, err := pktinfo.Listen("udp", ":0") // was net.ListenPacket("udp", ":0")
	if err != nil {
		log.Fatal(err)
	}
	var server sync.WaitGroup
	server.Go(func() { echo(c) })

	client, err := net.ListenUDP("udp4", nil)
	if err != nil {
		log.Fatal(err)
	}
	port := c.LocalAddr().(*net.UDPAddr).Port
	b := make([]byte, 100)
	for _, host := range []string{"127.0.0.1", "127.0.0.3"} {
		if _, err := client.WriteTo([]byte("hello"), &net.UDPAddr{IP: net.ParseIP(host), Port: port}); err != nil {
			log.Fatal(err)
		}
		n, from, err := client.ReadFromUDP(b)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("asked %s, %s answered %s\n", host, from.IP, b[:n])
	}
	_, _ = c.Close(), client.Close()
	server.Wait()
	// Output:
	// asked 127.0.0.1, 127.0.0.1 answered hello
	// asked 127.0.0.3, 127.0.0.3 answered hello
}

func echo(c net.PacketConn) {
	b := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		if _, err := c.WriteTo(b[:n], from); err != nil && !errors.Is(err, net.ErrClosed) {
			log.Print(err)
		}
	}
}

// pair returns two sockets, and the address of the second.
func pair(lc pktinfo.ListenConfig) (a, b *pktinfo.Conn, addr netip.AddrPort) {
	a, err := lc.Listen(context.Background(), "udp4", ":0")
	if err != nil {
		log.Fatal(err)
	}
	b, err = lc.Listen(context.Background(), "udp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	return a, b, b.LocalAddr().(*net.UDPAddr).AddrPort()
}

// Each message of a batch names its own source.
func ExampleConn_WriteBatch() {
	client, server, to := pair(pktinfo.ListenConfig{})
	out := make([]pktinfo.Message, 3)
	for i := range out {
		out[i].Buf = fmt.Appendf(nil, "datagram %d", i)
		out[i].N = len(out[i].Buf)
		out[i].Addr = pktinfo.Addr{Peer: to, Local: netip.AddrFrom4([4]byte{127, 0, 0, byte(2 + i)})}
	}
	for rest := out; len(rest) > 0; {
		n, err := client.WriteBatch(rest)
		rest = rest[n:]
		if err != nil {
			log.Print(err) // about rest[0]
			rest = rest[1:]
		}
	}

	in := make([]pktinfo.Message, 32)
	for i := range in {
		in[i].Buf = make([]byte, 2048)
	}
	for got := 0; got < len(out); {
		n, err := server.ReadBatch(in)
		if err != nil {
			log.Fatal(err)
		}
		for _, m := range in[:n] {
			fmt.Printf("%s from %v\n", m.Buf[:m.N], m.Addr.Peer.Addr())
		}
		got += n
	}
	_, _ = client.Close(), server.Close()
	// Output:
	// datagram 0 from 127.0.0.2
	// datagram 1 from 127.0.0.3
	// datagram 2 from 127.0.0.4
}

// One write that the kernel cuts into three datagrams, and which a reader with
// GRO may get in one piece.
func ExampleMessage_Segments() {
	client, server, to := pair(pktinfo.ListenConfig{GRO: true})
	out := pktinfo.Message{Buf: []byte("one..two..end"), N: 13, Segment: 5, Addr: pktinfo.Addr{Peer: to}}
	if err := client.WriteMsg(&out); err != nil {
		log.Fatal(err)
	}
	in := pktinfo.Message{Buf: make([]byte, 1<<16)}
	for got := 0; got < 3; {
		if err := server.ReadMsg(&in); err != nil {
			log.Fatal(err)
		}
		for datagram := range in.Segments() {
			fmt.Printf("%s\n", datagram)
			got++
		}
	}
	_, _ = client.Close(), server.Close()
	// Output:
	// one..
	// two..
	// end
}

// ICMP errors are told apart by peer, and disturb nobody else.
func ExampleListenConfig() {
	refused := make(chan pktinfo.SocketError, 1)
	lc := pktinfo.ListenConfig{
		ReadBuffer:  1 << 20,
		MTUDiscover: pktinfo.MTUDiscoverDont,
		Errors:      true,
		OnError:     func(e pktinfo.SocketError) { refused <- e },
	}
	client, server, to := pair(lc)
	_ = server.Close() // nobody listens there any more

	var reader sync.WaitGroup
	reader.Go(func() { echo(client) })
	m := pktinfo.Message{Buf: []byte("x"), N: 1, Addr: pktinfo.Addr{Peer: to, Local: netip.MustParseAddr("127.0.0.2")}}
	if err := client.WriteMsg(&m); err != nil {
		log.Fatal(err)
	}
	e := <-refused
	fmt.Println(e.Peer == to, e.Local, e.Err)
	_ = client.Close()
	reader.Wait()
	// Output: true 127.0.0.2 connection refused
}
