package egress

import (
	"bufio"
	"bytes"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"sync"
)

// watched is what stands in a file. It is read again when the file has changed; one
// that cannot be read counts as empty.
type watched[T any] struct {
	path  string
	parse func([]byte) T

	mu    sync.Mutex
	info  fs.FileInfo // of what value was read from
	value *T
}

func watch[T any](path string, parse func([]byte) T) *watched[T] {
	return &watched[T]{path: path, parse: parse}
}

// get returns what stands in the file now, which nobody changes: the same pointer as
// before where the file is the same.
func (w *watched[T]) get() *T {
	info, err := os.Stat(w.path)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		info = nil
	}
	if w.value == nil || !same(w.info, info) {
		text, err := os.ReadFile(w.path)
		if err != nil {
			text = nil
		}
		v := w.parse(text)
		w.value, w.info = &v, info
	}
	return w.value
}

// same reports whether two looks at a path saw one state of one file; nil is none.
func same(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// hosts is the addresses of names, in lower case and without the last dot.
type hosts map[string][]netip.Addr

// parseHosts reads hosts(5).
func parseHosts(text []byte) hosts {
	h := make(hosts)
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		a, err := netip.ParseAddr(words[0])
		if err != nil {
			continue
		}
		for _, name := range words[1:] {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			h[name] = append(h[name], a)
		}
	}
	return h
}
