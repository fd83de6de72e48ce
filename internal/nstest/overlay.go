//go:build linux

package nstest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// An edit is a line of a file that has it once, and what stands there in a variant of
// the program.
type edit struct{ file, line, variant string }

// withoutBind takes out where a flow leaves from: nothing stands there, so that the
// kernel chooses.
var withoutBind = edit{"dialer/dial.go", "local := netip.AddrPortFrom(dec.Addr, dec.Port)", "local := netip.AddrPort{}"}

// callsUnknown has the hooks call a function of the kernel that is in no version of it
// where they call bpf_set_retval.
var callsUnknown = []edit{
	{"internal/cgroupbpf/diagnose.go", `{asm.FnSetRetval, "bpf_set_retval", "5.18"},`, `{asm.BuiltinFunc(9999), "bpf_set_retval", "5.18"},`},
	{"internal/cgroupbpf/plane.go", "delete(spec.Programs, hooksProgAsk) // for tests", `delete(spec.Programs, hooksProgAsk)
	for _, p := range spec.Programs {
		for i := range p.Instructions {
			if ins := &p.Instructions[i]; ins.IsBuiltinCall() && ins.Constant == 187 {
				ins.Constant = 9999
			}
		}
	}`},
}

// The file that the build with figures has more than others.
const (
	figuresFile = "cmd/srcproxy/figures.go"
	figuresText = `package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

func init() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	go tellFigures(asked)
}

func tellFigures(asked <-chan os.Signal) {
	for range asked {
		runtime.GC() // what has a finalizer, or is in a sync.Pool, goes with the second or third one
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Fprintf(os.Stderr, "{\"msg\":\"figures\",\"goroutines\":%d,\"heap\":%d}\n", runtime.NumGoroutine(), m.HeapAlloc)
	}
}
`
)

// overlay writes what b has other than the sources into the directory dir, and the
// file for go build -overlay that puts it in place. The sources are not touched,
// and hold no switch that could be left on.
func (b Binary) overlay(root, dir string) (string, error) {
	replaced := make(map[string]string) // file, text
	var edits []edit
	if b.Leak {
		edits = append(edits, withoutBind)
	}
	if b.Old {
		edits = append(edits, callsUnknown...)
	}
	for _, e := range edits {
		text, err := os.ReadFile(filepath.Join(root, e.file))
		if err != nil {
			return "", err
		}
		if n := strings.Count(string(text), e.line); n != 1 {
			return "", fmt.Errorf("%s has %q %d times, want it once: tell package nstest what is to be exchanged now", e.file, e.line, n)
		}
		replaced[e.file] = strings.Replace(string(text), e.line, e.variant, 1)
	}
	if b.Figures {
		replaced[figuresFile] = figuresText
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	replace := make(map[string]string)
	for file, text := range replaced {
		variant := filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(variant, []byte(text), 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(root, file)] = variant
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, list, 0o644)
}
