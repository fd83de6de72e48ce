// Command client asks its argument, a URL or a UDP address, for the address that it was asked from.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
)

func main() {
	ask := overUDP
	if strings.HasPrefix(os.Args[1], "http") {
		ask = overHTTP
	}
	answer, err := ask(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer)
}

func overHTTP(url string) (string, error) {
	r, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return string(body), err
}

// overUDP sends from a socket that is not connected.
func overUDP(to string) (string, error) {
	addr, err := netip.ParseAddrPort(to)
	if err != nil {
		return "", err
	}
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.WriteToUDPAddrPort([]byte("who"), addr); err != nil {
		return "", err
	}
	var b [100]byte
	n, err := c.Read(b[:])
	if err != nil {
		return "", err
	}
	from, err := netip.ParseAddrPort(strings.TrimSpace(string(b[:n])))
	return from.Addr().String(), err
}
