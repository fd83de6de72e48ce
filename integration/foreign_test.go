//go:build linux

package integration

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/srcproxy/srcproxy/internal/nstest"
)

// foreignConfig has a second listener, for those who have a password.
const foreignConfig = mainConfig + `
[[listen]]
mixed = "127.0.0.1:1081"
users = "users"
`

// writeUsers writes a users file. The cost is the lowest, to spare time.
func (r *rig) writeUsers(passwords map[string]string) {
	r.t.Helper()
	var b strings.Builder
	for user, password := range passwords {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			r.t.Fatal(err)
		}
		b.WriteString(user + ":" + string(hash) + "\n")
	}
	r.write("users", b.String())
}

// foreignRig serves foreignConfig, and at the far end HTTP on port 80 and HTTPS
// on 443 whose body is the address seen, and the greeting on port 4000.
func foreignRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.Server.ServeHTTP(t, "0.0.0.0:80", nil)
	r.Server.GreetTCP(t, "0.0.0.0:4000")
	serveTLS(t, r.Server, "0.0.0.0:443")
	r.writeUsers(map[string]string{"ann": "secret"})
	r.serve(foreignConfig)
	return r
}

func serveTLS(t *testing.T, n *nstest.Namespace, address string) {
	t.Helper()
	l, err := n.Listen("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(nstest.PeerAddress)}}
	s.StartTLS()
	t.Cleanup(s.Close)
}

// client is a command line of a foreign client; its output must be the source
// that the far server saw.
type client struct {
	name string
	file string // written to ./conf
	env  []string
	args string // words, separated by spaces
	// to are the destinations; empty means all of destinations.
	to []string
}

// destinations are where clients go: TO in args is replaced.
var destinations = map[string]netip.Addr{
	"203.0.113.9": wan4, "203.0.113.25": mail4, "server.example": wan4, "smtp.mail.example": mail4,
}

// literals are the destinations of clients that resolve names by other ways.
var literals = []string{"203.0.113.9", "203.0.113.25"}

const chain = "strict_chain\nproxy_dns\n[ProxyList]\n"

const socksifyConf = `logoutput: /dev/null
route { from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = 1080
	proxyprotocol: VERSION
	protocol: tcp
	method: none
}
`

const tsocksConf = "server = 127.0.0.1\nserver_port = 1080\nserver_type = TYPE\nlocal = 192.168.0.0/255.255.0.0\n"

const fetch = "curl -sS --max-time 20 http://TO/"

func clients() []client {
	return []client{
		{name: "proxychains4 socks5", file: chain + "socks5 127.0.0.1 1080\n", args: "proxychains4 -q -f conf " + fetch},
		{name: "proxychains4 socks5 login", file: chain + "socks5 127.0.0.1 1081 ann secret\n", args: "proxychains4 -q -f conf " + fetch},
		{name: "proxychains4 socks4", file: chain + "socks4 127.0.0.1 1080\n", args: "proxychains4 -q -f conf " + fetch, to: literals},
		{name: "proxychains4 http", file: chain + "http 127.0.0.1 1080\n", args: "proxychains4 -q -f conf " + fetch},
		{name: "torsocks", args: "torsocks -a 127.0.0.1 -P 1080 " + fetch, to: literals},
		{name: "torsocks login", args: "torsocks -u ann -p secret -a 127.0.0.1 -P 1081 " + fetch, to: literals},
		{name: "tsocks 5", file: strings.Replace(tsocksConf, "TYPE", "5", 1), env: []string{"TSOCKS_CONF_FILE=conf"}, args: "tsocks " + fetch},
		{name: "tsocks 4", file: strings.Replace(tsocksConf, "TYPE", "4", 1), env: []string{"TSOCKS_CONF_FILE=conf"}, args: "tsocks " + fetch},
		{name: "socksify 5", file: strings.Replace(socksifyConf, "VERSION", "socks_v5", 1), env: []string{"SOCKS_AUTOADD_LANROUTES=no", "SOCKS_CONF=conf"}, args: "socksify " + fetch},
		{name: "socksify 4", file: strings.Replace(socksifyConf, "VERSION", "socks_v4", 1), env: []string{"SOCKS_AUTOADD_LANROUTES=no", "SOCKS_CONF=conf"}, args: "socksify " + fetch},
		{name: "ncat socks5", args: "ncat --proxy-type socks5 --proxy-dns remote --proxy 127.0.0.1:1080 TO 4000"},
		{name: "ncat socks5 login", args: "ncat --proxy-type socks5 --proxy-auth ann:secret --proxy 127.0.0.1:1081 TO 4000"},
		{name: "ncat socks4", args: "ncat --proxy-type socks4 --proxy 127.0.0.1:1080 TO 4000"},
		{name: "ncat http", args: "ncat --proxy-type http --proxy 127.0.0.1:1080 TO 4000"},
		{name: "ncat http login", args: "ncat --proxy-type http --proxy-auth ann:secret --proxy 127.0.0.1:1081 TO 4000"},
		{name: "nc 5", args: "nc -N -X 5 -x 127.0.0.1:1080 TO 4000"},
		{name: "nc 4", args: "nc -N -X 4 -x 127.0.0.1:1080 TO 4000"},
		{name: "nc connect", args: "nc -N -X connect -x 127.0.0.1:1080 TO 4000"},
		{name: "connect-proxy 5", args: "connect-proxy -5 -S 127.0.0.1:1080 TO 4000"},
		{name: "connect-proxy 5 login", env: []string{"SOCKS5_USER=ann", "SOCKS5_PASSWD=secret"}, args: "connect-proxy -5 -S 127.0.0.1:1081 TO 4000"},
		{name: "connect-proxy 4", args: "connect-proxy -4 -S 127.0.0.1:1080 TO 4000"},
		{name: "connect-proxy http", args: "connect-proxy -H 127.0.0.1:1080 TO 4000"},
		{name: "curl socks5 login", args: "curl -sS --max-time 20 -x socks5h://ann:secret@127.0.0.1:1081 http://TO/"},
		{name: "curl http login", args: "curl -sS --max-time 20 --proxytunnel -x http://ann:secret@127.0.0.1:1081 http://TO/"},
		{name: "curl https over http", args: "curl -sSk --max-time 20 -x http://127.0.0.1:1080 https://TO/"},
		{name: "curl chain", args: "curl -sSk --max-time 20 --preproxy socks5h://127.0.0.1:1080 -x http://127.0.0.1:1081 -U ann:secret --proxytunnel http://TO/"},
	}
}

// TestForeignClients runs each client to each destination.
func TestForeignClients(t *testing.T) {
	r := foreignRig(t)
	for _, c := range clients() {
		to := c.to
		if len(to) == 0 {
			to = []string{"203.0.113.9", "203.0.113.25", "server.example", "smtp.mail.example"}
		}
		t.Run(c.name, func(t *testing.T) {
			nstest.Need(t, strings.Fields(c.args)[0])
			r.write("conf", c.file)
			for _, dst := range to {
				want := destinations[dst]
				args := strings.Fields(strings.ReplaceAll(c.args, "TO", dst))
				cmd := r.command(args[0], args[1:]...)
				cmd.Env = append(cmd.Env, c.env...)
				got := r.Proxy.Run(t, cmd)
				if strings.TrimSpace(got.Stdout) != want.String() {
					t.Errorf("to %s: got %v\nwant %v", dst, got, want)
				}
			}
		})
	}
}

// TestForeignLoginFails wants a wrong password to be refused, by each protocol.
func TestForeignLoginFails(t *testing.T) {
	r := foreignRig(t)
	for _, args := range []string{
		"curl -sS --max-time 20 -x socks5h://ann:wrong@127.0.0.1:1081 http://203.0.113.9/",
		"curl -sS --max-time 20 --proxytunnel -x http://ann:wrong@127.0.0.1:1081 http://203.0.113.9/",
		"curl -sS --max-time 20 -x socks5h://127.0.0.1:1081 http://203.0.113.9/",
		"curl -sS --max-time 20 --proxytunnel -x http://127.0.0.1:1081 http://203.0.113.9/",
		"curl -sS --max-time 20 -x socks4a://127.0.0.1:1081 http://203.0.113.9/",
	} {
		words := strings.Fields(args)
		if got := r.run(words[0], words[1:]...); got.Err == nil || strings.Contains(got.Stdout, "198.51.100.") {
			t.Errorf("%s: got %v\nwant a refusal", args, got)
		}
	}
}

// TestNode runs the clients of node/package.json. http URLs over an HTTP proxy
// are not among them where a package does not use CONNECT for those.
func TestNode(t *testing.T) {
	nstest.Need(t, "node")
	if _, err := os.Stat("node/node_modules"); err != nil {
		nstest.Skip(t, "npm ci was not run in integration/node")
	}
	r := foreignRig(t)
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range [][3]string{
		{"socks", "socks5://127.0.0.1:1080", "http://203.0.113.25/"},
		{"socks", "socks5://127.0.0.1:1080", "http://smtp.mail.example/"},
		{"socks", "socks5://ann:secret@127.0.0.1:1081", "http://smtp.mail.example/"},
		{"socks", "socks4://127.0.0.1:1080", "http://203.0.113.25/"},
		{"socks", "socks4://127.0.0.1:1080", "http://smtp.mail.example/"},
		{"socks-proxy-agent", "socks4://127.0.0.1:1080", "http://smtp.mail.example/"},
		{"socks-proxy-agent", "socks4a://127.0.0.1:1080", "http://smtp.mail.example/"},
		{"socks-proxy-agent", "socks5://127.0.0.1:1080", "http://smtp.mail.example/"},
		{"socks-proxy-agent", "socks5h://127.0.0.1:1080", "https://smtp.mail.example/"},
		{"proxy-agent", "socks5h://ann:secret@127.0.0.1:1081", "http://smtp.mail.example/"},
		{"proxy-agent", "http://127.0.0.1:1080", "https://smtp.mail.example/"},
		{"https-proxy-agent", "http://127.0.0.1:1080", "https://smtp.mail.example/"},
		{"https-proxy-agent", "http://ann:secret@127.0.0.1:1081", "http://smtp.mail.example/"},
		{"undici", "http://127.0.0.1:1080", "http://smtp.mail.example/"},
		{"undici", "http://127.0.0.1:1080", "https://smtp.mail.example/"},
	} {
		t.Run(strings.Join(test[:], " "), func(t *testing.T) {
			got := r.run("node", dir+"/node/get.mjs", test[0], test[1], test[2])
			if got.Stdout != mail4.String() {
				t.Errorf("got %v\nwant %v", got, mail4)
			}
		})
	}
}

// TestChromium dumps the page that shows the source.
func TestChromium(t *testing.T) {
	nstest.Need(t, "chromium")
	r := foreignRig(t)
	for _, test := range [][2]string{
		{"socks5://127.0.0.1:1080", "http://smtp.mail.example/"},
		{"socks4://127.0.0.1:1080", "http://203.0.113.9/"},
		{"http://127.0.0.1:1080", "https://smtp.mail.example/"},
	} {
		t.Run(test[0]+" "+test[1], func(t *testing.T) {
			want := mail4
			if strings.Contains(test[1], "203.0.113.9") {
				want = wan4
			}
			got := r.Proxy.Run(t, chromium(r, t.TempDir(), test[0], test[1]))
			if !strings.Contains(got.Stdout, ">"+want.String()+"<") {
				t.Errorf("got %v\nwant %v", got, want)
			}
		})
	}
}

func chromium(r *rig, profile, proxy, url string) *exec.Cmd {
	return r.command("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--user-data-dir="+profile, "--proxy-server="+proxy, "--proxy-bypass-list=<-loopback>",
		"--disable-background-networking", "--disable-component-update", "--no-first-run",
		"--ignore-certificate-errors", "--timeout=20000", "--dump-dom", url)
}

// inNamespace dials from the proxy host, for clients that are Go packages.
type inNamespace struct{ *rig }

func (n inNamespace) Dial(network, address string) (net.Conn, error) {
	return n.Proxy.Dial(net.Dialer{Timeout: patience}, network, address)
}
