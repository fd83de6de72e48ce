//go:build linux

package nstest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The file and the one line of it that says where a flow leaves from, and what
// stands there in the build that leaks: nothing, so that the kernel chooses.
const (
	bindFile = "dialer/dial.go"
	bindLine = "local := netip.AddrPortFrom(dec.Addr, dec.Port)"
	leakLine = "local := netip.AddrPort{}"
)

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
	if b.Leak {
		text, err := os.ReadFile(filepath.Join(root, bindFile))
		if err != nil {
			return "", err
		}
		if n := strings.Count(string(text), bindLine); n != 1 {
			return "", fmt.Errorf("%s has %q %d times, want it once: tell package nstest what takes the bind out now", bindFile, bindLine, n)
		}
		replaced[bindFile] = strings.Replace(string(text), bindLine, leakLine, 1)
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
