package admin

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func TestQuestion(t *testing.T) {
	r := newRig(t)
	full := Question{Dial: true}
	full.Flow.Network, full.Flow.Name = "udp", "a.example"
	full.Flow.Dst = netip.AddrPortFrom(netip.Addr{}, 25)
	full.Flow.Client = netip.MustParseAddrPort("192.0.2.1:0")
	full.Flow.User, full.Flow.Session, full.Flow.Listener, full.Flow.LocalPort = "ann", "a&b=c", "office", 5060
	var bare Question
	bare.Flow.Network, bare.Flow.Dst = "tcp", netip.MustParseAddrPort("[2001:db8::1]:0")
	for _, q := range []Question{full, bare} {
		if _, err := r.Explain(t.Context(), &q); err != nil {
			t.Fatal(err)
		}
		if got := *r.service.asked; got != q {
			t.Errorf("got %+v, want %+v", got, q)
		}
	}
	r.service.explain = errors.New("there is no listener \"x\"")
	_, err := r.Explain(t.Context(), &bare)
	if e := (*APIError)(nil); !errors.As(err, &e) || e.Code != http.StatusBadRequest || e.Text != r.service.explain.Error() {
		t.Errorf("got %v", err)
	}
}

func TestBadQuestions(t *testing.T) {
	for query, want := range map[string]string{
		"":                                 "want one of name and address",
		"name=a.example&address=192.0.2.1": "want one of name and address",
		"address=a.example":                `address: "a.example": want an address`,
		"name=a&port=65536":                `port: "65536": want a port`,
		"name=a&network=sctp":              `network: "sctp": want one of ["tcp" "udp"]`,
		"name=a&client=x":                  `client: "x": want an address`,
		"name=a&dial=yes":                  `dial: "yes": want one of ["true" "false"]`,
		"name=a&dial=true":                 "dial needs a port",
	} {
		v, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if q, err := parseQuestion(v); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %+v, %v, want %s", query, q, err, want)
		}
	}
}
