package admin

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/srcproxy/srcproxy/internal/flows"
)

// Host is what clients send as the host. Others are refused: a browser that was led here
// by a name, or by a page of somebody else, cannot know it.
const Host = "srcproxy"

// The headers by which a client says which configuration it means. A service with
// another one refuses, with 412.
const (
	configHeader = "Srcproxy-Config" // the absolute path of the file
	sumHeader    = "Srcproxy-Sum"    // config.Config.Sum
)

// maxBody bounds what a request may carry, in bytes; no answer depends on it, and none
// reads it.
const maxBody = 4 << 10

// Handler returns the API.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /api/v1/status", s.status)
	mux.HandleFunc("GET /api/v1/sources", s.sources)
	mux.HandleFunc("GET /api/v1/rules", s.rules)
	mux.HandleFunc("POST /api/v1/rules/reset", s.resetRules)
	mux.HandleFunc("GET /api/v1/conns", s.conns)
	mux.HandleFunc("DELETE /api/v1/conns/{id}", s.closeConn)
	mux.HandleFunc("GET /api/v1/explain", s.explain)
	mux.HandleFunc("POST /api/v1/reload", s.reload)
	return s.guard(orElse(mux))
}

// orElse answers what no handler of mux is for in JSON, as all else: mux answers in plain
// text that a path or a method is unknown.
func orElse(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		refused := refusal{ResponseWriter: w}
		h.ServeHTTP(&refused, r)
		err := fmt.Errorf("there is no %s", r.URL.Path)
		if allowed := w.Header().Get("Allow"); allowed != "" {
			err = fmt.Errorf("%s is for %s, not for %s", r.URL.Path, allowed, r.Method)
		}
		fail(w, refused.code, err)
	})
}

// refusal keeps the headers and the code of an answer, and drops its text.
type refusal struct {
	http.ResponseWriter
	code int
}

func (r *refusal) WriteHeader(code int)        { r.code = code }
func (r *refusal) Write(b []byte) (int, error) { return len(b), nil }

// guard refuses what does not come from a client of ours, and what means another
// service.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, sum := s.Service.Configuration()
		wantPath, wantSum := r.Header.Get(configHeader), r.Header.Get(sumHeader)
		switch {
		case r.Host != Host:
			fail(w, http.StatusMisdirectedRequest, fmt.Errorf("the host is %q; want %q", r.Host, Host))
		case r.Header.Get("Origin") != "":
			fail(w, http.StatusForbidden, errors.New("requests of web pages are refused"))
		case r.ContentLength < 0 || r.ContentLength > maxBody: // negative: only its end tells how long it is
			fail(w, http.StatusRequestEntityTooLarge, fmt.Errorf("the request has a body of more than %d bytes", maxBody))
		case wantPath != "" && wantPath != path:
			fail(w, http.StatusPreconditionFailed, fmt.Errorf("the service serves %s, and not %s", orBuiltIn(path), wantPath))
		case wantSum != "" && wantSum != sum:
			fail(w, http.StatusPreconditionFailed, fmt.Errorf("the service has read %s when it said something else; srcproxy reload makes it read it now", wantPath))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func orBuiltIn(path string) string {
	if path == "" {
		return "the built-in configuration"
	}
	return path
}

// answer sends v as JSON.
func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // a client that has gone
}

func fail(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	answer(w, failure{err.Error()})
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	if st := s.Service.Status(); st.State != Running {
		fail(w, http.StatusServiceUnavailable, errors.New(st.State))
		return
	}
	answer(w, map[string]string{"state": Running})
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	st := s.Service.Status()
	st.count(s.Flows.All(), s.Service.Sources())
	answer(w, st)
}

func (s *Server) sources(w http.ResponseWriter, _ *http.Request) {
	u := use{s.Service.Ports(), s.Service.Places}
	answer(w, newSources(s.Service.Sources(), s.Service.Way, s.Flows.Sources(), u, s.Service.Pools()))
}

func (s *Server) rules(w http.ResponseWriter, _ *http.Request) {
	answer(w, newRules(s.Service.Rules(), s.Flows.Rules(), s.attached(false)))
}

func (s *Server) resetRules(w http.ResponseWriter, _ *http.Request) {
	s.Flows.KeepRules(nil)
	answer(w, newRules(s.Service.Rules(), s.Flows.Rules(), s.attached(true)))
}

// attached returns what the rules have decided for attached programs since the last reset.
func (s *Server) attached(reset bool) map[string]uint64 {
	now := s.Service.Attached()
	s.mu.Lock()
	defer s.mu.Unlock()
	if reset {
		s.reset = now
	}
	out := make(map[string]uint64, len(now))
	for name, n := range now {
		if before := s.reset[name]; before <= n { // else the rules were loaded anew
			n -= before
		}
		out[name] = n
	}
	return out
}

// conns sends a Conns, one flow after the other: all of them at once can be larger than
// everything else that the program holds.
func (s *Server) conns(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	b := bufio.NewWriter(w)
	end := "]\n}\n"
	_, _ = b.WriteString("{\n  \"conns\": [") // Flush tells of errors
	for i, f := range s.Flows.All() {
		text, err := json.Marshal(newConn(f))
		if err != nil {
			s.Log.Warn("admin socket", "err", err)
			return
		}
		if i > 0 {
			_ = b.WriteByte(',')
		}
		end = "\n  ]\n}\n"
		_, _ = b.WriteString("\n    ")
		_, _ = b.Write(text)
	}
	_, _ = b.WriteString(end)
	_ = b.Flush() // a client that has gone
}

func (s *Server) closeConn(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("%q is no number of a connection", r.PathValue("id")))
		return
	}
	f := s.Flows.Get(id)
	if f == nil {
		fail(w, http.StatusNotFound, fmt.Errorf("there is no connection %d, or no longer", id))
		return
	}
	f.Close(flows.ErrClosed)
	answer(w, newConn(f))
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	done, err := s.Service.Reload(r.Context())
	switch {
	case errors.Is(err, ErrDraining):
		fail(w, http.StatusServiceUnavailable, err)
	case err != nil:
		fail(w, http.StatusConflict, err)
	default:
		answer(w, done)
	}
}

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuestion(r.URL.Query())
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	a, err := s.Service.Explain(r.Context(), q)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	answer(w, a)
}
