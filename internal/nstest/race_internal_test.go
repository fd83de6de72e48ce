//go:build linux

package nstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// racer has a race. It ends as programs in tests do: nobody looks at what it says, and it
// is killed.
const racer = `package main

import "syscall"

func main() {
	n, done := 0, make(chan bool)
	go func() { n++; done <- true }()
	n++
	<-done
	syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
}
`

// TestRacesAreTaken finds the report of a program that had a race, once.
func TestRacesAreTaken(t *testing.T) {
	Need(t, "cc")
	dir := t.TempDir()
	t.Setenv(goRace, "") // for the end of the test
	if err := collectRaces(dir); err != nil {
		t.Fatal(err)
	}
	source, program := filepath.Join(dir, "racer.go"), filepath.Join(dir, "racer")
	if err := os.WriteFile(source, []byte(racer), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-race", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("go build -race: %v: %s", err, out)
	}
	cmd := exec.Command(program)
	cmd.Env = RaceEnv()
	if err := cmd.Run(); err == nil {
		t.Fatal("the program ended by itself")
	}
	for _, want := range []int{1, 0} {
		reports, err := takeRaces(dir)
		if err != nil || len(reports) != want {
			t.Fatalf("%d reports, %v, want %d", len(reports), err, want)
		}
		for _, r := range reports {
			if !strings.Contains(r, "DATA RACE") {
				t.Errorf("the report is %q", r)
			}
		}
	}
}
