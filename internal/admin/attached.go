package admin

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/srcproxy/srcproxy/internal/explain"
)

// An Attachment is one [[attach]] entry, and what its rules have decided since they were
// loaded.
type Attachment struct {
	Name      string   `json:"name"`
	Cgroups   []string `json:"cgroups"`           // where the rules hold, from the root; empty while none of them is there
	Outside   string   `json:"outside,omitempty"` // the cgroup of a service that does not run in its slice
	Connects  uint64   `json:"connects"`
	Datagrams uint64   `json:"datagrams"`          // with a destination of their own
	Refused   uint64   `json:"refused"`            // calls
	Marks     []string `json:"marks,omitempty"`    // what keeps marks from leading to their sources, with the cure
	Refusal   string   `json:"refusal,omitempty"`  // why the rules hold nowhere
	Unlogged  uint64   `json:"unlogged,omitempty"` // decisions that were to be logged, and were too many
}

// attached writes the attachments, if there are any.
func (s *Status) attached(b *strings.Builder, style explain.Style) {
	if len(s.Attachments) == 0 {
		return
	}
	rows := make([][]cell, 0, len(s.Attachments))
	for _, a := range s.Attachments {
		where := strings.Join(a.Cgroups, ", ")
		switch {
		case a.Refusal != "":
			where = "nowhere"
		case where == "":
			where = "not there yet"
		}
		rows = append(rows, []cell{
			plain(a.Name),
			plain(where),
			plain(strconv.FormatUint(a.Connects, 10)),
			plain(strconv.FormatUint(a.Datagrams, 10)),
			plain(strconv.FormatUint(a.Refused, 10)),
		})
	}
	b.WriteByte('\n')
	table(b, style, []column{{title: "ATTACHED"}, {title: "CGROUP"}, {"CONNECTS", true}, {"DATAGRAMS", true}, {"REFUSED", true}}, rows)
	for _, a := range s.Attachments {
		if a.Unlogged > 0 {
			fmt.Fprintf(b, "%s: %d decisions were too many to be logged\n", a.Name, a.Unlogged)
		}
	}
}

// attachedHealth says which programs go without rules, or have a moment without them, and
// which marks lead nowhere.
func (s *Status) attachedHealth() []string {
	var out []string
	for _, a := range s.Attachments {
		if a.Refusal != "" {
			out = append(out, fmt.Sprintf("%s goes without rules: %s", a.Name, a.Refusal))
		}
		if a.Outside != "" {
			out = append(out, fmt.Sprintf("%s runs in %s and not in its slice: after a restart its first packets may not be ruled; srcproxy attach prints the cure", a.Name, a.Outside))
		}
		for _, m := range a.Marks {
			out = append(out, fmt.Sprintf("%s: sockets that hold a port cannot connect: %s", a.Name, m))
		}
	}
	return out
}
