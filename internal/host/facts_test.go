package host

import (
	"os"
	"testing"
)

func TestReadFacts(t *testing.T) {
	f, err := ReadFacts()
	if err != nil {
		t.Fatal(err)
	}
	if f.Files == 0 || f.PortLo == 0 || f.PortHi < f.PortLo {
		t.Errorf("got %+v", f)
	}
	if os.Geteuid() != 0 && f.BindService {
		t.Error("CAP_NET_BIND_SERVICE without being root")
	}
}

func TestScanFile(t *testing.T) {
	name := t.TempDir() + "/numbers"
	if err := os.WriteFile(name, []byte("32768\t60999\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var lo, hi uint16
	if err := scanFile(name, &lo, &hi); err != nil || lo != 32768 || hi != 60999 {
		t.Errorf("got %d, %d, %v", lo, hi, err)
	}
	var n int
	if err := scanFile(name, &lo, &hi, &n); err == nil {
		t.Error("three numbers out of two: no error")
	}
}
